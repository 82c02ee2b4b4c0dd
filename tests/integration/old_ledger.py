"""Ledgers as the first version's code (commit be8d99c) wrote them, by plain SQL: its queries are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import command

from router.ledger.engine import Database
from router.ledger.migrate import alembic_config
from tests.fakes.house import an_order

AT = 1_795_219_200_000_000
"""When it wrote them: where `ManualClock` begins."""
CHECKOUT_LEASE_US = 40_000_000
ACTION = {"type": "redirect", "url": "u"}
DECLINE = {"class": "hard", "code": "stolen_card", "message": "Declined.", "network_code": "43", "advice": None}
OPEN = ("processing", "requires_action", "authorized", "parked", "captured")

Tried = tuple[str, str | None]
"""A provider and what it answered; None: the process died before it did."""


def first_version(database: Database) -> None:
    """The tables of the first version, empty."""
    config = alembic_config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


def insert(connection: sa.Connection, table: str, row: dict[str, Any]) -> None:
    """One row, with JSON as the text it is."""
    row = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
    names = ", ".join(f'"{name}"' for name in row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), row)


def write(database: Database, name: str, status: str, tried: Iterable[Tried] = (), **more: Any) -> str:
    """One payment, as `write_within`, committed."""
    with database.write() as connection:
        return write_within(connection, name, status, tried, **more)


def write_within(
    connection: sa.Connection,
    name: str,
    status: str,
    tried: Iterable[Tried] = (),
    *,
    capture: str = "automatic",
    leased: bool = False,
    at: int = AT,
    **columns: Any,
) -> str:
    """A payment that came to this status by these attempts. Answers its id, `pay_<name>`.

    `leased`: the process that worked on it did not come to write the end. `columns` are what differs in its row.
    """
    payment_id, tries = f"pay_{name}", list(tried)
    began = _row(payment_id, capture, at) | {"lease_holder": "lease_1", "lease_until": at + CHECKOUT_LEASE_US}
    if not tries:
        began |= {"lease_holder": None, "lease_until": None, "status": status}
    else:
        began["provider"] = tries[0][0]
    changes = [began]
    for number, (provider, _) in enumerate(tries[1:], 2):
        changes.append({"status": "processing", "provider": provider, "version": number, "updated_at": at})
    if tries and not leased:
        changes.append(_end(status, tries, len(changes) + 1, at))
    folded: dict[str, Any] = {}
    for each in changes:
        folded |= each
    insert(connection, "payments", folded | columns)
    key = {"merchant": "m", "key": f"key-{name}", "fingerprint": name, "payment_id": payment_id, "created_at": at}
    insert(connection, "idempotency_keys", key)
    _write_attempts(connection, payment_id, name, tries, at)
    for each in changes:
        kind = "created" if each["version"] == 1 else str(each.get("status"))
        event = {"payment_id": payment_id, "version": each["version"], "type": kind, "changes": each, "at": at}
        insert(connection, "payment_events", event)
    return payment_id


def _row(payment_id: str, capture: str, at: int) -> dict[str, Any]:
    order = an_order(capture=capture).model_dump(mode="json", exclude_none=True)
    return {
        "id": payment_id,
        "merchant": "m",
        "reference": order["reference"],
        "holds_reference": True,
        "status": "processing",
        "amount": 1999,
        "currency": "EUR",
        "amount_captured": 0,
        "amount_refunded": 0,
        "capture_pending": False,
        "provider": None,
        "order": order,
        "flags": {"primary": "stripe"},
        "decision": {"strategy": "primary-first", "primary": "stripe", "candidates": []},
        "decline": None,
        "next_action": None,
        "version": 1,
        "lease_holder": None,
        "lease_until": None,
        "tries": 0,
        "next_try_at": None,
        "expires_at": at + 86_400_000_000,
        "created_at": at,
        "updated_at": at,
    }


def _end(status: str, tried: Sequence[Tried], version: int, at: int) -> dict[str, Any]:
    last = next((provider for provider, outcome in reversed(tried) if outcome != "not_executed"), None)
    end: dict[str, Any] = {
        "status": status,
        "decline": DECLINE if status == "declined" else None,
        "next_action": ACTION if status == "requires_action" else None,
        "provider": last,
        "next_try_at": None,
        "lease_holder": None,
        "lease_until": None,
        "updated_at": at,
        "version": version,
        "holds_reference": status in OPEN,
    }
    if status == "parked":
        end |= {"next_try_at": at + 15_000_000, "tries": 1}
    return end | ({"amount_captured": 1999, "capture_pending": False} if status == "captured" else {})


def _write_attempts(connection: sa.Connection, payment_id: str, name: str, tried: Sequence[Tried], at: int) -> None:
    for number, (provider, outcome) in enumerate(tried, 1):
        attempt_id = f"att_{name}_{number}"
        answered = outcome in ("approved", "declined", "requires_action")
        attempt = {
            "id": attempt_id,
            "payment_id": payment_id,
            "number": number,
            "provider": provider,
            "idempotency_key": attempt_id,
            "params": {"payment": payment_id, "attempt": attempt_id, "amount": 1999, "token": "tok"},
            "outcome": outcome,
            "reason": "http_503" if outcome in ("unknown", "not_executed") else None,
            "health": "ok" if answered else None if outcome is None else "provider_error",
            "provider_reference": f"ref_{attempt_id}" if answered else None,
            "decline": DECLINE if outcome == "declined" else None,
            "latency_us": None if outcome is None else 100_000,
            "started_at": at,
            "finished_at": None if outcome is None else at,
        }
        insert(connection, "attempts", attempt)
