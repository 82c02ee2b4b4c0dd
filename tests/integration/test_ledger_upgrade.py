"""A ledger that the first version filled goes on under this one: nothing in it is stranded, on both databases."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from providers.contract import (
    Health,
    LookUp,
    LookUpKind,
    ModificationOutcome,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
)
from router.audit import verify
from router.ledger.engine import Database
from router.ledger.journal import Journals
from router.ledger.migrate import migrate
from router.ledger.operations import Operation
from router.ledger.parked import ParkedLedger
from router.ledger.records import Attempt, Payment, StaleError
from router.modifications import Modifications
from router.sending import Sender
from tests.fakes.home import HOUR_S, Home
from tests.fakes.house import DEADLINE_S, TIMES
from tests.fakes.providers import CAPTURED, DONE, UNKNOWN
from tests.integration import old_ledger
from tests.integration.old_ledger import ACTION, AT
from tests.integration.postgres import Databases

STORIES: dict[str, tuple[str, list[old_ledger.Tried], dict[str, Any]]] = {
    "captured": ("captured", [("stripe", "approved")], {}),
    "authorized": ("authorized", [("stripe", "approved")], {"capture": "manual"}),
    "canceled": ("authorized", [("stripe", "approved")], {"capture": "manual"}),
    "failed-over": ("captured", [("stripe", "not_executed"), ("adyen", "approved")], {}),
    "requires_action": ("requires_action", [("stripe", "requires_action")], {}),
    "processing": ("processing", [("stripe", "unknown")], {}),
    "cut-short": ("processing", [("stripe", None)], {"leased": True}),
    "declined": ("declined", [("stripe", "declined")], {}),
    "cascaded": ("declined", [("stripe", "declined"), ("adyen", "not_executed")], {}),
    "parked": ("parked", [("stripe", "not_executed")], {}),
    "postponed": ("parked", [("stripe", "not_executed")], {"next_try_at": AT + 90_000_000}),
    "failed": ("failed", [("stripe", "not_executed"), ("adyen", "not_executed")], {}),
    "never-tried": ("parked", [], {"next_try_at": AT + 15_000_000}),
}
DECIDING = {
    "captured": "att_captured_1",
    "authorized": "att_authorized_1",
    "canceled": "att_canceled_1",
    "failed-over": "att_failed-over_2",
    "requires_action": "att_requires_action_1",
    "processing": "att_processing_1",
    "cut-short": "att_cut-short_1",
    "declined": "att_declined_1",
    "cascaded": "att_cascaded_1",
}


class Branch(Home):
    """A worker and an API over an upgraded ledger; remembers what was sent of captures and refunds."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.database = database
        self.captures: list[int] = []
        self.refunds: list[tuple[str, int]] = []
        for provider in (self.stripe, self.adyen):
            provider.capture = self._capture  # type: ignore[method-assign]
            provider.refund = self._refund  # type: ignore[assignment, method-assign]
        self.modifications = Modifications(
            ledger=self.ledger,
            journals=Journals(self.ledger, deadline_s=DEADLINE_S, clock=self.clock, ids=self.house.payments._ids),
            sender=Sender(self.house.providers, TIMES, clock=self.clock, random=lambda: 0.5),
            deadline_s=DEADLINE_S,
            clock=self.clock,
        )

    def _capture(self, _reference: str, money: Money, **_named: Any) -> ModificationOutcome:
        self.captures.append(money.amount)
        return DONE

    def _refund(self, reference: str, money: Money, **_named: Any) -> ModificationOutcome:
        self.refunds.append((reference, money.amount))
        return DONE

    def load(self, story: str) -> tuple[Payment, list[Attempt], list[Operation]]:
        found = self.ledger.load(f"pay_{story}")
        assert found is not None
        return found[0], list(found[1]), list(found[2])

    def differences(self) -> list[Any]:
        return [each for progress in verify(self.database) for each in progress.differences]


