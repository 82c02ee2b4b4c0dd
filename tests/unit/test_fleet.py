"""Counts that processes tell each other: whatever happens between, nothing is lost and nothing counts twice."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.breaker import Verdict
from router.clock import ManualClock
from router.fleet import HOURS_REMEMBERED, HOURS_TOLD, OVERLAP, FleetCounts, Sample, counted
from router.histogram import bucket_of
from router.ledger.counts import hour_of
from router.ledger.unavailable import LedgerUnavailableError
from router.windows import Counts
from tests.fakes.clocks import SteppedClock
from tests.fakes.counts import MemoryCounts

NAMES = ("stripe", "adyen")
SLOW_S = 3.0
OK, FAILED, REFUSED = Verdict.OK, Verdict.PROVIDER_ERROR, Verdict.UNREACHABLE
START = dt.datetime(2026, 11, 21, 10, 30, tzinfo=dt.UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store() -> MemoryCounts:
    return MemoryCounts()


def a_process(store: MemoryCounts | None, clock: ManualClock, name: str = "web:1") -> FleetCounts:
    return FleetCounts(NAMES, store=store, process=name, clock=clock)


def count(process: FleetCounts, calls: int, failures: int = 0, provider: str = "stripe") -> Counts:
    made = [Sample(OK, 0.3)] * (calls - failures) + [Sample(FAILED, 0.3)] * failures
    counts = counted(made, SLOW_S)
    process.add(provider, counts)
    return counts


def told(process: FleetCounts, provider: str = "stripe") -> Counts:
    """What an exchange tells of others, where it all comes from one state of the circuit."""
    found = [each.counts for each in process.exchange() if each.provider == provider]
    assert len(found) <= 1
    return found[0] if found else Counts()


def news(process: FleetCounts, provider: str = "stripe") -> tuple[int, int]:
    """Calls and failures of others that an exchange tells."""
    counts = told(process, provider)
    return counts.calls, counts.failures


# ---------------------------------------------------------------- counting


def test_calls_are_counted_by_what_they_said_and_how_long_they_took(clock: ManualClock) -> None:
    """Slow is above the threshold, failed or not; the histogram holds successes, for failures have no latency."""
    process = a_process(None, clock)
    calls = [(OK, 0.3), (OK, 3.0), (OK, 3.1), (FAILED, 4.0), (REFUSED, 0.01)]
    counts = counted([Sample(*each) for each in calls], SLOW_S)
    process.add("stripe", counts)
    assert (counts.calls, counts.failures, counts.unreachable, counts.slow) == (5, 2, 1, 2)
    assert counts.histogram == Counter(bucket_of(seconds) for seconds in (0.3, 3.0, 3.1))
    assert process.totals("stripe") == (5, 2)
    assert process.totals("adyen") == (0, 0)


def test_a_process_without_a_store_counts_for_itself(clock: ManualClock) -> None:
    """And has neither news nor a past."""
    process = a_process(None, clock)
    count(process, 3)
    assert process.exchange() == []
    assert process.history(0) == []
    assert process.totals("stripe") == (3, 0)


# ---------------------------------------------------------------- telling


def test_others_hear_what_was_counted_and_only_what_is_new(store: MemoryCounts, clock: ManualClock) -> None:
    """Differences, with latencies; one's own calls are no news."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 10, 4)
    assert news(first) == (0, 0)
    heard = told(second)
    assert (heard.calls, heard.failures, heard.histogram) == (10, 4, {bucket_of(0.3): 6})
    assert news(second) == (0, 0)
    count(first, 3, 1)
    first.exchange()
    heard = told(second)
    assert (heard.calls, heard.failures, heard.histogram) == (3, 1, {bucket_of(0.3): 2})
    assert second.totals("stripe") == (13, 5)


