"""One half-open round: who may probe, how many at once, and what it comes to."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import BreakerSettings
from router.probing import Decision, ProbeRound, Ticket, jitter_of

STRICT = BreakerSettings(
    probes=5, probes_at_once=2, probe_success_rate=0.9, probe_lease_s=10.0, round_deadline_s=45.0, slow_call_s=3.0
)
LENIENT = dataclasses.replace(STRICT, probes=10, probes_at_once=3, slow_rate=1.5)
"""Closes at nine of ten, slow or not."""


def send(round_: ProbeRound, now: float = 0.0) -> Ticket:
    """A ticket that must be given."""
    ticket = round_.may_send(now)
    assert ticket is not None
    return ticket


def run(round_: ProbeRound, results: str, now: float = 0.0) -> Decision | None:
    """Send and settle a probe a letter: `s` succeeded, `F` failed, `l` succeeded slowly, `L` failed slowly."""
    for letter in results:
        round_.settle(send(round_, now), letter in "sl", letter in "lL", now)
    return round_.verdict(now)


# ---------------------------------------------------------------- the budget


def test_exactly_the_permitted_number_is_sent_in_total() -> None:
    """However often it is asked, and though every one of them came back."""
    round_ = ProbeRound(LENIENT, 0)
    sent = 0
    while (ticket := round_.may_send(0)) is not None:
        sent += 1
        round_.settle(ticket, sent != 1, False, 0)
    assert sent == 10
    assert round_.verdict(0) is Decision.CLOSE
    assert round_.may_send(0) is None


def test_no_more_than_so_many_are_under_way_at_once_and_a_settled_one_frees_its_place() -> None:
    """Two, then one more for each that has come back."""
    round_ = ProbeRound(STRICT, 0)
    first = send(round_)
    send(round_)
    assert round_.may_send(0) is None
    round_.settle(first, True, False, 1)
    send(round_, 1)
    assert round_.may_send(1) is None


def test_no_probe_is_sent_beyond_the_budget_while_the_last_ones_are_under_way() -> None:
    """Of five, four are back and one is out: there is a place, and no probe left for it."""
    round_ = ProbeRound(STRICT, 0)
    assert run(round_, "ssss") is None
    send(round_)
    assert round_.may_send(0) is None


def test_an_ignored_outcome_gives_its_place_back_and_settles_nothing() -> None:
    """Five must still succeed; three of our own faults have used up none of them."""
    round_ = ProbeRound(STRICT, 0)
    for _ in range(3):
        assert round_.settle(send(round_), None, True, 0)
    assert run(round_, "ssss") is None
    assert run(round_, "s") is Decision.CLOSE
    assert round_.figures() == {
        "probes": 5,
        "sent": 8,
        "succeeded": 5,
        "failed": 0,
        "slow": 0,
        "ignored": 3,
        "never_returned": 0,
    }


# ---------------------------------------------------------------- the decision


@pytest.mark.parametrize("good", range(5))
def test_with_no_tolerance_the_first_failure_re_opens(good: int) -> None:
    """90% of five is all five."""
    round_ = ProbeRound(STRICT, 0)
    assert run(round_, "s" * good + "F") is Decision.REOPEN
    assert round_.reason == f"probe {good + 1} failed: unhealthy"
    assert round_.may_send(0) is None


def test_with_no_tolerance_the_first_timeout_re_opens() -> None:
    """At the moment of its lease's end, with others still under way."""
    fast = dataclasses.replace(STRICT, slow_rate=1.5)
    round_ = ProbeRound(fast, 0)
    send(round_, 0)
    send(round_, 5)
    assert round_.verdict(9.99) is None
    assert round_.verdict(10.0) is Decision.REOPEN
    assert round_.reason == "probe 1 failed: did not return within 10 s"


def test_a_success_rate_equal_to_the_threshold_closes() -> None:
    """Nine of ten are 90%, eight are not."""
    assert run(ProbeRound(LENIENT, 0), "Fsssssssss") is Decision.CLOSE
    assert run(ProbeRound(LENIENT, 0), "FF") is Decision.REOPEN


@pytest.mark.parametrize(("probes", "rate"), [(5, 0.9), (10, 0.9), (10, 0.7), (7, 0.9), (20, 0.95), (6, 0.5), (1, 1)])
def test_it_closes_at_the_smallest_number_that_reaches_the_rate(probes: int, rate: float) -> None:
    """Whatever floats make of 0.7 times ten."""
    settings = dataclasses.replace(STRICT, probes=probes, probe_success_rate=rate, slow_rate=1.5)
    needed = next(n for n in range(probes + 1) if n / probes >= rate - 1e-12)
    round_ = ProbeRound(settings, 0)
    assert run(round_, "F" * (probes - needed) + "s" * (needed - 1)) is None
    assert run(round_, "s") is Decision.CLOSE