@pytest.fixture
def old(bare_url: str) -> Iterator[Database]:
    """A ledger that the first version filled."""
    database = Database(bare_url, pool_size=4)
    old_ledger.first_version(database)
    for story, (status, tried, more) in STORIES.items():
        old_ledger.write(database, story, status, tried, **more)
    yield database
    database.close()


@pytest.fixture
def branch(old: Database) -> Branch:
    migrate(old)
    return Branch(old)


def test_a_filled_ledger_upgrades_and_is_sound(branch: Branch) -> None:
    """Each payment says by which attempt it stands, and each attempt how it was sent."""
    assert branch.differences() == []
    for story in STORIES:
        payment, attempts, operations = branch.load(story)
        assert payment.attempt_id == DECIDING.get(story)
        assert payment.told is (story != "cut-short")
        assert payment.contact_at == payment.updated_at == payment.created_at
        assert (payment.resolve_at is not None) is (payment.status == "processing")
        assert {each.at_once for each in attempts} <= {payment.capture_mode == "automatic"}
        taken = payment.amount_captured > 0
        approved = [each for each in attempts if each.outcome == "approved"]
        assert {each.capture for each in approved} <= {"done" if taken else None}
        assert operations == []
    assert branch.load("requires_action")[1][0].next_action == ACTION
    assert branch.load("postponed")[0].next_try_at is not None
    with branch.database.read() as connection:
        table = sa.text("SELECT payment_id FROM payment_events WHERE type = 'upgraded'")
        assert sorted(connection.scalars(table)) == sorted(f"pay_{story}" for story in STORIES)


def test_a_capture_that_the_provider_had_only_received_is_pending(bare_url: str) -> None:
    """Its webhook can say that it is done, or that it failed."""
    database = Database(bare_url, pool_size=2)
    old_ledger.first_version(database)
    old_ledger.write(database, "received", "captured", [("adyen", "approved")], capture_pending=True)
    migrate(database)
    branch = Branch(database)
    assert branch.load("received")[1][0].capture == "pending"
    notice = Notice(
        "n", NoticeKind.CAPTURED, "CAPTURE", attempt_id="att_received_1", provider_reference="ref_att_received_1"
    )
    assert branch.notices.apply("adyen", notice) == "applied"
    payment = branch.load("received")[0]
    assert (payment.status, payment.amount_captured, payment.capture_pending) == ("captured", 1999, False)
    database.close()


def test_an_empty_ledger_of_the_first_version_upgrades(bare_url: str) -> None:
    """There is nothing to fill in."""
    database = Database(bare_url, pool_size=2)
    old_ledger.first_version(database)
    migrate(database)
    assert list(verify(database)) == []
    database.close()


def test_more_payments_than_a_batch_upgrade(bare_url: str) -> None:
    """None is left out between two batches."""
    database = Database(bare_url, pool_size=2)
    old_ledger.first_version(database)
    with database.write() as connection:
        for number in range(1_001):
            old_ledger.write_within(connection, f"p{number}", "captured", [("stripe", "approved")])
    migrate(database)
    found = list(verify(database))
    assert found[-1].payments == 1_001
    assert [each for progress in found for each in progress.differences] == []
    database.close()


def test_an_upgrade_waits_for_what_the_first_version_is_just_writing(postgres: Databases) -> None:
    """It writes a payment, then its attempt: whoever locks them the other way round makes one of the two fail."""
    url = postgres.create()
    database = Database(url, pool_size=4)
    old_ledger.first_version(database)
    old_ledger.write(database, "busy", "captured", [("stripe", "approved")])
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            connection.execute(sa.text("UPDATE payments SET version = 3 WHERE id = 'pay_busy'"))
            upgrading = pool.submit(migrate, database)
            while not _waits_for_a_lock(database):
                assert not upgrading.done()
            connection.execute(sa.text("UPDATE attempts SET reason = 'late' WHERE payment_id = 'pay_busy'"))
        upgrading.result(30)
    payment, (attempt,), _ = Branch(database).load("busy")
    assert (payment.version, attempt.reason, attempt.capture) == (4, "late", "done")
    database.close()
    postgres.drop(url)


