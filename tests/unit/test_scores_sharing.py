"""Scores that processes have in common: whatever happens between, nothing is lost and nothing counts twice."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.clock import ManualClock
from router.ledger.scores import CALLS, ScoreRow
from router.ledger.unavailable import LedgerUnavailableError
from router.score_sharing import LEARNED_ANEW_AFTER_S, OVERLAP_S, REMEMBERED_S, TOLD_S, ScoreSharing
from router.scores import Scores
from router.segments import segment
from tests.fakes.clocks import SteppedClock
from tests.fakes.scores import MemoryScores

NAMES = ("stripe", "adyen")
VISA_DE = segment(1999, "visa", "DE", "card")
AMEX_FR = segment(500_000, "amex", "FR", "card")
START = dt.datetime(2026, 11, 21, 10, 30, 20, tzinfo=dt.UTC)


class Process:
    """One life of a process."""

    def __init__(self, store: MemoryScores, clock: ManualClock | SteppedClock, name: str) -> None:
        self.clock = clock
        self.scores = Scores(NAMES)
        self.half_life_h = 6.0
        self.sharing = ScoreSharing(
            self.scores, store=store, process=name, clock=clock, half_life_h=lambda: self.half_life_h
        )

    @property
    def at(self) -> float:
        return self.clock.now().timestamp()

    def hear(self, approvals: int, declines: int = 0, provider: str = "stripe") -> None:
        for approved, times in ((True, approvals), (False, declines)):
            for _ in range(times):
                self.scores.hear_answer(provider, VISA_DE, approved, self.at)

    def answers(self) -> float:
        return self.scores.read(VISA_DE, self.at)["stripe"].answers

    def exchange(self) -> int:
        return self.sharing.exchange_once()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store() -> MemoryScores:
    return MemoryScores()


@pytest.fixture
def pair(store: MemoryScores, clock: ManualClock) -> tuple[Process, Process]:
    """Two processes that know the past, which is empty."""
    both = Process(store, clock, "web:1"), Process(store, clock, "web:2")
    for each in both:
        each.exchange()
    return both


def test_what_one_process_hears_the_other_knows_after_two_exchanges(pair: tuple[Process, Process]) -> None:
    """One that tells, one that asks."""
    one, two = pair
    one.hear(30, 10)
    one.scores.hear_calls("adyen", 9, 2, one.at)
    assert one.exchange() == 0
    assert two.exchange() == 49
    known = one.scores.read(VISA_DE, one.at)
    for provider, score in two.scores.read(VISA_DE, two.at).items():
        assert score == pytest.approx(known[provider])
    assert two.scores.availability("adyen", two.at) == pytest.approx(one.scores.availability("adyen", one.at))


def test_nothing_is_written_when_nothing_happened_and_only_what_changed_otherwise(
    pair: tuple[Process, Process], store: MemoryScores
) -> None:
    """One small commit a second, and none on a quiet day."""
    one, _ = pair
    for _ in range(3):
        one.exchange()
    assert store.commits == 0
    one.hear(5)
    one.scores.hear_answer("adyen", AMEX_FR, True, one.at)
    one.exchange()
    assert (store.commits, len(store.rows)) == (1, 2)
    one.hear(1)
    store.rows.clear()
    one.exchange()
    assert (store.commits, [row[1:6] for row, _ in store.rows.values()]) == (
        2,
        [("stripe", VISA_DE.key(), int(one.at) // 60 * 60, 6, 0)],
    )


def test_rows_that_are_read_again_and_again_count_once(pair: tuple[Process, Process], clock: ManualClock) -> None:
    """The overlap shows every row many times, grown and not."""
    one, two = pair
    for heard in range(1, 100):
        one.hear(1)
        one.exchange()
        two.exchange()
        clock.advance(1.0)
        assert two.answers() == pytest.approx(heard, rel=0.01)
    assert two.answers() == pytest.approx(one.answers(), abs=1e-6)


def test_an_older_version_of_a_row_is_not_news_nor_is_what_was_heard_already(
    pair: tuple[Process, Process], store: MemoryScores
) -> None:
    """A standby that took over lags behind, and then catches up."""
    one, two = pair
    one.hear(5)
    one.exchange()
    older = [row for row, _ in store.rows.values()]
    one.hear(5)
    one.exchange()
    assert two.exchange() == 10
    store.stale = older
    assert two.exchange() == 0
    store.stale = None
    assert two.exchange() == 0
    one.hear(0, 1)
    one.exchange()
    assert two.exchange() == 1


@pytest.mark.parametrize("fault", ["no_writes", "no_reads", "loses_answers"])
def test_what_could_not_be_told_is_told_later_and_once(
    pair: tuple[Process, Process], store: MemoryScores, clock: ManualClock, fault: str
) -> None:
    """The ledger is away for minutes, or its answer is lost after the commit."""
    one, two = pair
    for _ in range(10):
        setattr(store, fault, True)
        one.hear(1, 1)
        with pytest.raises(LedgerUnavailableError):
            one.exchange()
        setattr(store, fault, False)
        with contextlib.suppress(LedgerUnavailableError):
            two.exchange()
        clock.advance(30)
    one.exchange()
    two.exchange()
    assert two.answers() == pytest.approx(one.answers(), rel=1e-6)
    assert two.answers() == pytest.approx(20, rel=0.01)


def test_a_commit_that_becomes_visible_late_is_heard(pair: tuple[Process, Process], store: MemoryScores) -> None:
    """Another machine's clock is behind by a minute and a half."""
    _, two = pair
    two.clock.sleep(200)
    two.exchange()
    late = ScoreRow("web:3", "stripe", VISA_DE.key(), int(two.at) // 60 * 60, 4, 0, 0, 0)
    store.write([late], at_us=int((two.at - OVERLAP_S + 1) * 1e6))
    assert two.exchange() == 4


def test_a_restart_starts_where_it_stopped(
    store: MemoryScores, pair: tuple[Process, Process], clock: ManualClock
) -> None:
    """To a tenth of a percentage point, availability with its short half-life as well; by minutes, not by answers."""
    one, _ = pair
    for second in range(1800):
        one.hear(1, second % 3 == 0)
        one.scores.hear_calls("stripe", 3, second % 100 < 40, one.at)
        clock.advance(1.0)
    one.exchange()
    again = Process(store, clock, "web:3")
    assert again.exchange() > 5000
    was, found = one.scores.read(VISA_DE, one.at)["stripe"], again.scores.read(VISA_DE, one.at)["stripe"]
    assert found.approval == pytest.approx(was.approval, abs=1e-6)
    assert found.availability == pytest.approx(was.availability, abs=0.001)
    assert found.availability < 0.9
    assert again.exchange() == 0
    assert one.exchange() == 0


def test_what_came_before_the_past_was_known_is_not_lost(store: MemoryScores, clock: ManualClock) -> None:
    """A process that begins while the ledger is away knows its own answers, and later the past as well, each once."""
    earlier = Process(store, clock, "web:1")
    earlier.hear(10)
    earlier.exchange()
    late = Process(store, clock, "web:2")
    store.no_reads = store.no_writes = True
    late.hear(5)
    with pytest.raises(LedgerUnavailableError):
        late.exchange()
    assert late.answers() == pytest.approx(5)
    store.no_reads = store.no_writes = False
    assert late.exchange() == 10
    assert late.answers() == pytest.approx(15)
    assert earlier.exchange() == 5
    assert late.exchange() == 0


def test_another_half_life_weighs_the_past_anew_alike_in_every_process(
    store: MemoryScores, pair: tuple[Process, Process], clock: ManualClock
) -> None:
    """As if it had always been so: whoever hears of the flag later, or starts later, knows the same."""
    one, two = pair
    for _ in range(10):
        one.hear(10, 2)
        two.hear(10, 5)
        one.exchange()
        two.exchange()
        clock.advance(1000)
    for each in (one, two):
        each.half_life_h = 1.0
        each.exchange()
        clock.advance(100)
    third = Process(store, clock, "web:3")
    third.half_life_h = 1.0
    third.exchange()
    found = [each.scores.read(VISA_DE, each.at)["stripe"] for each in (one, two, third)]
    expected = sum(27 * 2 ** -((one.at - START.timestamp() - 1000 * n) / 3600) for n in range(10))
    for score in found:
        assert score == pytest.approx(found[0], abs=1e-6)
        assert score.answers == pytest.approx(expected)


def test_a_clock_that_was_set_forward_and_back_leaves_no_trace(store: MemoryScores) -> None:
    """Answers that weigh as those of next year would drown all others for a year."""
    clock = SteppedClock()
    one = Process(store, clock, "web:1")
    one.exchange()
    one.hear(100)
    one.exchange()
    clock.step_wall(365 * 86_400)
    one.hear(0, 1)
    one.exchange()
    clock.step_wall(-365 * 86_400)
    one.exchange()
    assert one.answers() == pytest.approx(101, rel=0.01)
    one.hear(50)
    one.exchange()
    assert one.answers() == pytest.approx(151, rel=0.01)


def test_a_process_that_was_cut_off_for_long_learns_the_past_anew(
    store: MemoryScores, pair: tuple[Process, Process], clock: ManualClock
) -> None:
    """What others told meanwhile may have been merged before it could hear it."""
    one, two = pair
    one.hear(10)
    one.exchange()
    two.exchange()
    for _ in range(5):
        clock.advance(REMEMBERED_S / 4)
        one.hear(10)
        one.exchange()
    clock.advance(LEARNED_ANEW_AFTER_S)
    merged = [row._replace(process="") for row, _ in store.rows.values()]
    store.rows = {row.key: (row, 0) for row in merged}
    two.exchange()
    assert two.answers() == pytest.approx(one.answers(), rel=1e-6)


def test_minutes_of_long_ago_are_not_told_any_more(pair: tuple[Process, Process], store: MemoryScores) -> None:
    """They may be merged by now, and would count twice."""
    one, _ = pair
    one.hear(10)
    one.clock.sleep(TOLD_S + 60)
    one.hear(1)
    one.exchange()
    assert [row.good for row, _ in store.rows.values()] == [1]


def test_a_row_of_another_version_of_the_router_is_left_to_it(
    pair: tuple[Process, Process], store: MemoryScores
) -> None:
    """Its segments, or its providers, are none of ours."""
    _, two = pair
    starts_s = int(two.at) // 60 * 60
    rows = [
        ScoreRow("web:9", "stripe", "visa|DE|night|card|x", starts_s, 9, 0, 0, 0),
        ScoreRow("web:9", "third", VISA_DE.key(), starts_s, 9, 0, 0, 0),
        ScoreRow("web:9", "third", CALLS, starts_s, 9, 0, 0, 0),
        ScoreRow("web:9", "stripe", CALLS, starts_s, 0, 0, 0, 0),
    ]
    store.write(rows, at_us=int(two.at * 1e6))
    two.exchange()
    assert two.answers() == 0
    assert two.scores.segments() == 0


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["hear", "exchange", "fail_write", "fail_read", "lose", "restart", "wait"]),
        st.integers(1, 5),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_whatever_happens_between_all_processes_know_the_same_in_the_end(
    steps: list[tuple[int, str, int]],
) -> None:
    """Every answer counts once in each of them; only those that a process took with it, untold, are gone."""
    clock, store, names = ManualClock(START), MemoryScores(), itertools.count(1)
    faults = {"fail_write": "no_writes", "fail_read": "no_reads", "lose": "loses_answers"}
    processes = [Process(store, clock, f"web:{next(names)}") for _ in range(3)]
    told = 0
    for who, what, many in steps:
        process = processes[who]
        if what == "hear":
            process.hear(many, 1)
            told += many + 1
        elif what == "wait":
            clock.advance(many * 17.0)
        elif what == "restart":
            process.sharing.tell()
            processes[who] = Process(store, clock, f"web:{next(names)}")
        else:
            fault = faults.get(what)
            if fault is not None:
                setattr(store, fault, True)
            with contextlib.suppress(LedgerUnavailableError):
                process.exchange()
            if fault is not None:
                setattr(store, fault, False)
    for _ in range(2):
        for process in processes:
            process.exchange()
    found = [process.scores.read(VISA_DE, process.at)["stripe"] for process in processes]
    for score in found:
        assert score.approval == pytest.approx(found[0].approval, abs=1e-6)
        assert score.answers == pytest.approx(told, rel=0.1, abs=1e-6)
        assert score.answers == pytest.approx(found[0].answers, rel=1e-5, abs=1e-6)