def test_a_process_with_nothing_to_tell_writes_nothing(store: MemoryCounts, clock: ManualClock) -> None:
    """A quiet night costs the ledger no commits."""
    process = a_process(store, clock)
    count(process, 1)
    for _ in range(10):
        process.exchange()
        clock.advance(1)
    assert store.written == 1


def test_a_provider_that_this_build_does_not_know_is_passed_over(store: MemoryCounts, clock: ManualClock) -> None:
    """A newer version beside this one has a third."""
    newer = FleetCounts((*NAMES, "third"), store=store, process="web:9", clock=clock)
    newer.add("third", Counts(1))
    newer.exchange()
    process = a_process(store, clock)
    assert process.exchange() == []
    assert process.history(0) == []


def test_rows_are_read_again_and_late_without_counting_twice(store: MemoryCounts, clock: ManualClock) -> None:
    """Each exchange asks for the last two minutes once more; a commit that shows late is heard then."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 10)
    first.exchange()
    held_back, store.rows = store.rows, {}
    for _ in range(60):
        clock.advance(1)
        assert news(second) == (0, 0)
    store.rows = held_back
    heard = []
    for _ in range(120):
        clock.advance(1)
        heard.append(news(second)[0])
    assert heard[0] == 10
    assert sum(heard) == 10


def test_an_older_version_read_after_a_newer_one_is_no_news_nor_makes_any(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """A standby that took over shows yesterday's row for a moment; then the newer one is there again."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 5)
    first.exchange()
    older = list(store.rows.values())
    count(first, 5)
    first.exchange()
    assert news(second) == (10, 0)
    store.stale = older
    assert news(second) == (0, 0)
    store.stale = None
    assert news(second) == (0, 0)
    count(first, 1)
    first.exchange()
    assert news(second) == (1, 0)


@pytest.mark.parametrize("ahead_s", [-60, 60])
def test_a_minute_between_two_machines_clocks_loses_nothing(store: MemoryCounts, ahead_s: float) -> None:
    """Each hears the other, from the first call on."""
    clock, other = SteppedClock(), SteppedClock()
    first, second = a_process(store, clock), a_process(store, other, "web:2")
    other.step_wall(ahead_s)
    for _ in range(100):
        count(first, 2, 1)
        count(second, 3)
        first.exchange()
        second.exchange()
        clock.advance(1)
        other.advance(1)
    first.exchange()
    assert first.totals("stripe") == second.totals("stripe") == (500, 100)


@pytest.mark.parametrize("step_s", [-60, 60])
def test_a_step_of_a_wall_clock_loses_and_doubles_nothing(store: MemoryCounts, step_s: float) -> None:
    """A correction by NTP, in the midst of it."""
    clock, other = SteppedClock(), SteppedClock()
    first, second = a_process(store, clock), a_process(store, other, "web:2")
    for second_of_test in range(200):
        if second_of_test == 50:
            other.step_wall(step_s)
        count(first, 2, 1)
        count(second, 3)
        first.exchange()
        second.exchange()
        clock.advance(1)
        other.advance(1)
    first.exchange()
    assert first.totals("stripe") == second.totals("stripe") == (1000, 200)


# ---------------------------------------------------------------- hours and lives


