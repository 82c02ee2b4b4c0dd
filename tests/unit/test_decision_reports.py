"""Whom the router believes of what clients report, and when it grows suspicious."""

from __future__ import annotations

import pytest

from providers import reported as declines
from providers.contract import DeclineClass
from providers.contract import Health as Signal
from router.clock import ManualClock
from router.reported import (
    FADES_BY_HALF_S,
    FEW_OWN_CALLS,
    OTHERS_HEARD_S,
    SAME_APPROVALS,
    SAME_DECLINES,
    TAUGHT_AT_ONCE,
    TAUGHT_PER_S,
    Reports,
)
from router.transitions import State
from tests.fakes.house import a_health, move, teach
from tests.fakes.ledger import MemoryStore

RATES = (0.01, 0.10)
"""A failure counts 2.3 of the alarm's 12: the sixth in a row."""
ALARM_AFTER = 6


def report(reports: Reports, merchant: str, *, times: int = 1, now: float = 0.0, **more: object) -> list[bool]:
    """That many reports of one merchant; whether each is believed."""
    given = {"failed": True, "own_calls": 1000, "in_trouble": False} | more
    return [reports.hear(merchant, now=now, rates=RATES, **given).call for _ in range(times)]  # type: ignore[arg-type]


def test_of_trouble_one_merchant_alone_is_not_believed() -> None:
    reports = Reports()
    believed = report(reports, "buggy", times=10_000)
    assert believed.index(False) == ALARM_AFTER - 1
    assert not any(believed[ALARM_AFTER:])
    assert not reports.suspect(0.0)
    assert reports.reason(0.0) == ""


def test_a_second_merchant_confirms_it() -> None:
    reports = Reports()
    report(reports, "one", times=ALARM_AFTER)
    assert not any(report(reports, "one"))
    believed = report(reports, "two", times=ALARM_AFTER)
    assert all(believed)
    assert reports.suspect(0.0)
    assert reports.reason(0.0) == "clients report more failures than usual (2 merchants)"
    assert reports.evidence(0.0) == {"reporting_merchants": 2, "reporting_trouble": 2}
    assert all(report(reports, "one"))


def test_the_circuit_confirms_it_too() -> None:
    reports = Reports()
    report(reports, "one", times=ALARM_AFTER)
    assert not any(report(reports, "one"))
    assert all(report(reports, "one", in_trouble=True))
    assert not reports.suspect(0.0)


def test_with_nobody_else_the_one_merchant_is_believed() -> None:
    reports = Reports()
    assert all(report(reports, "only", times=20, own_calls=FEW_OWN_CALLS - 1))
    assert reports.suspect(0.0)
    # One more merchant reports, and all is well there: now there is somebody to be cut off.
    report(reports, "other", failed=False, own_calls=FEW_OWN_CALLS - 1)
    assert not any(report(reports, "only", own_calls=FEW_OWN_CALLS - 1))
    assert not reports.suspect(0.0)


def test_its_own_calls_of_long_ago_do_not_contradict() -> None:
    reports = Reports()
    report(reports, "only", failed=False, own_calls=1000)
    for hour in (1, 2, 3):
        report(reports, "only", failed=False, own_calls=1000, now=hour * OTHERS_HEARD_S)
    assert all(report(reports, "only", times=20, own_calls=1000, now=3 * OTHERS_HEARD_S + 1))
    assert not all(report(Reports(), "only", times=20, own_calls=1000))


def test_good_reports_make_a_merchant_believed_again() -> None:
    reports = Reports()
    report(reports, "one", times=ALARM_AFTER)
    good = report(reports, "one", times=60, failed=False, now=1.0)
    assert not good[0]
    assert good[-1]


