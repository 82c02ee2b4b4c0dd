"""Probes that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from providers.contract import Timeouts
from router.clock import SystemClock
from router.ledger.engine import Database
from router.ledger.probes import Probe, ProbeLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.prober import UNDER_WAY_AT_MOST, Prober, on_a_thread
from router.probing import Ticket
from tests.fakes.providers import FakeProvider
from tests.fakes.workers import Later, at_once


@pytest.fixture
def stripe() -> FakeProvider:
    return FakeProvider("stripe")


def a_prober(database: Database, stripe: FakeProvider, start: Callable[[Callable[[], None]], object]) -> Prober:
    return Prober(
        {"stripe": stripe},
        ProbeLedger(database),
        actor="worker:1",
        timeouts=Timeouts(1, 5),
        clock=SystemClock(),
        start=start,
    )


def test_a_probe_that_hangs_does_not_hold_up_who_sent_it(database: Database, stripe: FakeProvider) -> None:
    """Real threads: `send` returns at once, and the result is there when the probe has ended."""
    go = threading.Event()
    stripe.during_probe = lambda: go.wait(10)
    prober = a_prober(database, stripe, on_a_thread)
    assert prober.send("stripe", Ticket(2, 1, 0.0))
    assert prober.returned() == []
    go.set()
    prober.wait_for_news(10)
    (returned,) = prober.returned()
    assert (returned.provider, returned.healthy, returned.ticket.nth) == ("stripe", True, 1)


def test_a_hanging_probe_does_not_keep_the_process_alive(database: Database, stripe: FakeProvider) -> None:
    """Its thread is a daemon."""
    seen: list[bool] = []
    ended = threading.Event()

    def look() -> None:
        seen.append(threading.current_thread().daemon)
        ended.set()

    stripe.during_probe = look
    a_prober(database, stripe, on_a_thread).send("stripe", Ticket(2, 1, 0.0))
    assert ended.wait(10)
    assert seen == [True]


def test_no_more_threads_hang_than_a_handful(database: Database, stripe: FakeProvider) -> None:
    """A provider whose calls never time out does not fill the process with threads; one that ends makes room."""
    later = Later()
    prober = a_prober(database, stripe, later)
    assert [prober.send("stripe", Ticket(2, n, 0.0)) for n in range(UNDER_WAY_AT_MOST + 1)].count(True) == 16
    later.end()
    assert prober.send("stripe", Ticket(2, 99, 0.0))


def test_a_probe_that_is_on_record_already_is_not_sent(database: Database, stripe: FakeProvider) -> None:
    """Another process sends that one."""
    assert ProbeLedger(database).begin(Probe("stripe", 2, 1, "worker:2", SystemClock().now()))
    prober = a_prober(database, stripe, at_once)
    assert not prober.send("stripe", Ticket(2, 1, 0.0))
    assert stripe.probed == 0


def test_a_probe_that_cannot_be_recorded_is_not_sent(
    database: Database, stripe: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is away; when it is back, what was not written of an earlier one is."""
    prober = a_prober(database, stripe, at_once)
    assert prober.send("stripe", Ticket(2, 1, 0.0))
    prober.returned()

    def away(*_: object) -> bool:
        raise LedgerUnavailableError("OperationalError")

    with monkeypatch.context() as patch:
        patch.setattr(ProbeLedger, "begin", away)
        patch.setattr(ProbeLedger, "finish", away)
        with pytest.raises(LedgerUnavailableError):
            prober.send("stripe", Ticket(2, 2, 0.0))
        with pytest.raises(LedgerUnavailableError):
            prober.write()
    assert stripe.probed == 1
    prober.write()
    (row,) = ProbeLedger(database).history("stripe", limit=9)
    assert row.healthy
    assert row.latency is not None
