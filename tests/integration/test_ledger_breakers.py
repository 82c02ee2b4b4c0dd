"""What circuits keep in the ledger: transitions, probes and shared counts, on both databases."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
import sqlalchemy as sa

from router.ledger.circuits import CircuitLedger
from router.ledger.counts import CountLedger, CountRow, hour_of
from router.ledger.engine import Database
from router.ledger.probes import Probe, ProbeLedger
from router.ledger.tables import probes
from router.ledger.upkeep import Upkeep
from router.transitions import State, Transition, following
from tests.fakes.threads import together

START = dt.datetime(2026, 11, 21, 12, 30, tzinfo=dt.UTC)


def after(seconds: float) -> dt.datetime:
    return START + dt.timedelta(seconds=seconds)


def write(ledger: CircuitLedger, story: str, provider: str = "stripe") -> list[Transition]:
    """Write `open@0 half_open@10`: states with the seconds at which they began."""
    last: Transition | None = None
    written = []
    for each in story.split():
        state, at = each.split("@")
        last = following(
            last, State(state), provider=provider, at=after(float(at)), actor="w", reason="why", evidence={"n": 1}
        )
        assert ledger.append(last)
        written.append(last)
    return written


# ---------------------------------------------------------------- transitions


def test_a_transition_comes_back_as_it_was_written(database: Database) -> None:
    """Every field: shares, marks, ends of overrides, beginnings, to the microsecond."""
    ledger = CircuitLedger(database)
    opened = following(None, State.OPEN, provider="stripe", at=START, actor="web:1", reason="why", evidence={"n": 3})
    half_open = following(opened, State.HALF_OPEN, provider="stripe", at=after(10), actor="w", reason="why")
    first = following(half_open, State.SLOW_START, provider="stripe", at=after(11), actor="w", reason="r", share=0.1)
    second = following(
        first, State.SLOW_START, provider="stripe", at=after(21.000001), actor="w", reason="r", share=0.25
    )
    until = after(3600.123456)
    forced = following(
        second, State.FORCED_OPEN, provider="stripe", at=after(22), actor="anna", reason="r", until=until
    )
    closed = following(forced, State.CLOSED, provider="stripe", at=after(23), actor="anna", reason="r")
    suspect = following(closed, State.CLOSED, provider="stripe", at=after(24), actor="w", reason="r", suspect=True)
    for each in (opened, half_open, first, second, forced, closed, suspect):
        assert ledger.append(each)
        assert ledger.latest(["stripe", "adyen"]) == [each]
    assert second.since == after(11)
    assert suspect.since == after(23)
    assert ledger.opening("inc_stripe_1") == opened


def test_a_version_is_written_once(database: Database) -> None:
    """Eight threads at one instant: one of them has it."""
    ledger = CircuitLedger(database)
    transition = following(None, State.OPEN, provider="stripe", at=START, actor="w", reason="why")
    written: list[bool] = []
    together([lambda: written.append(ledger.append(transition))] * 8)
    assert sorted(written) == [False] * 7 + [True]


def test_a_version_that_is_free_is_written_only_after_the_row_it_was_decided_on(database: Database) -> None:
    """Not after another process's, nor after none; whose it was is told by its state, its moment and its author."""
    ledger = CircuitLedger(database)
    (theirs,) = write(ledger, "bypass@0")
    ours = dataclasses.replace(theirs, state=State.OPEN, actor="web:1")
    for seen in (
        ours,
        dataclasses.replace(theirs, actor="x"),
        dataclasses.replace(theirs, at=after(1)),
        dataclasses.replace(theirs, state=State.METRICS_ONLY),
    ):
        assert not ledger.append(
            following(seen, State.FORCED_OPEN, provider="stripe", at=after(2), actor="web:1", reason="why")
        )
    gap = following(
        dataclasses.replace(theirs, version=2), State.OPEN, provider="stripe", at=after(2), actor="w", reason="why"
    )
    assert not ledger.append(gap)
    assert not ledger.append(dataclasses.replace(gap, provider="adyen"))
    assert ledger.history("stripe", limit=9) == [theirs]
    (read,) = ledger.latest(["stripe"])
    assert ledger.append(following(read, State.OPEN, provider="stripe", at=after(2), actor="w", reason="why"))


