"""Notices that wait while versions change: in a rolling upgrade each version reads what the other has stored."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from providers.contract import Health, Money, Notice, NoticeKind, Outcome, OutcomeKind
from router.ledger.engine import Database
from router.ledger.inbox import Inbox

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
BEFORE_FEES = {
    *("kind", "health", "provider_reference", "captured", "capture_pending", "decline", "reason", "next_action"),
    *("our_fault", "final_record"),
}
"""An outcome's fields in the version before this one, which refuses any other."""


def a_notice(fee: Money | None = None) -> Notice:
    outcome = Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference="pi_1", captured=True, fee=fee)
    return Notice(id="evt_1", name="payment_intent.succeeded", kind=NoticeKind.ATTEMPT, outcome=outcome)


def stored(database: Database) -> dict[str, Any]:
    """The one row's notice, as another version would read it."""
    with database.read() as connection:
        value = connection.exec_driver_sql("SELECT notice FROM webhooks").scalar_one()
    found: dict[str, Any] = json.loads(value)
    return found


def test_a_notice_is_stored_as_the_version_before_can_read_it(database: Database) -> None:
    """One row that an older worker cannot read would stop every notice after it."""
    Inbox(database).store("stripe", [a_notice()], now=NOW)
    assert set(stored(database)["outcome"]) <= BEFORE_FEES
    (found,) = Inbox(database).due(NOW, limit=10)
    assert found.notice == a_notice()


def test_a_fee_that_is_told_is_kept(database: Database) -> None:
    """In the currency in which the provider settles."""
    Inbox(database).store("stripe", [a_notice(Money(64, "USD"))], now=NOW)
    (found,) = Inbox(database).due(NOW, limit=10)
    assert found.notice.outcome is not None
    assert found.notice.outcome.fee == Money(64, "USD")


def test_what_a_later_version_adds_is_passed_over(database: Database) -> None:
    """As long as it says the rest as this one does."""
    Inbox(database).store("stripe", [a_notice()], now=NOW)
    changed = stored(database)
    changed |= {"unheard_of": 1, "outcome": changed["outcome"] | {"unheard_of": {"a": 1}}}
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET notice = ?", (json.dumps(changed),))
    (found,) = Inbox(database).due(NOW, limit=10)
    assert found.notice == a_notice()