def test_what_was_reported_fades() -> None:
    reports = Reports()
    for merchant in ("one", "two"):
        report(reports, merchant, times=ALARM_AFTER)
    assert reports.suspect(0.0)
    assert not reports.suspect(FADES_BY_HALF_S)
    report(reports, "slow", times=1)
    for minute in range(1, 12):
        report(reports, "slow", now=minute * 60.0)
    assert reports.evidence(660.0)["reporting_trouble"] == 0  # by these rates, one a minute is too few for an alarm


def test_one_merchant_teaches_so_many_a_second_at_most() -> None:
    reports = Reports()
    burst = [
        reports.hear("fast", False, 0.0, rates=RATES, own_calls=1000, in_trouble=False).answer for _ in range(1000)
    ]
    assert sum(burst) == TAUGHT_AT_ONCE
    later = [
        reports.hear("fast", False, 1.0, rates=RATES, own_calls=1000, in_trouble=False).answer for _ in range(1000)
    ]
    assert sum(later) == TAUGHT_PER_S
    assert reports.hear("other", False, 1.0, rates=RATES, own_calls=1000, in_trouble=False).answer


def answer(reports: Reports, merchant: str, approved: bool, *, times: int = 1, own_calls: int = 1000) -> list[bool]:
    """That many answers that one merchant tells, slowly; whether each is believed."""
    told = []
    for _ in range(times):
        teller = reports._tellers.get(merchant)
        now = 0.0 if teller is None else teller.heard_at + 1
        lesson = reports.hear(
            merchant, False, now, rates=RATES, own_calls=own_calls, in_trouble=False, approved=approved
        )
        told.append(lesson.answer)
    return told


@pytest.mark.parametrize(("approved", "longest"), [(True, SAME_APPROVALS), (False, SAME_DECLINES)])
def test_of_a_merchant_that_always_tells_the_same_answers_teach_nothing(approved: bool, longest: int) -> None:
    """A checkout that tells its approvals only would make everybody prefer what it uses."""
    reports = Reports()
    assert answer(reports, "one", approved, times=longest + 100) == [True] * longest + [False] * 100
    assert answer(reports, "one", not approved) == [True]
    assert answer(reports, "one", approved) == [True]
    # What a second one always tells is believed of both; of the other kind, of neither.
    answer(reports, "one", approved, times=longest)
    answer(reports, "contrary", not approved, times=SAME_APPROVALS + 1)
    assert answer(reports, "one", approved) == [False]
    answer(reports, "two", approved, times=longest + 1)
    assert answer(reports, "one", approved) == [True]
    assert answer(reports, "contrary", not approved) == [False]


def test_of_the_only_one_that_uses_a_provider_all_answers_are_believed() -> None:
    assert all(answer(Reports(), "only", True, times=SAME_APPROVALS + 10, own_calls=FEW_OWN_CALLS - 1))


def test_answers_are_no_calls_and_calls_no_answers() -> None:
    """The end of a customer's step is not one more good call, which would outweigh a failed one."""
    reports = Reports()
    report(reports, "one", times=ALARM_AFTER)
    for _ in range(60):
        assert report(reports, "one", failed=False, call=False, approved=True) == [False]
    assert report(reports, "one", failed=False) == [False]


def test_many_merchants_are_held_within_bounds() -> None:
    reports = Reports()
    for number in range(3000):
        report(reports, f"merchant-{number}", now=float(number))
    assert len(reports._tellers) == 1000


# ---------------------------------------------------------------- with a circuit


def reported(health: object, merchant: str, times: int) -> None:
    """That many failures, told by one merchant."""
    for _ in range(times):
        health.hear_reported("stripe", merchant, failed=True)  # type: ignore[attr-defined]