def test_the_history_is_read_from_the_newest_on_page_by_page(database: Database) -> None:
    """Of that circuit only; `before` is where the last page ended."""
    ledger = CircuitLedger(database)
    written = write(ledger, "open@0 half_open@10 open@11 half_open@26 closed@27")
    write(ledger, "open@5", provider="adyen")
    pages, before = [], None
    while page := ledger.history("stripe", limit=2, before=before):
        pages.append(list(page))
        before = page[-1].version
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [each for page in pages for each in page] == written[::-1]


def test_recoveries_are_counted_for_each_provider_since_a_moment(database: Database) -> None:
    """What is older does not count."""
    ledger = CircuitLedger(database)
    write(
        ledger,
        "open@0 half_open@10 open@11 half_open@26 slow_start@27 closed@57 open@5000 half_open@5010 closed@5011",
    )
    write(ledger, "open@0 half_open@10 closed@11 open@20", provider="adyen")
    found = ledger.recoveries(["stripe", "adyen", "third"], since=START)
    assert (found["stripe"].rounds, found["stripe"].succeeded, found["stripe"].false) == (3, 2, 0)
    assert found["stripe"].to_closed_s == (46 + 11) / 2
    assert (found["adyen"].success_rate, found["adyen"].false_rate) == (1.0, 1.0)
    assert found["third"].success_rate is None
    assert ledger.recoveries(["stripe"], since=after(4000))["stripe"].rounds == 1


# ---------------------------------------------------------------- probes

PROBE = Probe("stripe", 2, 1, "worker:1", START)


def test_a_probe_is_on_record_before_and_after_it(database: Database) -> None:
    """Without a result first, then with it; the newest first, of that provider only."""
    ledger = ProbeLedger(database)
    assert ledger.begin(PROBE)
    assert list(ledger.history("stripe", limit=9)) == [PROBE]
    ended = dataclasses.replace(PROBE, healthy=False, reason="http_503", latency=dt.timedelta(microseconds=1234))
    ledger.finish(ended)
    later = dataclasses.replace(PROBE, version=4, at=after(60))
    assert ledger.begin(later)
    assert ledger.begin(dataclasses.replace(PROBE, provider="adyen"))
    assert list(ledger.history("stripe", limit=9)) == [later, ended]
    assert list(ledger.history("stripe", limit=1)) == [later]


def test_each_probe_is_begun_by_one_process(database: Database) -> None:
    """Eight at one instant: one sends it. Nobody else's result can be put in its place."""
    ledger = ProbeLedger(database)
    begun: list[str] = []

    def begin(actor: str) -> None:
        if ledger.begin(dataclasses.replace(PROBE, actor=actor)):
            begun.append(actor)

    together([lambda actor=f"worker:{n}": begin(actor) for n in range(8)])  # type: ignore[misc]  # a default binds it
    assert len(begun) == 1
    ledger.finish(dataclasses.replace(PROBE, actor="somebody", healthy=True))
    assert ledger.history("stripe", limit=1)[0].healthy is None


def test_a_probe_is_synthetic_whatever_is_written(database: Database) -> None:
    """The database itself refuses one that is not."""
    ProbeLedger(database).begin(PROBE)
    with database.read() as connection:
        assert connection.scalar(sa.select(probes.c.synthetic)) is True
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        connection.execute(probes.update().values(synthetic=False))


def test_old_probes_are_forgotten(database: Database) -> None:
    """By the moment at which they were sent; so many at a time, the oldest first."""
    ledger, upkeep = ProbeLedger(database), Upkeep(database)
    for nth, at in enumerate((0, 5, 10, 20), 1):
        ledger.begin(dataclasses.replace(PROBE, nth=nth, at=after(at)))
    assert upkeep.reap_probes(after(10), limit=1) == 1
    assert [each.nth for each in ledger.history("stripe", limit=9)] == [4, 3, 2]
    assert upkeep.reap_probes(after(10), limit=9) == 1
    assert [each.nth for each in ledger.history("stripe", limit=9)] == [4, 3]
    assert upkeep.reap_probes(after(10), limit=9) == 0


