"""A flip among people, crashes and other workers: exactly one, and never over a person's change."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flags.contract import PRIMARY_PROVIDER, FlagContext, FlagSource
from flags.file import FileFlags
from flags.filewriter import FileFlagWriter, complete_file
from router.clock import ManualClock
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger, FlipState
from router.transitions import State, following
from tests.fakes.flags import FakeFlags, FakeFlagWriter
from tests.fakes.flips import FlipWorker
from tests.fakes.ledger import fresh_ledger
from tests.fakes.threads import together


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


@pytest.fixture
def source() -> FakeFlags:
    return FakeFlags()


@pytest.fixture
def writer() -> FakeFlagWriter:
    return FakeFlagWriter()


@pytest.fixture
def worker(database: Database, source: FakeFlags, writer: FakeFlagWriter) -> FlipWorker:
    return FlipWorker(database, ManualClock(), source, writer)


# ---------------------------------------------------------------- people


def test_a_person_who_sets_the_flag_back_is_not_overruled_in_that_incident(
    worker: FlipWorker, writer: FakeFlagWriter
) -> None:
    """However long it lasts, and through short closings."""
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    writer.values[PRIMARY_PROVIDER] = "stripe"
    assert worker.run_after(600) == 0
    worker.go(State.CLOSED)
    worker.go(State.OPEN, after_s=299)
    assert worker.run_after(600) == 0
    assert writer.values[PRIMARY_PROVIDER] == "stripe"
    assert len(worker.rows()) == 1


def test_a_new_incident_flips_again(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """A person's veto holds until the incident ends, not for ever."""
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.go(State.CLOSED)
    writer.values[PRIMARY_PROVIDER] = "stripe"
    worker.go(State.OPEN, after_s=300)
    assert worker.run_after(60) == 1
    assert writer.values[PRIMARY_PROVIDER] == "third"
    assert {flip.incident for flip in worker.rows()} == {"inc_stripe_1", "inc_stripe_3"}


def test_a_change_by_a_person_between_the_decision_and_the_write_stands(
    worker: FlipWorker, writer: FakeFlagWriter
) -> None:
    """The write names the value that it replaces; the record says `superseded`, and it is not tried again."""
    writer.before_set = lambda: writer.values.update({PRIMARY_PROVIDER: "adyen"})
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert worker.run_after(60) == 0
    assert writer.values[PRIMARY_PROVIDER] == "adyen"
    assert (writer.writes, writer.tries) == ([], 1)
    (flip,) = worker.rows()
    assert (flip.state, flip.confirmed_at) == ("superseded", None)


# ---------------------------------------------------------------- faults and races


def test_a_write_that_fails_is_tried_again_until_it_succeeds(worker: FlipWorker, writer: FakeFlagWriter) -> None:
    """The decision is on record as requested meanwhile; the record keeps both moments."""
    worker.go(State.OPEN)
    worker.clock.advance(60)
    decided_at = worker.clock.now()

    def break_the_store() -> None:
        writer.fault = "the file is locked"

    writer.before_set = break_the_store
    assert worker.run_after() == 0
    assert [flip.state for flip in worker.rows()] == ["requested"]
    assert worker.run_after(1) == 0
    writer.fault, writer.before_set = None, None
    assert worker.run_after(1) == 1
    (flip,) = worker.rows()
    assert (flip.state, flip.created_at, flip.confirmed_at) == ("confirmed", decided_at, worker.clock.now())


@pytest.fixture
def waiting(worker: FlipWorker, writer: FakeFlagWriter) -> FlipWorker:
    """A flip was decided, to `third`, and the store could not be written; it can be again."""

    def break_the_store() -> None:
        writer.fault = "the disk is full"

    writer.before_set = break_the_store
    worker.go(State.OPEN)
    assert worker.run_after(61) == 0
    writer.fault, writer.before_set = None, None
    return worker


