"""Compares, payment by payment, the ledger with the providers' own books and with what checkout was told."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.tables import attempts, operations, payment_events, payments, webhooks
from tests.e2e.house import House, eventually
from tests.e2e.shoppers import Shopping

Row = Mapping[str, Any]
FINAL = {
    "captured": {"captured"},
    "declined": {"declined"},
    "canceled": {"canceled"},
    "failed": {"failed"},
    # A payment that waits for checkout: checkout captures or cancels it, or somebody at the provider does.
    "authorized": {"authorized", "captured", "canceled"},
}
"""What a payment may be at last, by what checkout was once told."""


@dataclass
class Ledger:
    """What the ledger holds, of one moment."""

    payments: list[Row]
    attempts: list[Row]
    operations: list[Row]
    waiting_notices: int
    events: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, url: str) -> Ledger:
        """Everything, straight from the database."""
        database = Database(url, pool_size=1)
        try:
            with database.read() as connection:

                def rows(table: sa.Table) -> list[Row]:
                    return [dict(row) for row in connection.execute(table.select()).mappings()]

                waiting = sa.select(sa.func.count()).select_from(webhooks).where(webhooks.c.applied_at.is_(None))
                kinds = sa.select(payment_events.c.type, sa.func.count()).group_by(payment_events.c.type)
                counted = {str(kind): int(count) for kind, count in connection.execute(kinds).all()}
                return cls(rows(payments), rows(attempts), rows(operations), connection.scalar(waiting) or 0, counted)
        finally:
            database.close()

    def unsettled(self) -> list[str]:
        """Every payment that is not final, or of which something is still in doubt."""
        return [
            f"{row['reference']}: {row['status']}" + (f", {row['attention']}" if row["attention"] else "")
            for row in self.payments
            if row["status"] in ("processing", "parked", "requires_action") or row["resolve_at"] or row["lease_until"]
        ]


@dataclass
class Books:
    """Both providers' own books, by the payment's reference."""

    charges: dict[str, list[Row]]

    @classmethod
    def read(cls, house: House) -> Books:
        """Everything that both providers hold."""
        found: dict[str, list[Row]] = defaultdict(list)
        for provider in ("stripe", "adyen"):
            for charge in house.control("GET", f"/{provider}/charges")["charges"]:
                found[charge["reference"]].append({**charge, "provider": provider})
        return cls(found)

    def taken(self, reference: str) -> list[Row]:
        """The charges whose money was ever taken."""
        return [each for each in self.charges.get(reference, []) if each["amount_captured"]]

    def held(self, reference: str) -> list[Row]:
        """The charges that still hold a customer's money back."""
        return [each for each in self.charges.get(reference, []) if each["status"] == "authorized"]


def disagreements(ledger: Ledger, books: Books, wanted: Iterable[Shopping]) -> list[str]:
    """Every way in which ledger, books and what checkout was told do not agree; empty where all is well."""
    found: list[str] = []
    by_reference: dict[str, list[Row]] = defaultdict(list)
    for row in ledger.payments:
        by_reference[row["reference"]].append(row)
    for reference, rows in by_reference.items():
        if len(rows) > 1:
            found.append(f"{reference}: {len(rows)} payments of one key")
        found += [f"{reference}: {line}" for line in _against_books(rows[0], ledger, books)]
    found += [f"{reference}: charged, and not in the ledger" for reference in books.charges.keys() - by_reference]
    for shopping in wanted:
        paid = by_reference.get(shopping.reference)
        lines = _against_answers(shopping, paid[0] if paid else None)
        found += [f"{shopping.reference}: {line}" for line in lines]
    return sorted(found)