def test_recoveries_are_of_so_many_moves_at_most(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that stays away for days makes ten thousand rows a day, and on-call looks every few seconds."""
    monkeypatch.setattr("router.ledger.circuits.RECOVERIES_OF", 5)
    ledger, last = CircuitLedger(database), None
    for n, state in enumerate([State.OPEN, State.HALF_OPEN] * 4):
        last = following(last, state, provider="stripe", at=after(n), actor="w", reason="r")
        assert ledger.append(last)
    # Of the newest five moves: half-open, open, half-open, open, half-open.
    assert ledger.recoveries(["stripe"], since=START)["stripe"].rounds == 2


# ---------------------------------------------------------------- counts

HOUR = hour_of(START)
ROW = CountRow("web:1", "stripe", HOUR, 10, 2, 1, 3, START, {40: 7, 0: 1})


def test_counts_are_replaced_by_what_their_process_writes_next(database: Database) -> None:
    """One row a process, provider and hour, with everything that was counted."""
    ledger = CountLedger(database)
    more = dataclasses.replace(ROW, calls=15, slow=4, histogram={40: 12, 120: 1}, updated_at=after(1))
    other = dataclasses.replace(ROW, process="web:2")
    ledger.write([ROW, other, dataclasses.replace(ROW, provider="adyen")])
    ledger.write([more])
    ledger.write([])
    assert list(ledger.hours(["stripe"], from_hour=HOUR)) == [more, other]


def test_others_counts_are_read_since_a_moment(database: Database) -> None:
    """Not one's own, and not those that were read before."""
    ledger = CountLedger(database)
    late = dataclasses.replace(ROW, process="web:3", updated_at=after(5))
    ledger.write([ROW, dataclasses.replace(ROW, process="web:2"), late])
    assert list(ledger.since(START, not_process="web:1")) == [late]
    assert {each.process for each in ledger.since(after(-1), not_process="web:1")} == {"web:2", "web:3"}


def test_hours_are_read_from_an_hour_on(database: Database) -> None:
    """The oldest first; none of another provider."""
    ledger = CountLedger(database)
    hours = [dataclasses.replace(ROW, hour=HOUR + n) for n in (2, 0, 1)]
    ledger.write([*hours, dataclasses.replace(ROW, provider="third")])
    assert [each.hour for each in ledger.hours(["stripe", "adyen"], from_hour=HOUR + 1)] == [HOUR + 1, HOUR + 2]


def test_old_counts_are_forgotten(database: Database) -> None:
    """By the moment at which they were last written; so many at a time, the oldest first."""
    ledger, upkeep = CountLedger(database), Upkeep(database)
    ledger.write([ROW, *(dataclasses.replace(ROW, process=f"web:{n}", updated_at=after(-n)) for n in (2, 3))])
    assert upkeep.reap_counts(START, limit=1) == 1
    assert {each.process for each in ledger.hours(["stripe"], from_hour=0)} == {"web:1", "web:2"}
    assert upkeep.reap_counts(START, limit=9) == 1
    assert [each.process for each in ledger.hours(["stripe"], from_hour=0)] == ["web:1"]
    assert upkeep.reap_counts(START, limit=9) == 0


def test_counts_of_each_version_of_the_circuit_and_of_trouble_are_rows_of_their_own(database: Database) -> None:
    """Whoever reads them can tell late calls from present ones, and what was learned from what was not."""
    ledger = CountLedger(database)
    first = dataclasses.replace(ROW, overdue=-2, refused=3)
    rows = [dataclasses.replace(first, normal=False), first, dataclasses.replace(first, version=4, overdue=5)]
    ledger.write(rows)
    ledger.write(rows)
    assert list(ledger.hours(["stripe"], from_hour=HOUR)) == rows
    assert len({each.key for each in rows}) == 3