def test_reports_never_open_a_circuit_nor_enter_its_window() -> None:
    clock = ManualClock()
    health = a_health(["stripe"], store=MemoryStore(), clock=clock)
    teach(health, Signal.OK, times=30)
    health.watch_once()
    thresholds = health.tuning("stripe")
    for merchant in ("one", "two", "three"):
        reported(health, merchant, 10_000)
    for _ in range(20):
        clock.advance(0.1)
        health.watch_once()
    circuit = health.snapshot("stripe")
    assert (circuit.state, circuit.suspect) == (State.CLOSED, True)
    assert (circuit.window.calls, circuit.window.failures) == (20, 0)
    assert health.tuning("stripe") == thresholds
    assert health.admit("stripe") is not None


def test_the_mark_goes_after_a_calm_while() -> None:
    clock = ManualClock()
    health = a_health(["stripe"], store=MemoryStore(), clock=clock)
    teach(health, Signal.OK, times=250)
    health.watch_once()
    for merchant in ("one", "two"):
        reported(health, merchant, 20)
    health.watch_once()
    assert health.snapshot("stripe").suspect
    seconds = 0
    while health.snapshot("stripe").suspect and seconds < 3600:
        clock.advance(1.0)
        seconds += 1
        health.watch_once()
    assert 30 < seconds < 600


@pytest.mark.parametrize(
    ("state", "believed"),
    [(State.BYPASS, False), (State.METRICS_ONLY, False), (State.CLOSED, False), (State.OPEN, True)],
)
def test_an_order_that_lets_every_payment_through_confirms_no_trouble(state: State, believed: bool) -> None:
    """An operator's word is no witness: in metrics-only, one merchant's bug would lower what everybody knows."""
    clock = ManualClock()
    health = a_health(["stripe"], store=MemoryStore(), clock=clock)
    teach(health, Signal.OK, times=30)
    health.watch_once()
    if state is not State.CLOSED:
        move(health, "stripe", state, clock)
    reported(health, "buggy", 20)
    assert health.hear_reported("stripe", "buggy", failed=True).call is believed


def test_a_circuit_that_is_not_closed_forgets_what_was_reported() -> None:
    clock = ManualClock()
    health = a_health(["stripe"], store=MemoryStore(), clock=clock)
    teach(health, Signal.OK, times=30)
    for merchant in ("one", "two"):
        reported(health, merchant, 20)
    move(health, "stripe", State.OPEN, clock)
    health.watch_once()
    move(health, "stripe", State.CLOSED, clock)
    health.watch_once()
    assert not health.snapshot("stripe").suspect


# ---------------------------------------------------------------- declines as they are told


@pytest.mark.parametrize(
    ("provider", "code", "decline_class", "word"),
    [
        ("stripe", "insufficient_funds", DeclineClass.SOFT, "insufficient_funds"),
        ("adyen", "12", DeclineClass.SOFT, "insufficient_funds"),
        ("adyen", "insufficient_funds", DeclineClass.SOFT, "insufficient_funds"),
        ("stripe", "revocation_of_something_new", DeclineClass.HARD, "revocation_of_something_new"),
        ("stripe", None, DeclineClass.SOFT, "generic_decline"),
        ("third", "stolen_card", DeclineClass.HARD, "stolen_card"),
        ("third", "12", DeclineClass.SOFT, "12"),
        ("adyen", "777", DeclineClass.SOFT, "refusal_777"),
    ],
)
def test_a_code_is_read_as_the_adapters_read_it(
    provider: str, code: str | None, decline_class: DeclineClass, word: str
) -> None:
    found = declines.decline(provider, code)
    assert found is not None
    assert (found.decline_class, found.code) == (decline_class, word)


@pytest.mark.parametrize(("provider", "code"), [("adyen", "4"), ("adyen", "21"), ("stripe", "api_error")])
def test_an_acquirers_fault_is_no_decline(provider: str, code: str) -> None:
    assert declines.decline(provider, code) is None


@pytest.mark.parametrize("code", ["", "two words", "123456789", "a" * 65, "é", "x\n", "<b>"])
def test_what_can_be_no_code(code: str) -> None:
    assert not declines.is_code(code)
    assert declines.is_code("do_not_honor")
