"""The bulkhead: N permits, the next refused at once, all of them returned."""

from __future__ import annotations

import contextlib
import threading

import pytest

from router.bulkhead import Bulkhead
from tests.fakes.threads import eager, together


def test_n_permits_and_the_next_is_refused_at_once() -> None:
    """Three are in, the fourth is told so without waiting; when one leaves there is room."""
    bulkhead = Bulkhead(3)
    assert [bulkhead.enter() for _ in range(5)] == [True, True, True, False, False]
    assert (bulkhead.permits, bulkhead.in_use) == (3, 3)
    bulkhead.leave()
    assert [bulkhead.enter(), bulkhead.enter()] == [True, False]


@pytest.mark.parametrize("fault", [None, ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_permit_is_returned_on_success_failure_and_base_exception(fault: type[BaseException] | None) -> None:
    """However the call ends; and what ended it is passed on."""
    bulkhead = Bulkhead(1)
    with pytest.raises(fault) if fault else contextlib.nullcontext(), bulkhead.place() as entered:
        assert (entered, bulkhead.in_use) == (True, 1)
        if fault:
            raise fault
    assert bulkhead.in_use == 0


def test_who_was_refused_returns_nothing() -> None:
    """Else the next one would be let in beside the first."""
    bulkhead = Bulkhead(1)
    with bulkhead.place():
        with bulkhead.place() as entered:
            assert not entered
        assert bulkhead.in_use == 1


def test_a_permit_returned_twice_is_a_fault_that_is_told() -> None:
    """It would let one call too many in."""
    bulkhead = Bulkhead(1)
    bulkhead.enter()
    bulkhead.leave()
    with pytest.raises(ValueError, match="no permit is out"):
        bulkhead.leave()


def test_a_bulkhead_of_no_permits_refuses_all() -> None:
    """Nothing is sent."""
    assert not Bulkhead(0).enter()


def test_of_thirty_two_threads_exactly_n_get_in() -> None:
    """At one instant, none having left; then all leave and as many get in again."""
    for permits in (1, 5, 31, 32):
        bulkhead = Bulkhead(permits)
        for _ in range(5):
            entered: list[bool] = []

            def enter(bulkhead: Bulkhead = bulkhead, entered: list[bool] = entered) -> None:
                entered.append(bulkhead.enter())

            with eager():
                together([enter] * 32)
                assert sum(entered) == permits == bulkhead.in_use
                together([bulkhead.leave] * permits)
            assert bulkhead.in_use == 0


def test_never_more_than_n_are_inside() -> None:
    """Thirty-two threads in and out, some of them by an exception."""
    bulkhead, inside, most, guard = Bulkhead(4), [0], [0], threading.Lock()

    def work() -> None:
        for turn in range(100):
            with contextlib.suppress(ZeroDivisionError), bulkhead.place() as entered:
                if not entered:
                    continue
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                with guard:
                    inside[0] -= 1
                if turn % 3 == 0:
                    raise ZeroDivisionError

    with eager():
        together([work] * 32)
    assert 1 <= most[0] <= 4
    assert bulkhead.in_use == 0
