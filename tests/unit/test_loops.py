"""Rounds on threads of their own: they outlive their failures, and stop when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from router.ledger.unavailable import LedgerUnavailableError
from router.loops import Loop, Loops

SHORT_S = 0.002


@pytest.fixture
def loops() -> Iterator[Loops]:
    loops = Loops()
    yield loops
    loops.stop(1)


class Rounds:
    """A `run_once` that fails as its script says, then goes well; `over` is set when the script is played."""

    def __init__(self, *script: Exception | None) -> None:
        self._script = list(script)
        self.count = 0
        self.over = threading.Event()

    def __call__(self) -> int:
        self.count += 1
        if not self._script:
            self.over.set()
            return 0
        fault = self._script.pop(0)
        if fault is not None:
            raise fault
        return 1


def test_a_round_that_fails_is_logged_and_the_next_is_tried(loops: Loops) -> None:
    """With its traceback and the loop's name; every failure is told."""
    rounds = Rounds(ValueError("first"), None, KeyError("second"))
    loops.add(Loop("parked", rounds, loops.pause(SHORT_S)))
    with capture_logs() as logs:
        loops.start()
        assert rounds.over.wait(5)
    assert [(entry["event"], entry["loop"], bool(entry["exc_info"])) for entry in logs] == [
        ("round_failed", "parked", True)
    ] * 2


def test_a_ledger_that_is_away_is_said_once_until_it_is_back(loops: Loops) -> None:
    """Five rounds without it are one line; the next time it goes is a new one. No alarm: the circuits raise it."""
    away = LedgerUnavailableError("OperationalError")
    rounds = Rounds(*[away] * 5, None, *[away] * 3)
    loops.add(Loop("circuits", rounds, loops.pause(SHORT_S)))
    with capture_logs() as logs:
        loops.start()
        assert rounds.over.wait(5)
    assert [(entry["event"], entry["cause"], entry["log_level"]) for entry in logs] == [
        ("ledger_unavailable", "OperationalError", "info")
    ] * 2


def test_one_loop_that_fails_does_not_hold_up_another(loops: Loops) -> None:
    """Each has its own thread."""
    hanging, failing, well = threading.Event(), Rounds(*[ValueError("again")] * 20), Rounds(*[None] * 20)
    loops.add(Loop("hanging", lambda: hanging.wait(5), loops.pause(SHORT_S)))
    loops.add(Loop("failing", failing, loops.pause(SHORT_S)))
    loops.add(Loop("well", well, loops.pause(SHORT_S)))
    with capture_logs():
        loops.start()
        assert well.over.wait(5)
        assert failing.over.wait(5)
    hanging.set()


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_round_does_not_end_the_loop_silently(loops: Loops, raised: type[BaseException]) -> None:
    """Raised in a probe it ended the recovery of every circuit, and nobody heard."""
    rounds, went_on = [0], threading.Event()

    def round_() -> None:
        rounds[0] += 1
        if rounds[0] == 1:
            raise raised
        went_on.set()

    with capture_logs() as logs:
        loops.add(Loop("recovery", round_, loops.pause(SHORT_S)))
        loops.start()
        assert went_on.wait(5)
        assert loops.stop(5)
    assert [(each["event"], each["loop"], each["log_level"]) for each in logs] == [
        ("round_exited", "recovery", "critical")
    ]


def test_stop_cuts_a_long_pause_short(loops: Loops) -> None:
    """A worker that waits an hour between rounds ends at once, and makes no further round."""
    rounds = Rounds()
    loops.add(Loop("slow", rounds, loops.pause(3600)))
    loops.start()
    assert rounds.over.wait(5)
    took = _timed(lambda: loops.stop(5))
    assert took < 1
    assert rounds.count == 1


def test_stop_ends_a_wait_for_something_else_than_a_stop(loops: Loops) -> None:
    """News of a probe, or of a circuit, may not come for long."""
    rounds, news = Rounds(), threading.Event()
    loops.add(Loop("recovery", rounds, lambda: news.wait(3600), news.set))
    loops.start()
    assert rounds.over.wait(5)
    assert _timed(lambda: loops.stop(5)) < 1
    assert rounds.count == 1


def test_stop_is_not_lost_on_a_round_that_takes_it_for_its_own_news(loops: Loops) -> None:
    """It clears the news that it is about to look at, which is how it was to be woken."""
    entered, told, news = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        entered.set()
        told.wait(5)
        news.clear()

    def wake() -> None:
        news.set()
        told.set()

    loops.add(Loop("recovery", look, lambda: news.wait(3600), wake))
    loops.start()
    assert entered.wait(5)
    assert _timed(lambda: loops.stop(5)) < 1
    assert loops.stop(0)


def test_stop_leaves_behind_a_round_that_does_not_end(loops: Loops) -> None:
    """Three loops inside a provider's call cost the bound once, not three times."""
    entered, release = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        entered.release()
        release.wait(10)

    for name in ("first", "second", "third"):
        loops.add(Loop(name, hang, loops.pause(SHORT_S)))
    loops.start()
    for _ in range(3):
        assert entered.acquire(timeout=5)
    assert _timed(lambda: loops.stop(0.15)) < 1
    assert not loops.stop(0), "and says so"
    release.set()
    assert loops.stop(5)


def test_stop_of_no_loops_is_nothing(loops: Loops) -> None:
    """There is nothing to wait for."""
    assert loops.stop(1)


def _timed(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began
