"""After a seed has come to rest: the ledger against the providers' books, payment by payment."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from router.audit import ALWAYS_UNLOGGED, WHILE_PARKED
from tests.simulation.books import LIVE, Charge
from tests.simulation.scenario import Scenario

FINAL = frozenset({"authorized", "captured", "declined", "failed", "canceled"})
UNPAID = frozenset({"declined", "failed", "canceled"})


def check(scenario: Scenario) -> None:
    """Report every way in which the end is not what it must be."""
    world = scenario.world
    if world.violations:
        return
    rows = {row["id"]: row for row in world.database.rows("SELECT * FROM payments")}
    attempts = {row["id"]: row for row in world.database.rows("SELECT id, payment_id, outcome FROM attempts")}
    found: list[str] = []
    for payment, charges in world.books.by_payment.items():
        if payment not in rows:
            found += [f"{each.attempt} is {each.status} in the books, unknown to the ledger" for each in charges]
    for row in rows.values():
        found += _payment(row, world.books.by_payment.get(row["id"], []), attempts)
    found += _folded(scenario, rows)
    found += _customers(scenario, rows)
    world.violations += found
    world.totals.counts["payments"] += len(rows)
    world.totals.counts["attempts"] += len(attempts)
    world.totals.statuses.update(Counter(row["status"] for row in rows.values()))


def _payment(row: dict[str, Any], charges: list[Charge], attempts: dict[str, dict[str, Any]]) -> list[str]:
    name, status, found = f"{row['id']} ({row['status']})", row["status"], []
    if status not in FINAL:
        found.append(f"{name} is not final")
    chosen = next((each for each in charges if each.attempt == row["attempt_id"]), None)
    for each in charges:
        if each.attempt not in attempts:
            found.append(f"{name}: {each.attempt} is not in the ledger")
        # At Adyen a step that the customer was not told of authorizes nothing: it takes a call of ours to end it.
        dormant = each.status == "requires_action" and each.provider == "adyen"
        if each is not chosen and (each.net or each.status in LIVE) and not dormant:
            found.append(f"{name}: orphan {each.attempt} is {each.status}, {each.net} taken")
    captured, refunded = (chosen.captured, chosen.refunded) if chosen else (0, 0)
    if status in UNPAID and captured - refunded:
        found.append(f"{name}: {captured} captured in the books, {refunded} refunded")
    if (row["amount_captured"], row["amount_refunded"]) != (captured, refunded):
        told = (row["amount_captured"], row["amount_refunded"])
        found.append(f"{name}: captured and refunded {told} in the ledger, {(captured, refunded)} in the books")
    if chosen is not None and not _agree(status, chosen):
        found.append(f"{name}: {chosen.attempt} is {chosen.status} in the books")
    if chosen is None and status in ("authorized", "captured"):
        found.append(f"{name}: nothing in the books")
    return found


def _agree(status: str, charge: Charge) -> bool:
    match charge.status:
        case "captured":
            return status == "captured" or (status in UNPAID and charge.net == 0)
        case "canceled":
            # Stripe drops the authorization along with a capture that fails; what is left cannot be captured.
            return (
                status == "canceled" or charge.capture_failed or (status == "declined" and charge.provider == "adyen")
            )
        case "declined":
            return status in UNPAID
        case "requires_action":
            # At Adyen it authorizes nothing before we send what the customer brings back.
            return status == charge.status or (status == "canceled" and charge.provider == "adyen")
        case _:
            return status == charge.status


def _folded(scenario: Scenario, rows: dict[str, dict[str, Any]]) -> list[str]:
    """Folding a payment's events gives its row."""
    folded: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in scenario.world.database.rows(
        "SELECT payment_id, version, changes FROM payment_events ORDER BY payment_id, version"
    ):
        folded[event["payment_id"]].update(json.loads(event["changes"]))
    found = []
    for payment, row in rows.items():
        for column, value in folded[payment].items():
            if column in (WHILE_PARKED if row["status"] == "parked" else ALWAYS_UNLOGGED):
                continue
            if column not in row:
                continue
            held = row[column]
            if isinstance(held, str) and isinstance(value, dict | list):
                held = json.loads(held)
            if held != value:
                found.append(f"{payment}: {column} is {held!r}, its events say {value!r}")
    return found


def _customers(scenario: Scenario, rows: dict[str, dict[str, Any]]) -> list[str]:
    found = []
    keys: dict[str, set[str]] = defaultdict(set)
    for customer in scenario.customers:
        if customer.payment is not None:
            keys[customer.key].add(customer.payment)
            if customer.payment not in rows:
                found.append(f"{customer.payment} was accepted, and is lost")
    found += [f"{key} made {sorted(made)}" for key, made in keys.items() if len(made) > 1]
    paid = Counter(row["reference"] for row in rows.values() if row["amount_captured"] > row["amount_refunded"])
    found += [f"{reference} was paid {times} times" for reference, times in paid.items() if times > 1]
    return found