def _against_books(row: Row, ledger: Ledger, books: Books) -> Iterable[str]:
    reference, status = row["reference"], row["status"]
    taken, held = books.taken(reference), books.held(reference)
    shown = [(each["provider"], each["status"], each["amount_captured"]) for each in books.charges.get(reference, [])]
    if len(taken) > 1:
        yield f"CAPTURED TWICE: {shown}"
    if len(held) > (status == "authorized"):
        yield f"is {status}, and {len(held)} authorizations are held: {shown}"
    if status == "captured":
        if len(taken) != 1:
            yield f"is captured, and the books say {shown}"
            return
        (charge,) = taken
        attempt = next((each for each in ledger.attempts if each["id"] == row["attempt_id"]), None)
        said = (
            row["provider"],
            row["amount_captured"],
            row["amount_refunded"],
            attempt and attempt["provider_reference"],
        )
        true = (charge["provider"], charge["amount_captured"], charge["amount_refunded"], charge["id"])
        if said != true:
            yield f"the ledger says {said}, the books {true}"
        if charge["amount_refunded"] > charge["amount_captured"]:
            yield f"refunded more than was captured: {shown}"
    elif taken:
        yield f"is {status}, and money was taken: {shown}"
    if status == "authorized" and len(held) != 1:
        yield f"is authorized, and the books say {shown}"


def _against_answers(shopping: Shopping, row: Row | None) -> Iterable[str]:
    told = [each for each in shopping.answers if each.status is not None]
    ids = {each.body["id"] for each in told if "id" in each.body}
    if len(ids) > 1 or (ids and (row is None or row["id"] not in ids)):
        yield f"LOST OR DOUBLED: checkout was told of {sorted(ids)}, the ledger has {row and row['id']}"
    again = {"request-in-progress", "ledger-unavailable", "outcome-unknown"}
    unknown = {each.problem for each in told} - {None, "state-conflict", *again}
    if unknown:
        yield f"checkout was answered {sorted(map(str, unknown))}"
    if not told and shopping.patient:
        yield "checkout was never answered"
    finals = {str(each.body["status"]) for each in told if each.body.get("status") in FINAL and "id" in each.body}
    for final in finals:
        if row is not None and row["status"] not in FINAL[final]:
            yield f"checkout was told {final}, and it is {row['status']}"
    for each in told:
        if each.call == "refunds" and each.status == 200 and row is not None:
            asked = shopping.amount or row["amount_captured"]
            if row["amount_refunded"] != asked:
                yield f"{asked} was refunded as checkout was told, and the ledger has {row['amount_refunded']}"
        if each.call == "capture" and each.status == 200 and row is not None:
            asked = shopping.amount or row["amount"]
            if row["amount_captured"] != asked:
                yield f"{asked} was captured as checkout was told, and the ledger has {row['amount_captured']}"


def reckon(house: House, url: str, wanted: Iterable[Shopping], *, within_s: float) -> Ledger:
    """Wait until every payment is final, with nobody's help, then compare; fails the test, saying why."""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not Ledger.read(url).unsettled(), within_s)
    with contextlib.suppress(AssertionError):
        eventually(lambda: not Ledger.read(url).waiting_notices, within_s)
    ledger = Ledger.read(url)
    wrong = [f"{line}, not final" for line in ledger.unsettled()]
    wrong += disagreements(ledger, Books.read(house), wanted)
    shown = [
        line
        for reference in dict.fromkeys(each.partition(": ")[0] for each in wrong[:3])
        for line in history(url, reference)
    ]
    assert not wrong, "\n".join([*wrong, *shown])
    return ledger


def charged_once(wanted: Iterable[Shopping], ledger: Ledger, books: Books) -> None:
    """Each of these is captured by one charge of all its money, at the primary, and the other never heard of it."""
    stands = {row["reference"]: row["status"] for row in ledger.payments}
    shown = {
        each.reference: (
            stands.get(each.reference),
            [(charge["provider"], charge["amount_captured"]) for charge in books.charges.get(each.reference, [])],
        )
        for each in wanted
    }
    assert shown == {each.reference: ("captured", [("stripe", each.body["amount"])]) for each in wanted}


def history(url: str, reference: str) -> Sequence[str]:
    """A payment's events, attempts and operations, for whoever has to find out what went wrong."""
    database = Database(url, pool_size=1)
    try:
        with database.read() as connection:
            row = connection.execute(payments.select().where(payments.c.reference == reference)).mappings().first()
            if row is None:
                return ["not in the ledger"]
            lines = [f"{row['id']} {row['status']} told={row['told']} resolve_tries={row['resolve_tries']}"]
            for table in (attempts, operations, payment_events):
                query = table.select().where(table.c.payment_id == row["id"])
                for each in connection.execute(query).mappings():
                    kept = {name: value for name, value in each.items() if name not in ("params", "payment_id")}
                    lines.append(f"  {table.name}: {kept}")
            return lines
    finally:
        database.close()
