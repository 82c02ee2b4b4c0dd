"""A ledger of made-up payments, the same for the same seed: what reports are measured with, and tried out on.

The payments have what real ones have: several merchants, currencies with none, two and three decimals, declines of
every class, cascades, two outages of one provider and one of both (payments park), manual captures, partial refunds,
disputes, fees told by the provider or not, and some still open. Their events, folded, give their rows, so that
`pointsman ledger verify` passes. Nothing of it comes from a provider.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from providers.currencies import ISO_EXPONENTS
from router.clock import CROCKFORD
from router.ledger.engine import Database
from router.ledger.tables import attempts, operations, payment_events, payments, to_micros

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
"""Microseconds."""
BATCH = 5_000
"""Payments of one commit."""
MERCHANTS = ("default", "north", "south", "outlet")
# With a typical amount in minor units.
CURRENCIES = {"EUR": 4_000, "USD": 4_500, "GBP": 3_500, "JPY": 6_000, "KWD": 12_000}
COUNTRIES = ("DE", "FR", "US", "GB", "JP", "KW", "NL", "ES", "")
BRANDS = ("visa", "mc", "amex", "")
DECLINES = (("soft", "do_not_honor"), ("hard", "stolen_card"), ("fraud", "fraudulent"), ("invalid", "expired_card"))
RATES = {"stripe": (0.014, 0.25, 0.0), "adyen": (0.011, 0.10, 0.02)}
"""A fee's share of the amount, its fixed part and an attempt's, in major units."""
BY_HOUR = (3, 2, 1, 1, 1, 2, 4, 7, 9, 11, 12, 13, 13, 12, 11, 11, 12, 14, 16, 17, 15, 12, 8, 5)
"""Of a day's payments, by hour of UTC."""


class NotEmptyError(Exception):
    """The ledger has payments: made-up ones are not put among them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made."""

    payments: int
    start: dt.datetime
    days: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Outage:
    """When a provider cannot be had, in microseconds."""

    provider: str
    begin: int
    end: int


def generate(database: Database, plan: Plan) -> Iterator[int]:
    """Fill an empty ledger; how many payments there are so far, commit by commit. Raises NotEmptyError."""
    with database.read() as connection:
        if connection.scalar(sa.select(payments.c.id).limit(1)) is not None:
            raise NotEmptyError
    made = 0
    for batch in _batches(Maker(plan).payments()):
        rows: dict[sa.Table, list[dict[str, Any]]] = {payments: [], attempts: [], operations: [], payment_events: []}
        for each in batch:
            for table, more in each.items():
                rows[table] += more
        with database.write() as connection:
            for table, more in rows.items():
                if more:
                    connection.execute(table.insert(), more)
        made += len(batch)
        yield made


def _batches(made: Iterator[Mapping[sa.Table, list[dict[str, Any]]]]) -> Iterator[Sequence[Any]]:
    while batch := list(itertools.islice(made, BATCH)):
        yield batch


