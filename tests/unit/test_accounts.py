"""Our accounts at the providers: what vendors say of them, what follows for payments, and who hears of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flags.contract import RoutingFlags
from providers import adyen_account, stripe_account
from providers.contract import AccountStanding, AccountState, Timeouts
from router.account_watch import SOONER, AccountWatch
from router.accounts import OLD_AFTER, Accounts, Known, restriction
from router.clock import ManualClock, SequentialIds
from router.ledger.accounts import AccountLedger
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.policy import Offer, decide
from router.value import Terms
from tests.fakes.ledger import fresh_ledger
from tests.fakes.providers import FakeProvider

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
DEADLINE = 1_795_300_000
ABLE, AT_RISK, UNABLE = AccountState.ABLE, AccountState.AT_RISK, AccountState.UNABLE


def account(**changes: Any) -> dict[str, Any]:
    """Stripe's, when all is well."""
    requirements: dict[str, Any] = {
        "currently_due": [],
        "past_due": [],
        "current_deadline": None,
        "disabled_reason": None,
    }
    return {
        "object": "account",
        "charges_enabled": changes.pop("charges_enabled", True),
        "capabilities": {"card_payments": changes.pop("card_payments", "active")},
        "future_requirements": changes.pop("future", {}),
        "requirements": requirements | changes,
    }


# ---------------------------------------------------------------- what vendors say


@pytest.mark.parametrize(
    ("told", "state", "reasons", "until"),
    [
        (account(), ABLE, (), None),
        (account(currently_due=["external_account"]), ABLE, (), None),  # asked for, with no time set
        (account(charges_enabled=False), UNABLE, ("charges_disabled",), None),
        (account(card_payments="inactive"), UNABLE, ("card_payments_inactive",), None),
        (account(charges_enabled=False, disabled_reason="rejected.fraud"), UNABLE, ("rejected.fraud",), None),
        (account(past_due=["tos"]), AT_RISK, ("tos",), None),
        (account(disabled_reason="under_review"), AT_RISK, ("under_review",), None),
        (account(currently_due=["tos"], current_deadline=DEADLINE), AT_RISK, ("tos",), DEADLINE),
        (account(future={"currently_due": ["tos"], "current_deadline": DEADLINE}), AT_RISK, ("tos",), DEADLINE),
        (account(past_due=["4111 1111 1111 1111"]), AT_RISK, ("unprintable",), None),
    ],
)
def test_stripes_account_says_whether_charges_are_enabled_and_until_when(
    told: Any, state: AccountState, reasons: tuple[str, ...], until: int | None
) -> None:
    """The nearest deadline counts, and what is asked for is told in the vendor's words."""
    found = stripe_account.standing(told)
    assert found is not None
    assert (found.state, found.reasons) == (state, reasons)
    assert found.until == (None if until is None else dt.datetime.fromtimestamp(until, dt.UTC))


@pytest.mark.parametrize("told", [None, [], "", {}, {"object": "balance"}])
def test_what_is_no_account_says_nothing(told: Any) -> None:
    """Of either vendor's."""
    assert stripe_account.standing(told) is None
    assert adyen_account.standing(told) is None


def test_senseless_parts_of_an_account_are_passed_over() -> None:
    """An answer that changed its shape must not take a provider out."""
    told = account() | {"requirements": [1], "capabilities": None, "future_requirements": {"current_deadline": True}}
    assert stripe_account.standing(told) == AccountStanding(ABLE)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Active", ABLE),
        ("PreActive", UNABLE),
        ("InactiveWithModifications", UNABLE),
        ("Inactive", UNABLE),
        ("Closed", UNABLE),
        ("Sleeping", None),
        (7, None),
    ],
)
def test_adyens_account_has_a_status(status: Any, state: AccountState | None) -> None:
    """One that we do not know says nothing."""
    found = adyen_account.standing({"id": "ShopECOM", "status": status})
    assert (None if found is None else found.state) == state


# ---------------------------------------------------------------- what follows


def known(state: AccountState, until: dt.datetime | None = None, learned_at: dt.datetime = NOW) -> Known:
    return Known(AccountStanding(state, ("tos",), until), NOW - HOUR, learned_at)


def test_an_account_that_may_take_no_payment_gets_none() -> None:
    """Until what was learned is old: then it is the last resort, for it may be well again."""
    assert restriction(known(UNABLE), NOW, HOUR) == ("account takes no payments (tos)", True)
    old = restriction(known(UNABLE, learned_at=NOW - OLD_AFTER), NOW, HOUR)
    assert old is not None
    assert not old.withheld