@pytest.mark.parametrize("meanwhile", ["the incident ended", "a new one began", "flips were switched off"])
def test_a_flip_that_could_not_be_written_while_it_mattered_is_not_written_later(
    waiting: FlipWorker, source: FakeFlags, writer: FakeFlagWriter, meanwhile: str
) -> None:
    """Hours after the incident it would move payments onto a provider that nobody chose."""
    match meanwhile:
        case "the incident ended":
            waiting.go(State.CLOSED, after_s=5)
            waiting.clock.advance(300)
        case "a new one began":
            waiting.go(State.CLOSED, after_s=5)
            waiting.go(State.OPEN, after_s=300)
        case _:
            source.flags = dataclasses.replace(source.flags, auto_flip_enabled=False)
    assert waiting.run_after(1) == 0
    assert waiting.rows()[-1].state == "superseded"
    assert writer.values[PRIMARY_PROVIDER] == "stripe"
    source.flags = dataclasses.replace(source.flags, auto_flip_enabled=True)
    assert waiting.run_after(1) == 0
    assert writer.writes == []


@pytest.mark.parametrize("through", [State.SLOW_START, State.CLOSED, State.FORCED_OPEN])
def test_a_flip_that_is_not_wanted_for_a_moment_waits_for_its_incident(
    waiting: FlipWorker, writer: FakeFlagWriter, through: State
) -> None:
    """One round in slow start took the incident its flip: an hour open, and the primary stayed where it failed."""
    waiting.go(through, after_s=1)
    assert waiting.run_after(1) == 0
    assert [flip.state for flip in waiting.rows()] == ["requested"]
    waiting.go(State.OPEN, after_s=3)
    assert waiting.run_after(60) == 1
    (flip,) = waiting.rows()
    assert (flip.state, writer.values[PRIMARY_PROVIDER]) == ("confirmed", "third")
    # Closed it was well; while forced open nobody asked it.
    open_s = 126 if through is State.SLOW_START else 122
    assert flip.reason == f"circuit of stripe not closed for {open_s} s: told to"
    assert flip.evidence["open_seconds"] == open_s
    assert f"{open_s} s" in writer.writes[0][2]