def _waits_for_a_lock(database: Database) -> bool:
    query = "SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation WHERE NOT granted"
    with database.read() as connection:
        return bool(connection.scalar(sa.text(query)))


# ---------------------------------------------------------------- what was in doubt


def test_a_payment_in_doubt_is_taken_up_by_the_resolver(branch: Branch) -> None:
    """Sent again under the same key with the same parameters; one capture, at the same provider."""
    branch.clock.advance(60)
    branch.resolver.run_once()
    payment, attempts, operations = branch.load("processing")
    assert (payment.status, payment.amount_captured, payment.resolve_at) == ("captured", 1999, None)
    assert [(each.outcome, each.capture) for each in attempts] == [("approved", "done")]
    assert operations == []
    assert branch.captures == []
    sent = [each for each in branch.stripe.calls if each.payment_id == "pay_processing"]
    assert [each.idempotency_key for each in sent] == ["att_processing_1"]
    assert branch.differences() == []


def test_a_request_that_was_cut_short_is_taken_up_when_its_lease_is_over(branch: Branch) -> None:
    """Within minutes it is sent again: checkout may still be waiting."""
    branch.clock.advance(39)
    assert "pay_cut-short" not in branch.ledger.due_unresolved(branch.clock.now(), limit=100)
    branch.clock.advance(2)
    branch.resolver.run_once()
    assert branch.load("cut-short")[0].status == "captured"
    assert branch.differences() == []


def test_a_request_that_was_cut_short_long_ago_is_not_charged_now(branch: Branch) -> None:
    """Nobody was told of it, and nobody waits for it: it is looked up, and ends canceled."""
    branch.stripe.look_ups.extend([LookUp(LookUpKind.NOT_FOUND)] * 100)
    branch.clock.advance(10 * HOUR_S)
    for _ in range(20):
        branch.resolver.run_once()
        branch.clock.advance(61)
    assert branch.load("cut-short")[0].status == "canceled"
    assert [each for each in branch.stripe.calls if each.payment_id == "pay_cut-short"] == []


def test_a_process_of_the_first_version_stops_where_the_upgrade_came_in_between(old: Database) -> None:
    """Its compare-and-set names a version that is gone: it can neither send at another provider nor write an end."""
    with old.read() as connection:
        row = connection.execute(sa.text("SELECT version FROM payments WHERE id = 'pay_cut-short'")).one()
    migrate(old)
    branch = Branch(old)
    stale = dataclasses.replace(branch.load("cut-short")[0], version=row.version)
    with pytest.raises(StaleError):
        branch.ledger.change(stale, {"status": "captured"}, event="captured", now=branch.clock.now())


def test_an_operators_word_does_not_capture_a_second_time(branch: Branch) -> None:
    """It was sent to be captured with its approval."""
    answer = branch.modifications.resolve("m", "pay_processing", "approved", "dashboard", "pi_1", key="o")
    assert (answer.payment.status, answer.payment.amount_captured) == ("captured", 1999)
    branch.clock.advance(120)
    branch.resolver.run_once()
    assert branch.captures == []
    assert branch.load("processing")[0].amount_captured == 1999
    assert branch.differences() == []


# ---------------------------------------------------------------- what was settled


@pytest.mark.parametrize("story", ["captured", "failed-over"])
def test_an_old_payment_can_be_refunded(branch: Branch, story: str) -> None:
    """In part, and then the rest; not more."""
    branch.modifications.refund("m", f"pay_{story}", 999, key="r1")
    answer = branch.modifications.refund("m", f"pay_{story}", None, key="r2")
    assert (answer.payment.status, answer.payment.amount_refunded) == ("captured", 1999)
    reference = f"ref_{DECIDING[story]}"
    assert branch.refunds == [(reference, 999), (reference, 1000)]
    assert branch.differences() == []