def test_the_change_of_the_hour_begins_a_new_row_and_the_old_one_is_told_to_its_end(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """Calls between the last exchange and the full hour are heard with those after it."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    clock.advance(1799)
    count(first, 7, 1)
    clock.advance(2)
    count(first, 5, 2)
    first.exchange()
    assert news(second) == (12, 3)
    hour = hour_of(START)
    assert {key[2]: row.calls for key, row in store.rows.items()} == {hour: 7, hour + 1: 5}
    assert news(second) == (0, 0)


def test_a_process_that_begins_anew_counts_from_nothing_and_is_heard_in_full(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """Its rows stand under another name: what its earlier life told is neither lost nor told again."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 10, 2)
    first.exchange()
    assert news(second) == (10, 2)
    again = a_process(store, clock, "web:1-again")
    again.history(hour_of(START))
    count(again, 4, 1)
    again.exchange()
    assert news(second) == (4, 1)
    assert again.totals("stripe") == (4, 1)


def test_what_was_told_before_a_process_began_is_its_past_and_no_news(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """An hour's failures, all in one batch, would open its circuit; what is told from now on is news."""
    first = a_process(store, clock)
    count(first, 100, 60)
    first.exchange()
    joined = a_process(store, clock, "web:2")
    past = joined.history(hour_of(START) - 23)
    assert [(row.calls, row.failures) for row in past] == [(100, 60)]
    assert news(joined) == (0, 0)
    count(first, 5, 1)
    first.exchange()
    assert news(joined) == (5, 1)
    assert joined.totals("stripe") == (5, 1)


# ---------------------------------------------------------------- the ledger away


@pytest.mark.parametrize("fault", ["away", "no_reads", "no_writes"])
def test_while_the_ledger_is_away_counts_are_kept_and_told_once_when_it_is_back(
    store: MemoryCounts, clock: ManualClock, fault: str
) -> None:
    """Whether it refused the writing or the reading."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    setattr(store, fault, True)
    for _ in range(5):
        count(first, 3, 1)
        with pytest.raises(LedgerUnavailableError):
            first.exchange()
        with contextlib.suppress(LedgerUnavailableError):
            second.exchange()
        clock.advance(1)
    setattr(store, fault, False)
    first.exchange()
    second.exchange()
    assert first.totals("stripe") == second.totals("stripe") == (15, 5)
    assert news(second) == (0, 0)


def test_after_three_hours_without_the_ledger_every_hour_is_told_once(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """Rows of hours long past come in one exchange, and are read again in those after it."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    store.away = True
    for _ in range(6):
        count(first, 10, 2)
        with pytest.raises(LedgerUnavailableError):
            first.exchange()
        clock.advance(1800)
    store.away = False
    first.exchange()
    heard = []
    for _ in range(OVERLAP // dt.timedelta(seconds=10)):
        clock.advance(1)
        heard.append(news(second))
    assert heard[0] == (60, 12)
    assert sum(calls for calls, _ in heard) == 60
    count(first, 1)
    first.exchange()
    assert news(second) == (1, 0)


def test_a_row_that_grows_after_hours_without_the_ledger_counts_only_by_what_was_added(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """One process alone was cut off: the others had heard the first part of that hour long ago."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 10)
    first.exchange()
    count(first, 5, 1)
    for _ in range(20):
        clock.advance(3600)
        second.exchange()
    first.exchange()
    assert news(second) == (5, 1)
    assert second.totals("stripe") == (15, 1)


def test_what_is_a_day_old_is_not_told_any_more(store: MemoryCounts, clock: ManualClock) -> None:
    """The others have forgotten what they heard of that hour, and would count it twice."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    count(first, 10)
    first.exchange()
    second.exchange()
    count(first, 5)
    for _ in range(30):
        clock.advance(3600)
        second.exchange()
    count(first, 2)
    first.exchange()
    assert news(second) == (2, 0)
    assert second.totals("stripe") == (12, 0)


def test_old_hours_are_forgotten(store: MemoryCounts, clock: ManualClock) -> None:
    """A process that lives for months remembers no more than hours."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    for _ in range(48):
        count(first, 1)
        first.exchange()
        second.exchange()
        clock.advance(3600)
    assert second.totals("stripe") == (48, 0)
    assert len(first._own) <= 3
    assert len(second._heard) <= HOURS_REMEMBERED


# ---------------------------------------------------------------- any order of events

PROCESSES = 3
STEPS = st.one_of(
    st.tuples(st.just("count"), st.integers(0, PROCESSES - 1), st.integers(1, 30), st.sampled_from(NAMES)),
    st.tuples(st.just("exchange"), st.integers(0, PROCESSES - 1)),
    st.tuples(st.just("wait"), st.sampled_from([0.2, 1, 30, 1800, 7300])),
    st.tuples(st.just("fault"), st.sampled_from(["away", "no_reads", "no_writes"]), st.booleans()),
    st.tuples(st.just("lag"), st.booleans()),
)


@given(st.lists(STEPS, max_size=60))
def test_whatever_the_order_all_processes_end_with_the_same_totals(steps: list[tuple[object, ...]]) -> None:
    """Counts, exchanges, hours that pass, a ledger that fails and a standby that lags: all have heard all, once."""
    clock, store = ManualClock(START), MemoryCounts()
    processes = [a_process(store, clock, f"web:{n}") for n in range(PROCESSES)]
    made: Counter[str] = Counter()
    heard: Counter[int] = Counter()

    def exchange(n: int) -> None:
        heard[n] += sum(each.counts.calls for each in processes[n].exchange())

    for step in steps:
        match step:
            case ("count", int(n), int(calls), str(provider)):
                count(processes[n], calls, calls // 3, provider)
                made[provider] += calls
                heard[n] += calls
            case ("exchange", int(n)):
                with contextlib.suppress(LedgerUnavailableError):
                    exchange(n)
            case ("wait", float(seconds) | int(seconds)):
                if clock.monotonic() + seconds > (HOURS_TOLD - 1) * 3600:
                    continue  # cut off for longer, a process does not tell all any more
                if seconds > 1:
                    store.stale = None  # a standby may lag by less than rows are read again for
                clock.advance(seconds)
            case ("fault", str(fault), bool(on)):
                setattr(store, fault, on)
            case ("lag", bool(on)):
                store.stale = list(store.rows.values()) if on else None
    store.away = store.no_reads = store.no_writes = False
    store.stale = None
    for _ in range(2):  # all tell, then all have heard
        for n in range(PROCESSES):
            exchange(n)
    for provider in NAMES:
        assert {process.totals(provider)[0] for process in processes} == {made[provider]}
        assert len({process.totals(provider) for process in processes}) == 1
    assert set(heard.values()) <= {made.total()}


# ---------------------------------------------------------------- what calls belong to


def test_calls_are_told_apart_by_the_circuits_version_and_by_what_was_learned(
    store: MemoryCounts, clock: ManualClock
) -> None:
    """Totals are of a version and those after it."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    first.add("stripe", Counts(5, 1), version=3)
    first.add("stripe", Counts(7, 2), version=4, normal=False)
    first.exchange()
    heard = [(each.version, each.normal, each.counts.calls) for each in second.exchange()]
    assert heard == [(3, True, 5), (4, False, 7)]
    for process in (first, second):
        assert [process.totals("stripe", version) for version in (0, 4, 5)] == [(12, 3), (7, 2), (0, 0)]


def test_a_call_in_flight_and_a_refusal_are_told_without_any_call(store: MemoryCounts, clock: ManualClock) -> None:
    """And an end that follows takes the call in flight back."""
    first, second = a_process(store, clock), a_process(store, clock, "web:2")
    first.add("stripe", Counts(slow=1, overdue=1, refused=2))
    first.exchange()
    assert told(second) == Counts(slow=1, overdue=1, refused=2)
    first.add("stripe", counted([Sample(FAILED, 9.0, was_overdue=True)], SLOW_S))
    first.exchange()
    assert told(second) == Counts(calls=1, failures=1, overdue=-1)
    assert told(second) == Counts()


def test_totals_of_old_versions_are_kept_together(store: MemoryCounts, clock: ManualClock) -> None:
    """A circuit that moves for months costs no memory, and loses no call."""
    process = a_process(store, clock)
    for version in range(500):
        process.add("stripe", Counts(2, 1), version=version)
    assert process.totals("stripe") == (1000, 500)
    assert process.totals("stripe", 490) == (20, 10)
    assert len(process._totals["stripe"]) < 100