def test_a_flip_whose_only_target_is_suspect_waits_until_it_is_not(
    database: Database, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """One round of it took the incident its flip."""
    worker = FlipWorker(database, ManualClock(), source, writer, names=("stripe", "adyen"))
    worker.go(State.OPEN)
    writer.before_set = lambda: setattr(writer, "fault", "503")
    assert worker.run_after(60) == 0
    writer.fault, writer.before_set = None, None
    marked = following(
        None, State.CLOSED, provider="adyen", at=worker.clock.now(), actor="a", reason="suspect", suspect=True
    )
    assert worker.health.propose(marked)
    assert worker.run_after(1) == 0
    assert [flip.state for flip in worker.rows()] == ["requested"]
    calm = following(marked, State.CLOSED, provider="adyen", at=worker.clock.now(), actor="a", reason="calm")
    assert worker.health.propose(calm)
    assert worker.run_after(1) == 1
    assert writer.values[PRIMARY_PROVIDER] == "adyen"


def test_a_waiting_flip_goes_to_another_target_when_its_own_has_failed(
    waiting: FlipWorker, writer: FakeFlagWriter
) -> None:
    """And the record names where it went, and those that it was chosen from."""
    waiting.go(State.OPEN, provider="third")
    assert waiting.run_after(1) == 1
    (flip,) = waiting.rows()
    assert (flip.state, flip.to_value, writer.values[PRIMARY_PROVIDER]) == ("confirmed", "adyen", "adyen")
    assert [each["provider"] for each in flip.evidence["candidates"]] == ["adyen"]


def test_a_waiting_flip_is_dropped_when_a_person_moves_the_flag(waiting: FlipWorker, writer: FakeFlagWriter) -> None:
    """However briefly: the incident is theirs from then on."""
    writer.values[PRIMARY_PROVIDER] = "adyen"
    assert waiting.run_after(1) == 0
    assert [flip.state for flip in waiting.rows()] == ["superseded"]
    writer.values[PRIMARY_PROVIDER] = "stripe"
    assert waiting.run_after(600) == 0
    assert writer.writes == []


def test_two_workers_that_choose_different_targets_write_one_and_have_that_one_on_record(
    waiting: FlipWorker, database: Database, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """One sees `third` fail and goes elsewhere, in the moment in which the other writes it."""
    second = FlipWorker(database, waiting.clock, source, writer, waiting.ids)
    second.health.sync_once()

    def meanwhile() -> None:
        writer.before_set = None
        second.flipper.run_once()

    writer.before_set = meanwhile
    waiting.go(State.OPEN, provider="third")
    waiting.flipper.run_once()
    assert len(writer.writes) == 1
    (flip,) = waiting.rows()
    assert (flip.state, flip.to_value) == ("confirmed", writer.values[PRIMARY_PROVIDER])


def test_a_crash_between_the_decision_and_the_write_is_made_good_by_the_next_run(
    worker: FlipWorker, database: Database, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """The worker died with the flip claimed; another finds it requested and writes it."""

    def die() -> None:
        raise SystemExit

    writer.before_set = die
    worker.go(State.OPEN)
    with pytest.raises(SystemExit):
        worker.run_after(60)
    writer.before_set = None
    second = FlipWorker(database, worker.clock, source, writer)
    assert second.run_after(1) == 1
    assert writer.values[PRIMARY_PROVIDER] == "third"
    assert [flip.state for flip in second.rows()] == ["confirmed"]


def test_a_crash_between_the_write_and_its_record_is_confirmed_by_the_next_run(
    worker: FlipWorker, database: Database, source: FakeFlags, writer: FakeFlagWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag already serves what was decided: that is not a person's change."""

    def die(*_args: object, **_named: object) -> None:
        raise SystemExit

    worker.go(State.OPEN)
    with monkeypatch.context() as patch:
        patch.setattr(FlipLedger, "settle", die)
        with pytest.raises(SystemExit):
            worker.run_after(60)
    second = FlipWorker(database, worker.clock, source, writer)
    second.run_after(1)
    assert [flip.state for flip in second.rows()] == ["confirmed"]
    assert len(writer.writes) == 1


def test_two_workers_at_once_make_one_flip_and_one_write(
    worker: FlipWorker, database: Database, source: FakeFlags, writer: FakeFlagWriter
) -> None:
    """Real threads over one ledger, ten incidents: each is flipped by one of them."""
    second = FlipWorker(database, worker.clock, source, writer, worker.ids)
    for incident in range(1, 11):
        writer.values[PRIMARY_PROVIDER] = "stripe"
        worker.go(State.OPEN, after_s=300)
        worker.clock.advance(60)
        second.health.sync_once()
        together([worker.flipper.run_once, second.flipper.run_once])
        assert len(writer.writes) == len(worker.rows()) == incident
        assert {flip.state for flip in worker.rows()} == {"confirmed"}
        worker.go(State.CLOSED)


@pytest.mark.parametrize("state", ["confirmed", "superseded", "failed"])
def test_a_flip_that_has_ended_stays_as_it_ended(worker: FlipWorker, state: FlipState) -> None:
    """A slow worker's verdict does not overwrite the first."""
    flip = Flip("flip_1", PRIMARY_PROVIDER, "stripe", "adyen", "requested", "inc_1", "why", {}, worker.clock.now())
    assert worker.flips.claim(flip)
    worker.flips.settle("flip_1", state, at=worker.clock.now())
    worker.flips.settle("flip_1", "confirmed" if state != "confirmed" else "superseded", at=worker.clock.now())
    assert [each.state for each in worker.rows()] == [state]
    assert worker.flips.requested() == []


# ---------------------------------------------------------------- with the real flags file


def test_with_the_flags_file_the_flip_is_seen_by_those_who_read_it(database: Database, tmp_path: Path) -> None:
    """The real writer and the real reader: payments follow within a second, and a person's edit afterwards stands."""
    path, names = tmp_path / "flags.json", ("stripe", "adyen")
    complete_file(path, names)
    source = FileFlags(path, names, report=lambda _wrong: None, poll_interval_s=0.02)
    try:
        file = FileFlagWriter(path, names)
        worker = FlipWorker(database, ManualClock(), source, file, names=names)
        worker.go(State.OPEN)
        assert worker.run_after(59) == 0
        assert worker.run_after(1) == 1
        assert file.current(PRIMARY_PROVIDER) == "adyen"
        assert "inc_stripe_1" in path.read_text()
        _wait_for_primary(source, "adyen")
        assert file.set(PRIMARY_PROVIDER, "stripe", expected=None, comment="a person")
        _wait_for_primary(source, "stripe")
        assert worker.run_after(600) == 0
        assert file.current(PRIMARY_PROVIDER) == "stripe"
    finally:
        source.close()


def _wait_for_primary(source: FlagSource, primary: str) -> None:
    until = time.monotonic() + 5
    while source.read(FlagContext()).primary != primary:
        assert time.monotonic() < until, f"the primary did not become {primary}"
        time.sleep(0.01)
