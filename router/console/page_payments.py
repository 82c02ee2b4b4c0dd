"""*Payments*: find some, and the whole story of one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Blueprint, Response, render_template

from router import doubts
from router.api.paging import page_of
from router.console.formats import figures, money
from router.console.parts import Parts, again, an_id, asked, asked_moment, refuse, require
from router.ledger.console import STATUSES, Event, Letter, Wanted
from router.ledger.operations import Operation
from router.ledger.records import Attempt, Payment

FINAL = frozenset({"captured", "declined", "failed", "canceled"})
FIELDS = ("q", "status", "provider", "from", "to")
NAMED_AT_MOST = 50
TOLD = ("status", "provider", "capture_pending", "attention", "note", "dispute")
"""Columns of an event that a person wants to read; the others are the machine's own."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a payment."""

    at: dt.datetime
    kind: str
    """attempt, answer, event, operation or letter."""
    title: str
    tone: str = ""
    """good, bad, doubt, or nothing of these."""
    facts: Sequence[tuple[str, str]] = field(default=())

    def is_of_another_day(self, than: dt.datetime) -> bool:
        """Whether its time alone would not tell when it was."""
        return self.at.astimezone(dt.UTC).date() != than.astimezone(dt.UTC).date()


def add(pages: Blueprint, parts: Parts) -> None:
    """The pages."""

    @pages.get("/payments")
    def payments() -> str:
        session = require("payments", "operate")
        word, status, provider, cursor = asked("q"), asked("status"), asked("provider"), asked("cursor")
        if status is not None and status not in STATUSES:
            refuse(422, "This cannot be taken", "status: is not one of a payment")
        since, until = asked_moment("from"), asked_moment("to")
        if since is not None and until is not None and since >= until:
            refuse(422, "This cannot be taken", "from: must be before to")
        following = None
        if word is not None:
            rows = parts.ledger.named(session.merchant, word, limit=NAMED_AT_MOST)
        else:
            wanted = Wanted(session.merchant, status, provider, since, until)
            rows, following = page_of(
                lambda limit: parts.ledger.page(wanted, limit=limit, before=cursor), lambda each: each.id
            )
        return render_template(
            "console/payments.html",
            rows=rows,
            following=following,
            asked=again(*FIELDS),
            statuses=STATUSES,
            providers=parts.providers,
        )

    @pages.get("/payments/<payment_id>")
    def payment(payment_id: str) -> str:
        return render_template("console/payment.html", **_story(parts, payment_id))

    @pages.get("/payments/<payment_id>/live")
    def payment_live(payment_id: str) -> Response:
        return Response(render_template("console/_payment.html", **_story(parts, payment_id)))


def _story(parts: Parts, payment_id: str) -> dict[str, Any]:
    session = require("payments", "operate")
    found = parts.payment_ledger.load(an_id(payment_id))
    if found is None or found[0].merchant != session.merchant:
        refuse(404, "Not found", "There is no such payment.")
    payment, attempts, operations = found
    return {
        "payment": payment,
        "attempts": attempts,
        "operations": operations,
        "steps": steps(
            attempts, operations, parts.ledger.events(payment.id), parts.ledger.letters(payment.id), payment.currency
        ),
        "doubts": doubts.of_payment(payment, attempts, operations) if payment.attention else [],
        "card": payment.order.get("payment_method", {}).get("card") or {},
        "customer": payment.order.get("customer") or {},
        "metadata": payment.order.get("metadata") or {},
        "is_final": _is_final(payment),
    }


def _is_final(payment: Payment) -> bool:
    """Whether the page need not look again by itself."""
    return payment.status in FINAL and payment.resolve_at is None and not payment.capture_pending


def steps(
    attempts: Sequence[Attempt],
    operations: Sequence[Operation],
    events: Sequence[Event],
    letters: Sequence[Letter],
    currency: str,
) -> Sequence[Step]:
    """Everything that happened, in its order."""
    found = [step for each in attempts for step in _of_attempt(each)]
    found += [step for each in operations for step in _of_operation(each, currency)]
    found += [Step(each.at, "event", each.type, facts=_facts(each.changes, currency)) for each in events]
    found += [_of_letter(each) for each in letters]
    order = {"attempt": 0, "operation": 1, "letter": 2, "answer": 3, "event": 4}
    return sorted(found, key=lambda step: (step.at, order[step.kind]))


_TONES = {"approved": "good", "declined": "bad", "not_executed": "bad", "unknown": "doubt", None: "doubt"}


def _of_attempt(attempt: Attempt) -> list[Step]:
    facts = [("attempt", attempt.id), ("key at the provider", attempt.idempotency_key)]
    if attempt.sends > 1:
        facts.append(("sent", f"{attempt.sends} times, under the same key"))
    found = [Step(attempt.started_at, "attempt", f"sent to {attempt.provider}", facts=facts)]
    if attempt.outcome is not None:
        answer = [("reason", attempt.reason), ("their id", attempt.provider_reference)]
        decline = attempt.decline or {}
        answer += [("decline", f"{decline['class']}: {decline['code']}" if decline else None)]
        answer += [("message", decline.get("message")), ("network code", decline.get("network_code"))]
        took = None if attempt.latency_us is None else f"{attempt.latency_us / 1000:.0f} ms"
        told = [(name, str(value)) for name, value in [*answer, ("took", took)] if value]
        at = attempt.finished_at or attempt.last_sent_at or attempt.started_at
        title = f"{attempt.provider}: {attempt.outcome.replace('_', ' ')}"
        found.append(Step(at, "answer", title, _TONES.get(attempt.outcome, ""), told))
    return found


def _of_operation(operation: Operation, currency: str) -> list[Step]:
    facts = [("amount", money(operation.amount, currency)), ("asked by", operation.asked_by), ("id", operation.id)]
    found = [Step(operation.started_at, "operation", f"{operation.kind} at {operation.provider}", facts=facts)]
    if operation.finished_at is not None:
        tone = {"done": "good", "refused": "bad", "failed": "bad", "unknown": "doubt"}.get(operation.state, "")
        told = [("reason", operation.reason), ("their id", operation.provider_reference)]
        title = f"{operation.kind} {operation.state}"
        found.append(Step(operation.finished_at, "answer", title, tone, [(n, str(v)) for n, v in told if v]))
    return found


def _of_letter(letter: Letter) -> Step:
    facts = [("result", letter.result or "waits to be applied")]
    return Step(letter.received_at, "letter", f"{letter.provider} tells: {letter.name}", facts=facts)


def _facts(changes: Mapping[str, Any], currency: str) -> Sequence[tuple[str, str]]:
    told = {name: changes[name] for name in TOLD if changes.get(name) not in (None, False, 0)}
    for name in ("amount_captured", "amount_refunded"):
        if changes.get(name):
            told[name] = money(changes[name], currency)
    decline = changes.get("decline")
    if isinstance(decline, dict):
        told["decline"] = f"{decline.get('class')}: {decline.get('code')}"
    return figures(told)
