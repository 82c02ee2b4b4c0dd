"""A provider whose circuit is open gets few calls at once about existing attempts, of whatever kind (design §3.6)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from providers.contract import Health, OutcomeKind
from router.clock import ManualClock
from router.health import OPERATIONS_WHILE_OPEN
from router.ledger.engine import Database
from router.sending import HELD_BACK, Sender
from router.transitions import State
from tests.fakes.house import TIMES, move
from tests.fakes.ledger import fresh_ledger
from tests.fakes.providers import CAPTURED, UNKNOWN, FakeProvider
from tests.unit.test_housekeeping import HOUR_S, Home
from tests.unit.test_sending import ATTEMPT


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


@pytest.fixture
def home(database: Database) -> Home:
    return Home(database)


def all_places(home: Home) -> ExitStack:
    """Stripe's circuit is open, and as many calls as may be are under way."""
    move(home.house.health, "stripe", State.OPEN, home.clock)
    under_way = ExitStack()
    for _ in range(OPERATIONS_WHILE_OPEN):
        assert under_way.enter_context(home.house.health.operating("stripe"))
    return under_way


def asked(provider: FakeProvider) -> int:
    """Calls of any kind."""
    return len(provider.calls) + len(provider.looked_up)


def test_resends_and_look_ups_wait_for_a_place_and_the_payment_stays_due(home: Home) -> None:
    """Eight threads of the resolver may not lean on a provider that is down."""
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    payment = home.house.pay().payment
    assert payment.status == "processing"
    before = asked(home.stripe)
    with all_places(home):
        for _ in range(5):
            home.clock.advance(61)
            assert home.resolver.run_once() == 0
        assert asked(home.stripe) == before
        ((attempt,), now) = home.now(payment)[1], home.now(payment)[0]
        assert (attempt.outcome, now.status) == ("unknown", "processing")
    home.stripe.outcomes.append(CAPTURED)
    home.clock.advance(61)
    assert home.resolver.run_once() == 1
    assert home.status(payment) == "captured"


def test_an_abandoned_payment_is_looked_up_when_there_is_a_place(home: Home) -> None:
    """It stays as it is, and is looked at again."""
    payment = home.awaiting()
    before = asked(home.stripe)
    with all_places(home):
        home.clock.advance(HOUR_S)
        assert home.housekeeping.run_once().canceled == 0
        assert asked(home.stripe) == before
        assert home.status(payment) == "requires_action"
    home.clock.advance(61)
    assert home.housekeeping.run_once().canceled == 1


def test_a_customers_step_that_is_held_back_is_in_doubt_and_tried_again() -> None:
    """Here for a moment, and by checkout or the resolver after that; nothing was sent, and nothing is refused."""
    provider, clock, places = FakeProvider("stripe"), ManualClock(), [False, False, True]

    @contextlib.contextmanager
    def operating(_provider: str) -> Iterator[bool]:
        yield places.pop(0)

    def closed(_provider: str) -> AbstractContextManager[bool]:
        return contextlib.nullcontext(False)

    sender = Sender({"stripe": provider}, TIMES, clock=clock, random=lambda: 0.5, operating=operating)
    assert sender.complete(ATTEMPT, {"a": "b"}, clock.monotonic() + 20).kind is OutcomeKind.APPROVED
    sender = Sender({"stripe": provider}, TIMES, clock=clock, random=lambda: 0.5, operating=closed)
    told = sender.complete(ATTEMPT, {"a": "b"}, clock.monotonic() + 20)
    assert (told.kind, told.health, told.reason, told.our_fault) == (
        OutcomeKind.UNKNOWN,
        Health.IGNORED,
        HELD_BACK,
        False,
    )