def test_it_is_decided_as_early_as_it_is_certain() -> None:
    """Nine successes of ten: the tenth cannot change it, and is not sent. Two failures: the other eight cannot."""
    round_ = ProbeRound(LENIENT, 0)
    assert run(round_, "ssssssss") is None
    assert run(round_, "s") is Decision.CLOSE
    assert round_.figures()["sent"] == 9
    assert round_.reason == "9 probes succeeded"
    assert run(ProbeRound(LENIENT, 0), "sFsF") is Decision.REOPEN


@given(
    st.lists(st.sampled_from("sFlL"), max_size=10),
    st.integers(1, 10),
    st.sampled_from([0.5, 0.8, 0.9, 1.0]),
    st.sampled_from([0.3, 0.5, 1.0, 1.5]),
)
def test_an_early_decision_is_the_one_that_all_probes_would_have_come_to(
    results: list[str], probes: int, rate: float, slow_rate: float
) -> None:
    """Decided early: no way for the rest to end changes it. Not decided: both ends are still possible."""
    settings = dataclasses.replace(STRICT, probes=probes, probe_success_rate=rate, slow_rate=slow_rate)

    def at_the_end(all_of_them: list[str]) -> Decision:
        good = sum(each in "sl" for each in all_of_them) / probes >= rate - 1e-12
        slow = sum(each in "lL" for each in all_of_them) / probes >= slow_rate
        return Decision.CLOSE if good and not slow else Decision.REOPEN

    round_, done = ProbeRound(settings, 0), list[str]()
    decided: Decision | None = None
    for each in results[:probes]:
        if decided is not None:
            break
        done.append(each)
        decided = run(round_, each)
    rest = probes - len(done)
    possible = {at_the_end(done + [filler] * rest) for filler in ("s", "L")}
    assert possible == ({decided} if decided is not None else {Decision.CLOSE, Decision.REOPEN})


def test_a_verdict_does_not_change_afterwards() -> None:
    """Neither by what was under way nor by the deadline."""
    round_ = ProbeRound(LENIENT, 0)
    under_way = send(round_)
    assert run(round_, "sssssssss") is Decision.CLOSE
    assert not round_.settle(under_way, False, True, 1)
    assert round_.verdict(1000) is Decision.CLOSE


# ---------------------------------------------------------------- slow probes


def test_slow_probes_re_open_though_they_succeed() -> None:
    """30% of five is two."""
    round_ = ProbeRound(STRICT, 0)
    assert run(round_, "ll") is Decision.REOPEN
    assert round_.reason == "2 of 5 probes were slow"


def test_one_slow_probe_of_five_is_forgiven() -> None:
    """It is under 30%, and a success."""
    assert run(ProbeRound(STRICT, 0), "lssss") is Decision.CLOSE


def test_a_slow_failure_counts_on_both_axes() -> None:
    """One failure of ten is forgiven, and so are two slow ones; the failure that was slow makes it three."""
    settings = dataclasses.replace(LENIENT, slow_rate=0.3)
    assert run(ProbeRound(settings, 0), "Lll") is Decision.REOPEN
    assert run(ProbeRound(settings, 0), "Fllsssssss") is Decision.CLOSE


def test_enough_successes_do_not_close_while_a_last_probe_may_still_be_too_slow() -> None:
    """Nine fast successes and two slow among them: the tenth decides on the slow axis."""
    settings = dataclasses.replace(LENIENT, slow_rate=0.3)
    round_ = ProbeRound(settings, 0)
    assert run(round_, "llsssssss") is None
    assert run(round_, "s") is Decision.CLOSE


def test_a_probe_still_in_flight_counts_as_slow_at_that_moment() -> None:
    """Two hang: at three seconds the round is lost, not at the end of their leases."""
    round_ = ProbeRound(STRICT, 0)
    send(round_)
    send(round_)
    assert round_.verdict(2.99) is None
    assert round_.verdict(3.0) is Decision.REOPEN
    assert round_.reason == "2 of 5 probes were slow"


# ---------------------------------------------------------------- leases, earlier rounds, the deadline


def test_a_probe_that_never_returns_counts_as_failed_and_frees_its_place() -> None:
    """Of three places one hangs: after ten seconds it is free, with a failure to its name."""
    round_ = ProbeRound(LENIENT, 0)
    for _ in range(3):
        send(round_)
    assert round_.may_send(9.99) is None
    hung = ProbeRound(LENIENT, 0)
    send(hung)
    assert run(hung, "ssss", now=1) is None
    assert hung.verdict(10) is None
    figures = hung.figures()
    assert (figures["failed"], figures["never_returned"], figures["succeeded"]) == (1, 1, 4)
    assert len([send(hung, 10) for _ in range(3)]) == 3
    assert hung.may_send(10) is None