def test_an_account_comes_last_before_its_deadline_and_not_earlier() -> None:
    """By the margin; nothing is held against one that is well, or at risk with no time set."""
    soon = restriction(known(AT_RISK, NOW + HOUR), NOW, HOUR)
    assert soon == ("account may take no payments from 2026-11-21 13:00 UTC (tos): last resort", False)
    assert restriction(known(AT_RISK, NOW + HOUR), NOW - dt.timedelta(seconds=1), HOUR) is None
    assert restriction(known(AT_RISK), NOW, HOUR) is None
    assert restriction(known(ABLE), NOW, HOUR) is None
    assert restriction(None, NOW, HOUR) is None


def test_the_decision_leaves_a_withheld_provider_out_for_now_and_says_why() -> None:
    """The payment is possible, and may wait for it."""
    terms = Terms(0.9, 1.0, 0.0, 0.0)
    decision = decide([Offer("stripe", terms, withheld="account takes no payments")], RoutingFlags(), 20.0)
    assert decision.order == []
    assert decision.possible
    assert "account takes no payments" in decision.reasons(decision.candidates[0])


# ---------------------------------------------------------------- the loop


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


class House:
    """Two workers and what a web process knows."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.provider = FakeProvider("stripe")
        self.ledger = AccountLedger(database)
        self.alerts = AlertLedger(database)
        ids = SequentialIds()
        self.workers = [
            AccountWatch(
                {"stripe": self.provider},
                self.ledger,
                every_s=300,
                timeouts=Timeouts(1, 1),
                clock=self.clock,
                ids=ids,
            )
            for _ in range(2)
        ]
        self.seen = Accounts(self.ledger.known, margin=HOUR, clock=self.clock)

    def round(self, *told: AccountStanding | None, after_s: float = 300) -> int:
        """Both workers come round; answers how many learned."""
        self.clock.advance(after_s)
        self.provider.accounts.extend(told)
        learned = sum(worker.run_once() for worker in self.workers)
        self.seen.refresh()
        return learned

    def told(self) -> list[str]:
        """The alerts' kinds."""
        return [each.kind for each in self.alerts.all()]


def test_of_two_workers_one_asks_and_each_change_is_told_once(ledger: Database) -> None:
    """The first look at a healthy account is no news."""
    house = House(ledger)
    assert house.round(AccountStanding(ABLE)) == 1
    assert house.told() == []
    assert house.round(AccountStanding(AT_RISK, ("tos",), house.clock.now() + 2 * HOUR)) == 1
    assert house.seen.restriction("stripe") is None
    assert house.round(AccountStanding(UNABLE, ("rejected",)), after_s=300 / SOONER) == 1
    assert house.round(AccountStanding(UNABLE, ("rejected",)), after_s=300 / SOONER) == 1
    held = house.seen.restriction("stripe")
    assert held is not None
    assert held.withheld
    assert house.round(AccountStanding(ABLE), after_s=300 / SOONER) == 1
    assert house.seen.restriction("stripe") is None
    assert house.told() == ["account_at_risk", "account_unable", "account_able"]
    assert "tos" in house.alerts.all()[0].text
    assert not house.provider.accounts


def test_nobody_asks_before_it_is_time(ledger: Database) -> None:
    """Every five minutes; five times as often while it is not well."""
    house = House(ledger)
    house.round(AccountStanding(UNABLE))
    assert house.round(AccountStanding(ABLE), after_s=59) == 0
    assert house.round(after_s=1) == 1
    assert house.round(AccountStanding(ABLE), after_s=299) == 0
    assert house.round(after_s=1) == 1


def test_a_look_that_learned_nothing_changes_nothing(ledger: Database) -> None:
    """What was known grows old."""
    house = House(ledger)
    house.round(AccountStanding(UNABLE))
    before = house.seen.known("stripe")
    assert house.round(None) == 0
    assert house.round(None, after_s=59) == 0
    assert house.provider.accounts.pop() is None  # nobody asked
    assert house.seen.known("stripe") == before
    house.clock.advance(OLD_AFTER.total_seconds())
    held = house.seen.restriction("stripe")
    assert held is not None
    assert not held.withheld


def test_since_when_it_is_so_outlives_later_looks(ledger: Database) -> None:
    """The state's beginning, not the last look's moment."""
    house = House(ledger)
    house.round(AccountStanding(UNABLE))
    first = house.seen.known("stripe")
    house.round(AccountStanding(UNABLE))
    again = house.seen.known("stripe")
    assert first is not None
    assert again is not None
    assert (again.since, again.learned_at > first.learned_at) == (first.since, True)