def test_an_old_authorization_can_be_captured_or_canceled(branch: Branch) -> None:
    """By checkout, as if it had been made today."""
    taken = branch.modifications.capture("m", "pay_authorized", 500, key="c")
    assert (taken.payment.status, taken.payment.amount_captured) == ("captured", 500)
    assert branch.modifications.cancel("m", "pay_canceled", key="x").payment.status == "canceled"
    assert branch.stripe.voided == ["ref_att_canceled_1"]
    assert branch.differences() == []


def test_an_old_customers_step_can_be_completed(branch: Branch) -> None:
    """It was sent to be captured with its approval, so it is."""
    branch.stripe.completions.append(CAPTURED)
    answer = branch.modifications.complete("m", "pay_requires_action", {}, key="s")
    assert (answer.payment.status, answer.payment.amount_captured) == ("captured", 1999)
    assert branch.captures == []
    assert branch.differences() == []


def test_an_old_customer_who_does_not_come_back_is_not_waited_for(branch: Branch) -> None:
    """Canceled at the provider, an hour after the step was asked for."""
    waiting = Outcome(OutcomeKind.REQUIRES_ACTION, Health.OK, provider_reference="ref_att_requires_action_1")
    branch.stripe.look_ups.append(LookUp(LookUpKind.FOUND, waiting))
    branch.clock.advance(HOUR_S)
    assert branch.housekeeping.run_once().canceled == 1
    assert branch.load("requires_action")[0].status == "canceled"


@pytest.mark.parametrize("story", ["captured", "failed-over"])
def test_a_dispute_does_not_change_an_old_payments_money(branch: Branch, story: str) -> None:
    """It is recorded, and nothing else."""
    before = branch.load(story)[0]
    notice = Notice(
        "n",
        NoticeKind.DISPUTE,
        "charge.dispute.created",
        provider_reference=f"ref_{DECIDING[story]}",
        reason="opened",
    )
    assert branch.notices.apply(before.provider or "", notice) == "applied"
    for _ in range(3):
        branch.clock.advance(61)
        branch.resolver.run_once()
    payment, _, operations = branch.load(story)
    assert payment.dispute is not None
    assert (payment.status, payment.amount_captured, payment.amount_refunded) == ("captured", 1999, 0)
    assert (payment.attempt_id, operations, branch.refunds) == (before.attempt_id, [], [])
    assert branch.differences() == []


@pytest.mark.parametrize("story", ["parked", "postponed", "never-tried"])
def test_an_old_parked_payment_is_tried_on(branch: Branch, story: str) -> None:
    """By the worker, when it is due."""
    branch.clock.advance(120)
    claimed: list[str] = []
    for _ in range(5):  # one a claim, so slowly does it begin
        now = branch.clock.now()
        until = now + dt.timedelta(minutes=1)
        taken = ParkedLedger(branch.database).claim(now, until=until, limit=9, good=0, bad=0, most_per_s=9.0)
        claimed += taken.ids
        branch.clock.advance(1)
    assert f"pay_{story}" in claimed
    branch.house.payments.retry_parked(f"pay_{story}")
    assert branch.load(story)[0].status == "captured"
    assert branch.differences() == []


def test_an_old_declined_payment_stays_so(branch: Branch) -> None:
    """A webhook that doubles the answer changes nothing."""
    payment, attempts, _ = branch.load("declined")
    outcome = Outcome(OutcomeKind.DECLINED, Health.OK, provider_reference="ref_att_declined_1")
    notice = Notice(
        "n", NoticeKind.ATTEMPT, "payment_intent.payment_failed", attempt_id=attempts[0].id, outcome=outcome
    )
    assert branch.notices.apply("stripe", notice) == "nothing new"
    assert branch.load("declined")[0] == payment


def test_an_old_payment_still_unknown_stays_in_doubt(branch: Branch) -> None:
    """The resolver does not guess for it either."""
    branch.stripe.outcomes.extend([UNKNOWN] * 10)
    branch.clock.advance(5)
    branch.resolver.run_once()
    assert branch.load("processing")[0].status == "processing"
    assert branch.load("processing")[0].resolve_at is not None