def test_a_probe_that_never_returned_was_slow_too_where_its_lease_is() -> None:
    """Two of ten that never return are what is forgiven for failures, and as slow ones one more is too many."""
    settings = dataclasses.replace(STRICT, probes=10, probe_success_rate=0.8, slow_rate=0.3)
    for slow_call_s, slow, decided in ((3.0, 3, Decision.REOPEN), (11.0, 1, None)):
        round_ = ProbeRound(dataclasses.replace(settings, slow_call_s=slow_call_s), 0.0)
        for now in (0.0, 10.0):
            send(round_, now)
            assert round_.verdict(now + 10.0) is None
        assert run(round_, "l", 20.0) is decided
        assert round_.figures()["slow"] == slow


def test_the_age_of_a_verdict_is_from_when_it_was_certain() -> None:
    """One that is not there has none."""
    round_ = ProbeRound(STRICT, 0.0)
    assert not round_.is_older_than(0.0, 40.0)
    run(round_, "sssss", 5.0)
    assert not round_.is_older_than(10.0, 15.0)
    assert round_.is_older_than(10.0, 15.1)


def test_a_probe_that_comes_back_after_its_lease_changes_nothing() -> None:
    """It has failed already, and fails no second time; nor does a late success take the failure back."""
    for late in (True, False):
        round_ = ProbeRound(LENIENT, 0)
        ticket = send(round_)
        assert not round_.settle(ticket, late, False, 10.0)
        assert round_.figures()["failed"] == 1
        assert round_.verdict(10) is None


def test_a_probe_settles_once() -> None:
    """A result that is told twice is one result."""
    round_ = ProbeRound(STRICT, 0)
    ticket = send(round_)
    assert round_.settle(ticket, True, False, 1)
    assert not round_.settle(ticket, True, False, 1)
    assert round_.figures()["succeeded"] == 1


def test_a_probe_of_an_earlier_round_cannot_spoil_the_next() -> None:
    """Its ticket has the earlier round's version, though the same number."""
    before, now = ProbeRound(STRICT, 0, version=2), ProbeRound(STRICT, 60, version=4)
    old, new = send(before), send(now, 60)
    assert old.nth == new.nth
    assert not now.settle(old, False, False, 61)
    assert now.verdict(61) is None
    assert now.settle(new, True, False, 61)


def test_a_round_unfinished_at_its_deadline_re_opens() -> None:
    """Not a hundredth of a second early, and nothing is sent afterwards."""
    round_ = ProbeRound(STRICT, 100)
    assert run(round_, "ssss", now=101) is None
    assert round_.verdict(144.99) is None
    assert round_.verdict(145.0) is Decision.REOPEN
    assert round_.reason == "the round was not finished within 45 s"
    assert round_.may_send(145) is None


def test_a_success_that_comes_at_the_deadline_is_too_late() -> None:
    """The round is over, whoever asks first."""
    round_ = ProbeRound(STRICT, 0)
    run(round_, "ssss", now=40)
    ticket = send(round_, 40)
    assert not round_.settle(ticket, True, False, 45)
    assert round_.verdict(45) is Decision.REOPEN


def test_what_was_decided_in_time_is_not_undone_by_asking_late() -> None:
    """The loop was held up; the fifth success had come in time."""
    round_ = ProbeRound(STRICT, 0)
    run(round_, "sssss", now=44)
    assert round_.verdict(500) is Decision.CLOSE


def test_leases_that_ran_out_while_nobody_looked_are_counted_where_they_ran_out() -> None:
    """Looked at after a minute: the lease ended the round at ten seconds, not the deadline."""
    round_ = ProbeRound(dataclasses.replace(STRICT, slow_rate=1.5), 0)
    send(round_)
    assert round_.verdict(60) is Decision.REOPEN
    assert round_.reason == "probe 1 failed: did not return within 10 s"


def test_a_lease_that_would_end_after_the_deadline_fails_nothing() -> None:
    """Looked at after a minute: the round was over at 45 s, with the probe still under way."""
    round_ = ProbeRound(LENIENT, 0)
    round_.settle(send(round_, 40), False, False, 40)
    send(round_, 40)
    assert round_.verdict(60) is Decision.REOPEN
    assert round_.reason == "the round was not finished within 45 s"
    assert round_.figures()["never_returned"] == 0


# ---------------------------------------------------------------- jitter


def test_the_jitter_is_the_same_everywhere_and_differs_from_round_to_round() -> None:
    """Nothing random: processes agree on when a wait is over, and circuits do not probe in step."""
    values = [jitter_of(name, version) for name in ("stripe", "adyen") for version in range(1, 200)]
    assert values == [jitter_of(name, version) for name in ("stripe", "adyen") for version in range(1, 200)]
    assert all(0 <= each < 1 for each in values)
    assert len(set(values)) == len(values)
    assert math.isclose(sum(values) / len(values), 0.5, abs_tol=0.06)


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_wait_lies_inside_its_jitter(failed_rounds: int, version: int) -> None:
    """1 ± 10% of what it would be."""
    settings = BreakerSettings(wait_jitter=0.1)
    plain = min(10.0 * 1.5 ** min(failed_rounds, 32), 15.0)
    assert 0.9 * plain <= settings.wait_s(failed_rounds, jitter_of("stripe", version)) <= 1.1 * plain