class Maker:
    """Makes one payment after the other, in the order of time."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._random = random.Random(plan.seed)  # noqa: S311 - to be drawn again from its seed
        self._start = to_micros(plan.start)
        at = [self._start + part * plan.days * DAY // 100 for part in (25, 50, 75)]
        self._outages = (
            Outage("stripe", at[0], at[0] + 3 * HOUR),
            Outage("adyen", at[1], at[1] + 2 * HOUR),
            *(Outage(name, at[2], at[2] + HOUR // 2) for name in RATES),
        )

    def payments(self) -> Iterator[Mapping[sa.Table, list[dict[str, Any]]]]:
        """The rows of each payment by table."""
        weights, total, number = BY_HOUR * self._plan.days, sum(BY_HOUR) * self._plan.days, 0
        passed = 0
        for hour, weight in enumerate(weights):
            passed += weight
            many = self._plan.payments * passed // total - number
            for offset in sorted(self._random.randrange(HOUR) for _ in range(many)):
                number += 1
                yield self._payment(number, self._start + hour * HOUR + offset)

    def _id(self, prefix: str, at: int) -> str:
        number, letters = (at // 1000 << 80) | self._random.getrandbits(80), []
        for _ in range(26):
            number, digit = divmod(number, 32)
            letters.append(CROCKFORD[digit])
        return f"{prefix}_{''.join(reversed(letters))}"

    # ------------------------------------------------------------ one payment

    def _payment(self, number: int, at: int) -> Mapping[sa.Table, list[dict[str, Any]]]:
        chance = self._random
        currency = chance.choices(tuple(CURRENCIES), (50, 25, 15, 7, 3))[0]
        amount = max(50, int(CURRENCIES[currency] * chance.lognormvariate(0, 0.8)))
        country, brand = chance.choices(COUNTRIES, (30, 15, 20, 12, 5, 2, 6, 6, 4))[0], chance.choice(BRANDS)
        manual = chance.random() < 0.1
        primary = "stripe" if chance.random() < 0.7 else "adyen"
        down = {each.provider for each in self._outages if each.begin <= at < each.end}
        # A circuit opens some minutes into an outage: until then its payments fail over by an attempt.
        opened = {each.provider for each in self._outages if each.begin + HOUR // 12 <= at < each.end}
        fees = {name: self._fees(name, amount, currency) for name in RATES}
        payment_id = self._id("pay", at)
        row: dict[str, Any] = {
            "id": payment_id,
            "merchant": chance.choices(MERCHANTS, (60, 20, 15, 5))[0],
            "reference": f"ORD-{number:09}",
            "amount": amount,
            "currency": currency,
            "order": _order(number, amount, currency, (country, brand), manual=manual),
            "flags": {"primary": primary, "strategy": "primary-first", "tuning": {}},
            "decision": _decision(primary, amount, currency, opened, fees),
            "created_at": at,
            "expires_at": at + DAY,
            "contact_at": at,
            "capture_pending": False,
            "next_action": None,
            "lease_holder": None,
            "lease_until": None,
            "given_up_at": None,
            "dispute": None,
            "resolve_at": None,
            "resolve_tries": 0,
            "attention": None,
            "next_try_at": None,
            "told": True,
            "version": 1,
            "tries": 0,
        }
        tried, taken = self._attempts(payment_id, at, primary, down=down, opened=opened, fees=fees, once=not manual)
        if taken is None and down == RATES.keys():
            taken = self._after_parking(row, primary, fees, tried, once=not manual)
        made = self._stands(row, taken, manual)
        self._fees_told(tried, fees, currency, row["attempt_id"])
        row["updated_at"] = max([each["finished_at"] or at for each in (*tried, *made)], default=at)
        event = {"payment_id": payment_id, "version": 1, "type": "created", "changes": dict(row), "at": at}
        return {payments: [row], attempts: tried, operations: made, payment_events: [event]}

    def _fees(self, provider: str, amount: int, currency: str) -> tuple[float, float]:
        share, fixed, attempt = RATES[provider]
        return round(share * amount / 10 ** ISO_EXPONENTS[currency] + fixed, 4), attempt

    def _attempts(
        self,
        payment_id: str,
        at: int,
        primary: str,
        *,
        down: set[str],
        opened: set[str],
        fees: Mapping[str, Any],
        once: bool,
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """One round; the attempt that the payment stands on, None where nobody could be had."""
        tried: list[dict[str, Any]] = []
        for provider in sorted(fees, key=lambda name: (name != primary, name)):
            if provider in opened:
                continue
            attempt = self._attempt(payment_id, provider, at, len(tried) + 1, once)
            tried.append(attempt)
            at = attempt["finished_at"] or at
            if provider in down:
                attempt |= {"outcome": "not_executed", "reason": "unavailable", "health": "failure"}
                continue
            roll = self._random.random()
            if roll < 0.02:
                attempt |= {"outcome": "requires_action", "next_action": {"type": "redirect", "url": "https://x"}}
            elif roll < 0.023:
                attempt |= {"outcome": "unknown", "finished_at": None, "latency_us": None}
            elif roll < 0.15:
                kind, code = self._random.choices(DECLINES, (60, 15, 15, 10))[0]
                attempt |= {"outcome": "declined", "decline": {"class": kind, "code": code}}
                if kind == "soft" and self._random.random() < 0.7:
                    continue
            else:
                attempt |= {"outcome": "approved", "was_approved": True, "capture": "done" if once else None}
            return tried, attempt
        declined = [each for each in tried if each["outcome"] == "declined"]
        return tried, declined[-1] if declined else None

    def _attempt(self, payment_id: str, provider: str, at: int, number: int, once: bool) -> dict[str, Any]:
        latency = int(self._random.lognormvariate(12.2 if provider == "stripe" else 12.4, 0.5))
        attempt_id = self._id("att", at)
        return {
            "id": attempt_id,
            "payment_id": payment_id,
            "number": number,
            "provider": provider,
            "idempotency_key": attempt_id,
            "params": {},
            "outcome": None,
            "reason": None,
            "health": "success",
            "provider_reference": f"{'pi' if provider == 'stripe' else 'psp'}_{attempt_id[4:]}",
            "decline": None,
            "next_action": None,
            "at_once": once,
            "capture": None,
            "final_record": False,
            "was_approved": False,
            "was_canceled": False,
            "fee_actual": None,
            "fee_currency": None,
            "sends": 1,
            "latency_us": latency,
            "card": None,
            "started_at": at,
            "last_sent_at": None,
            "finished_at": at + latency,
        }

    def _after_parking(
        self, row: dict[str, Any], primary: str, fees: Mapping[str, Any], tried: list[dict[str, Any]], *, once: bool
    ) -> dict[str, Any] | None:
        """It waits until the outage is over, or for good."""
        row["tries"] = 1
        over = self._outages[-1].end + self._random.randrange(60 * SECOND)
        if self._random.random() < 0.1:
            return None
        more, taken = self._attempts(row["id"], over, primary, down=set(), opened=set(), fees=fees, once=once)
        for number, each in enumerate(more, len(tried) + 1):
            each["number"] = number
        tried += more
        row["decision"] = _decision(primary, row["amount"], row["currency"], set(), fees)
        return taken

    def _stands(self, row: dict[str, Any], taken: dict[str, Any] | None, manual: bool) -> list[dict[str, Any]]:
        """Fill in where the payment stands; its operations."""
        row |= {"amount_captured": 0, "amount_refunded": 0, "decline": None}
        made: list[dict[str, Any]] = []
        if taken is None:
            row |= {"status": "failed", "provider": None, "attempt_id": None, "holds_reference": False}
            return made
        row |= {"provider": taken["provider"], "attempt_id": taken["id"]}
        if taken["outcome"] == "approved":
            made += self._captured(row, taken, manual)
        else:
            outcomes = {"declined": "declined", "requires_action": "requires_action", "unknown": "processing"}
            row |= {"status": outcomes[taken["outcome"]], "decline": taken["decline"]}
            row["next_action"] = taken["next_action"]
        row["holds_reference"] = row["status"] not in ("declined", "failed", "canceled")
        return made

    def _captured(self, row: dict[str, Any], taken: dict[str, Any], manual: bool) -> list[dict[str, Any]]:
        chance, made = self._random, list[dict[str, Any]]()
        row |= {"status": "captured", "amount_captured": row["amount"]}
        if manual:
            roll = chance.random()
            later = taken["finished_at"] + chance.randrange(3 * DAY)
            if roll < 0.1:
                row |= {"status": "canceled", "amount_captured": 0}
                taken |= {"outcome": "canceled", "was_canceled": True}
                return [self._operation(row, taken, "void", row["amount"], later)]
            if roll < 0.2:
                row |= {"status": "authorized", "amount_captured": 0}
                return made
            part = row["amount"] if roll < 0.8 else max(1, row["amount"] * chance.randrange(30, 95) // 100)
            row["amount_captured"] = part
            made.append(self._operation(row, taken, "capture", part, later))
        if chance.random() < 0.04:
            left = row["amount_captured"]
            for _ in range(chance.choice((1, 1, 2))):
                part = left if chance.random() < 0.6 else max(1, left // 3)
                at = taken["finished_at"] + 4 * DAY + chance.randrange(20 * DAY)
                made.append(self._operation(row, taken, "refund", part, at))
                left -= part
                row["amount_refunded"] += part
                if left <= 0:
                    break
        if chance.random() < 0.003:
            stage = chance.choice(("opened", "won", "lost"))
            one = {"reason": stage, "notice": "dispute", "at": "2026-12-01T00:00:00+00:00"}
            row["dispute"] = one | {"each": {"dp_1": one}}
        return made

    def _operation(
        self, row: dict[str, Any], taken: dict[str, Any], kind: str, amount: int, at: int
    ) -> dict[str, Any]:
        operation_id = self._id("op", at)
        return {
            "id": operation_id,
            "payment_id": row["id"],
            "attempt_id": taken["id"],
            "kind": kind,
            "amount": amount,
            "provider": taken["provider"],
            "idempotency_key": operation_id,
            "state": "done",
            "reason": None,
            "provider_reference": operation_id,
            "asked_by": "checkout",
            "sends": 1,
            "started_at": at,
            "finished_at": at + SECOND // 3,
            "failures": [],
        }

    def _fees_told(
        self, tried: list[dict[str, Any]], fees: Mapping[str, tuple[float, float]], currency: str, taker: str | None
    ) -> None:
        for each in tried:
            if each["outcome"] in ("approved", "declined") and self._random.random() < 0.7:
                fee, attempt = fees[each["provider"]]
                expected = attempt + (fee if each["id"] == taker and each["was_approved"] else 0)
                each["fee_actual"] = round(expected * self._random.uniform(0.9, 1.2) * 10 ** ISO_EXPONENTS[currency])
                other = "USD" if currency == "EUR" else "EUR"
                each["fee_currency"] = other if self._random.random() < 0.05 else currency


def _order(number: int, amount: int, currency: str, card_of: tuple[str, str], *, manual: bool) -> dict[str, Any]:
    card = {name: value for name, value in zip(("country", "brand"), card_of, strict=True) if value}
    return {
        "reference": f"ORD-{number:09}",
        "amount": amount,
        "currency": currency,
        "capture": "manual" if manual else "automatic",
        "payment_method": {
            "type": "card",
            "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
            **({"card": card} if card else {}),
        },
    }


def _decision(
    primary: str, amount: int, currency: str, opened: set[str], fees: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    names = sorted(fees, key=lambda name: (name in opened, name != primary, name))
    first = next((name for name in names if name not in opened), None)
    return {
        "strategy": "primary-first",
        "primary": primary,
        "lane": "strategy",
        "choice": first,
        "incumbent": None,
        "margin": 0.1,
        "amount": amount / 10 ** ISO_EXPONENTS[currency],
        "candidates": [
            {
                "provider": name,
                "eligible": name not in opened,
                "value": 0.0,
                "approval": 0.85,
                "availability": 0.99,
                "cost": round(sum(fees[name]), 4),
                "fee": fees[name][0],
                "attempt_fee": fees[name][1],
                "share": 1.0,
                "propensity": 1.0 if name == first else 0.0,
                "reasons": [
                    *(["primary"] if name == primary else []),
                    *(["circuit open"] if name in opened else []),
                    "value 0.0",
                ],
            }
            for name in names
        ],
    }
