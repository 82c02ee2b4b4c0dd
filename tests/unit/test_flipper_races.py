"""A flip among people, crashes and other workers: exactly one, and never over a person's change."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from flags.contract import (
    PRIMARY_PROVIDER,
    FlagChangedError,
    FlagContext,
    FlagSource,
    FlagUnavailableError,
    FlagWriteError,
    RoutingFlags,
    Serves,
)
from flags.file import FileFlags
from flags.filemover import FileFlagMover
from flags.filewriter import FileFlagWriter, complete_file
from router.clock import ManualClock
from router.flip_ending import LOOK_AGAIN_S, SEEN_AFTER_S, UNHEARD_AFTER_S
from router.flip_writing import LEASE_S, REFUSALS
from router.ledger import tables
from router.ledger.engine import Database
from router.transitions import State, following
from tests.fakes.flags import FakeStore, Told
from tests.fakes.flips import FlipWorker
from tests.fakes.threads import together


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def worker(database: Database, store: FakeStore, clock: ManualClock) -> FlipWorker:
    return FlipWorker(database, clock, store.source, store, changes=store.changes)


def another(worker: FlipWorker, store: FakeStore) -> FlipWorker:
    """A second process over the same ledger and flags."""
    return FlipWorker(worker.database, worker.clock, store.source, store, worker.ids, changes=store.changes)


AWAY = FlagUnavailableError("the store is away")

# ---------------------------------------------------------------- people


def test_a_person_who_sets_the_flag_back_is_not_overruled_in_that_incident(
    worker: FlipWorker, store: FakeStore
) -> None:
    """However long it lasts, and through short closings."""
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.run_after(5)
    store.set("stripe")
    assert worker.run_after(600) == 0
    worker.go(State.CLOSED)
    worker.go(State.OPEN, after_s=299)
    assert worker.run_after(600) == 0
    assert (store.primary, worker.primary) == ("stripe", "stripe")
    assert len(worker.rows()) == 1


def test_a_person_who_sets_the_flag_back_at_once_does_not_wait_for_the_override(
    worker: FlipWorker, store: FakeStore
) -> None:
    """It outlasts a stream that tells late, and not a person: it held for half a minute against them."""
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.clock.advance(0.5)
    store.set("stripe")
    worker.run_once()
    assert (worker.primary, worker.flip.state) == ("stripe", "confirmed")
    assert not worker.override.in_force


def test_a_new_incident_flips_again(worker: FlipWorker, store: FakeStore) -> None:
    """A person's veto holds until the incident ends, not for ever."""
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.go(State.CLOSED)
    store.set("stripe")
    worker.go(State.OPEN, after_s=300)
    assert worker.run_after(60) == 1
    assert store.primary == "third"
    assert {flip.incident for flip in worker.rows()} == {"inc_stripe_1", "inc_stripe_3"}


def test_a_change_by_a_person_between_the_look_and_the_write_stands(worker: FlipWorker, store: FakeStore) -> None:
    """The write names the mark that it saw; the record says `superseded`, and the override is dropped."""

    def change() -> None:
        store.before_move = None
        store.set("adyen")

    store.before_move = change
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert worker.run_after(60) == 0
    assert (store.primary, worker.primary, store.moves) == ("adyen", "adyen", [])
    assert (worker.flip.state, worker.flip.confirmed_at, worker.flip.requested_at) == ("superseded", None, None)


def test_a_flag_that_serves_the_failing_provider_to_nobody_is_not_said_to_be_a_persons_doing(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Payments without a customer get a rollout's first share, even one of nothing: so does the router itself."""
    store.source.stalled = True
    store.source.read(FlagContext())
    store.serves = Serves(weights={"adyen": 100_000})
    worker = FlipWorker(database, clock, store.source, store, changes=store.changes)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert (worker.flip.state, worker.flip.cause) == (
        "superseded",
        "by a person, or all along: the flag serves 100% adyen",
    )


def test_a_change_of_something_else_in_that_moment_is_looked_at_and_the_flip_goes_on(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Nothing was written, and the flag still serves the failing provider: where no audit names a person's change."""

    def touch() -> None:
        store.before_move = None
        store.version += 1

    store.before_move = touch
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert (worker.flip.state, store.primary) == ("confirmed", "third")


def test_another_share_than_at_the_look_before_is_a_persons_though_the_audit_does_not_know_yet(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """The stream tells of it some tenths of a second later: by then the write would have been sent again."""
    worker = FlipWorker(database, clock, store.source, store)
    halves = Serves(weights={"stripe": 50_000, "adyen": 50_000})

    def change() -> None:
        store.before_move = None
        store.set(halves)

    store.before_move = change
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert (worker.flip.state, store.serves, store.moves) == ("superseded", halves, [])
    assert not worker.override.in_force


def test_a_flag_that_changes_with_every_look_is_tried_three_times_a_round(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Bounded, and again in the next one."""
    store.before_move = lambda: setattr(store, "version", store.version + 1)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert (store.looks, worker.flip.state, worker.primary) == (3, "overriding", "third")
    store.before_move = None
    assert worker.run_after(1) == 1


def test_a_store_that_says_for_ever_that_the_flag_changes_is_asked_less_and_less_often_and_people_are_told(
    worker: FlipWorker, store: FakeStore
) -> None:
    """It was asked three times a second, and nobody heard of it."""

    def conflict() -> None:
        raise FlagChangedError("409")

    store.before_move = conflict
    worker.go(State.OPEN)
    worker.clock.advance(60)
    for _ in range(300):
        worker.run_after(1)
    assert store.looks <= 3 * 12
    assert (worker.told, worker.flip.state, worker.primary) == (["flip_waits"], "overriding", "third")
    store.before_move = None
    assert sum(worker.run_after(1) for _ in range(61)) == 1


# ---------------------------------------------------------------- the store's errors


def test_a_store_that_is_away_is_asked_less_and_less_often(worker: FlipWorker, store: FakeStore) -> None:
    """Three looks a round, and waits that double up to a minute; the override is in force all the while."""
    store.fault = AWAY
    worker.go(State.OPEN)
    worker.clock.advance(60)
    for _ in range(600):
        assert worker.run_after(1) == 0
        assert worker.primary == "third"
    assert store.looks <= 3 * 20
    assert worker.told == ["flip_waits"]
    store.fault = None
    assert sum(worker.run_after(1) for _ in range(61)) == 1
    assert (worker.flip.state, store.primary) == ("confirmed", "third")


def test_a_store_that_asks_to_be_left_alone_is_left_alone(worker: FlipWorker, store: FakeStore) -> None:
    """One call, and the next after the time it said."""
    store.faults = [FlagUnavailableError("too many requests", retry_after_s=120)]
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    for _ in range(11):
        assert worker.run_after(10) == 0
    assert store.looks == 1
    assert worker.run_after(10.1) == 1


def test_a_refusal_is_tried_five_times_and_then_told_and_the_override_stays_for_the_incident(
    worker: FlipWorker, store: FakeStore
) -> None:
    """401, 403, 404, 422: payments are away from the failing provider without the flag."""
    store.fault = FlagWriteError("403: the token may not write")
    worker.go(State.OPEN)
    worker.clock.advance(60)
    for _ in range(120):
        worker.run_after(1)
    assert store.looks == REFUSALS
    assert (worker.flip.state, worker.flip.cause) == ("failed", "403: the token may not write")
    assert (worker.told, worker.primary) == (["flip_failed"], "third")
    worker.go(State.CLOSED)
    worker.run_after(299)
    assert worker.primary == "third"
    worker.run_after(1)
    assert (worker.primary, worker.flip.state) == ("stripe", "failed")


def test_a_write_that_is_refused_is_no_write(worker: FlipWorker, store: FakeStore) -> None:
    """The record says that nothing was sent that could have been done: what the flag shows next is a person's."""

    def refuse() -> None:
        raise FlagWriteError("403: the token may not write")

    store.before_move = refuse
    worker.go(State.OPEN)
    worker.run_after(60)
    for _ in range(10):
        worker.run_after(20)
    assert (worker.flip.state, worker.flip.cause) == ("failed", "403: the token may not write")
    assert not worker.flip.was_sent


def test_without_a_token_the_flip_is_failed_and_the_override_holds(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """For the incident."""
    worker = FlipWorker(database, clock, store.source, None)
    worker.go(State.OPEN)
    worker.run_after(60)
    assert (worker.flip.state, worker.primary, worker.told) == ("failed", "third", ["flip_failed"])
    assert "no API token" in (worker.flip.cause or "")
    worker.go(State.CLOSED)
    worker.run_after(300)
    assert worker.primary == "stripe"


def test_a_flag_that_is_off_cannot_be_moved(worker: FlipWorker, store: FakeStore) -> None:
    """Serving the failing provider to everyone, it is overridden; serving another, it is as a person wants it."""
    store.is_on = False
    worker.go(State.OPEN)
    worker.run_after(60)
    assert (worker.flip.state, worker.primary, store.moves) == ("failed", "third", [])
    assert "the flag is off" in (worker.flip.cause or "")


def test_where_approval_is_needed_it_is_asked_for_and_the_override_stays(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Once; the approved change is the flip's own."""
    store.needs_approval = True
    worker.go(State.OPEN)
    for _ in range(10):
        assert worker.run_after(60) == 0
    assert (worker.flip.state, worker.flip.approval, worker.primary) == ("needs approval", "request-1", "third")
    assert store.asked == {"request-1": Serves("third")}
    assert worker.told == ["flip_needs_approval"]
    store.approve("request-1")
    assert worker.run_after(30) == 1
    assert (worker.flip.state, store.primary) == ("confirmed", "third")


def test_an_approval_that_did_not_come_in_time_is_taken_back(worker: FlipWorker, store: FakeStore) -> None:
    """Granted tomorrow, it would move everyone for no reason. A store that is away is asked to again."""
    store.needs_approval = True
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.go(State.CLOSED)
    store.fault = AWAY
    worker.run_after(300)
    assert (worker.flip.state, worker.primary) == ("needs approval", "stripe")
    store.fault = None
    worker.run_after(60)
    assert (worker.flip.state, store.withdrawn) == ("superseded", ["request-1"])


def test_a_request_whose_answer_is_lost_is_found_again_and_not_filed_twice(
    worker: FlipWorker, store: FakeStore
) -> None:
    """One that nobody has on record would stay open for somebody to approve next week."""
    store.needs_approval, store.lost_answers = True, 2
    worker.go(State.OPEN)
    worker.run_after(60)
    assert (worker.flip.state, worker.flip.approval, list(store.asked)) == (
        "needs approval",
        "request-1",
        ["request-1"],
    )
    assert worker.told == ["flip_needs_approval"]
    worker.go(State.CLOSED)
    worker.run_after(300)
    assert (worker.flip.state, list(store.asked)) == ("superseded", [])


def test_a_request_whose_answer_is_lost_is_taken_back_with_its_flip(worker: FlipWorker, store: FakeStore) -> None:
    """Although its id was never on record."""
    real = store.ask_approval

    def lose(key: str, to: Serves, *, comment: str, pins: tuple[str, str] | None = None) -> str:
        real(key, to, comment=comment, pins=pins)
        store.fault = AWAY
        raise AWAY

    store.needs_approval = True
    store.ask_approval = lose  # type: ignore[method-assign] # the one answer that is lost
    worker.go(State.OPEN)
    worker.run_after(60)
    assert (worker.flip.state, worker.flip.approval) == ("needs approval", None)
    worker.go(State.CLOSED)
    store.fault = None
    worker.run_after(300)
    assert (worker.flip.state, list(store.asked)) == ("superseded", [])


@pytest.mark.parametrize("answer", ["declined", "gone"])
def test_a_person_who_declines_has_decided(worker: FlipWorker, store: FakeStore, answer: str) -> None:
    """Or deletes the request: the override ends, and the incident is theirs."""
    store.needs_approval = True
    worker.go(State.OPEN)
    worker.run_after(60)
    store.decline("request-1")
    if answer == "gone":
        del store.answered["request-1"]
    worker.run_after(30)
    assert (worker.flip.state, worker.primary) == ("superseded", "stripe")
    assert worker.flip.cause == f"by a person: the approval request request-1 is {answer}"
    assert worker.told == ["flip_needs_approval", "flip_superseded"]


def test_what_people_are_asked_to_approve_holds_the_pins_where_these_are_moved(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """What the record says was moved was."""
    store.needs_approval = True
    store.pins = {"stripe": ("rule `vip customers`",)}
    worker = FlipWorker(database, clock, store.source, store, moves_pins=True)
    worker.go(State.OPEN)
    worker.run_after(60)
    store.approve("request-1")
    worker.run_after(30)
    assert (worker.flip.state, store.pins) == ("confirmed", {"third": ("rule `vip customers`",)})
    assert worker.flip.evidence["pins_moved"] is True


def test_a_person_who_decides_otherwise_than_asked_has_decided(worker: FlipWorker, store: FakeStore) -> None:
    """The request is taken back."""
    store.needs_approval = True
    worker.go(State.OPEN)
    worker.run_after(60)
    store.set("adyen")
    worker.run_after(30)
    assert (worker.flip.state, worker.primary, store.withdrawn) == ("superseded", "adyen", ["request-1"])


def test_a_write_whose_answer_is_lost_is_found_done(worker: FlipWorker, store: FakeStore) -> None:
    """One write, in the same round."""
    store.lost_answers = 1
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert (worker.flip.state, len(store.moves)) == ("confirmed", 1)


@pytest.mark.parametrize("is_done", [False, True])
def test_a_write_that_timed_out_may_be_done_late_and_is_waited_for(
    worker: FlipWorker, store: FakeStore, is_done: bool
) -> None:
    """Half a minute, with the override ended at once; it was sent, and the record goes on saying so."""

    def hang() -> None:
        raise AWAY

    store.before_move = hang
    worker.go(State.OPEN)
    worker.run_after(60)
    sent_at = worker.flip.requested_at
    assert (worker.flip.state, bool(worker.override.in_force)) == ("requested", True)
    store.before_move = None
    store.source.flags = dataclasses.replace(store.source.flags, auto_flip_enabled=False)
    worker.run_after(3)
    assert (worker.flip.state, bool(worker.override.in_force)) == ("requested", False)
    if is_done:
        store.set("third")
    worker.run_after(30)
    assert (worker.flip.state, worker.flip.requested_at) == ("confirmed" if is_done else "superseded", sent_at)


# ---------------------------------------------------------------- waiting


@pytest.fixture
def waiting(worker: FlipWorker, store: FakeStore) -> FlipWorker:
    """A flip was decided, to `third`, and the store was away; it is back."""
    store.fault = AWAY
    worker.go(State.OPEN)
    assert worker.run_after(61) == 0
    store.fault = None
    return worker


@pytest.mark.parametrize("meanwhile", ["the incident ended", "a new one began", "flips were switched off"])
def test_a_flip_that_could_not_be_written_while_it_mattered_is_not_written_later(
    waiting: FlipWorker, store: FakeStore, meanwhile: str
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
            store.source.flags = dataclasses.replace(store.source.flags, auto_flip_enabled=False)
    assert waiting.run_after(1) == 0
    assert waiting.rows()[-1].state == "superseded"
    assert (store.primary, waiting.primary) == ("stripe", "stripe")
    store.source.flags = dataclasses.replace(store.source.flags, auto_flip_enabled=True)
    assert waiting.run_after(1) == 0
    assert store.moves == []


@pytest.mark.parametrize("through", [State.SLOW_START, State.CLOSED, State.FORCED_OPEN])
def test_a_flip_that_is_not_wanted_for_a_moment_waits_for_its_incident(
    waiting: FlipWorker, store: FakeStore, through: State
) -> None:
    """One round in slow start took the incident its flip; the override holds."""
    waiting.go(through, after_s=1)
    assert waiting.run_after(1) == 0
    assert (waiting.flip.state, waiting.primary) == ("overriding", "third")
    waiting.go(State.OPEN, after_s=3)
    assert waiting.run_after(60) == 1
    assert (waiting.flip.state, store.primary) == ("confirmed", "third")
    assert waiting.flip.evidence["open_seconds"] == 61
    open_s = 126 if through is State.SLOW_START else 122
    assert waiting.flip.evidence["open_seconds_at_write"] == pytest.approx(open_s, abs=2)


def test_a_flip_whose_only_target_is_suspect_waits_until_it_is_not(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """One round of it took the incident its flip."""
    worker = FlipWorker(database, clock, store.source, store, names=("stripe", "adyen"))
    worker.go(State.OPEN)
    store.fault = AWAY
    assert worker.run_after(60) == 0
    store.fault = None
    marked = following(
        None, State.CLOSED, provider="adyen", at=clock.now(), actor="a", reason="suspect", suspect=True
    )
    assert worker.health.propose(marked)
    assert worker.run_after(10) == 0
    assert [flip.state for flip in worker.rows()] == ["overriding"]
    calm = following(marked, State.CLOSED, provider="adyen", at=clock.now(), actor="a", reason="calm")
    assert worker.health.propose(calm)
    assert worker.run_after(10) == 1
    assert store.primary == "adyen"


def test_a_waiting_flip_goes_to_another_target_when_its_own_has_failed(waiting: FlipWorker, store: FakeStore) -> None:
    """And the record and the override name where it went, and those that it was chosen from."""
    waiting.go(State.OPEN, provider="third")
    assert waiting.run_after(10) == 1
    assert (waiting.flip.state, waiting.flip.to_value, store.primary) == ("confirmed", "adyen", "adyen")
    assert [each["provider"] for each in waiting.flip.evidence["candidates"]] == ["adyen"]


def test_a_waiting_flip_is_dropped_when_a_person_moves_the_flag(waiting: FlipWorker, store: FakeStore) -> None:
    """However briefly: the incident is theirs from then on."""
    store.set("adyen")
    waiting.clock.advance(0.5)
    store.set("stripe")
    assert waiting.run_after(0.5) == 0
    assert (waiting.flip.state, waiting.primary) == ("superseded", "stripe")
    assert waiting.run_after(600) == 0
    assert store.moves == []


def in_doubt(worker: FlipWorker, store: FakeStore, *, is_written: bool) -> None:
    """A flip whose write was lost, or only its answer, and whose incident has ended; the store is away since."""

    def lose() -> None:
        store.before_move = None
        if is_written:
            store.set("third")
        store.fault = AWAY
        raise AWAY

    store.source.stalled = True
    store.before_move = lose
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.go(State.CLOSED)
    worker.run_after(301)
    assert (worker.flip.state, worker.override.in_force) == ("requested", [])


@pytest.mark.parametrize("is_written", [False, True])
def test_a_write_in_doubt_of_an_incident_that_is_over_keeps_no_override_from_the_next_one(
    worker: FlipWorker, store: FakeStore, is_written: bool
) -> None:
    """Nobody was told, and payments led to the failing provider for as long as the store was away."""
    in_doubt(worker, store, is_written=is_written)
    worker.go(State.OPEN)
    worker.run_after(60)
    assert ([flip.state for flip in worker.rows()], worker.primary) == (["overriding", "requested"], "third")
    store.fault, store.source.stalled = None, False
    for _ in range(120):
        worker.run_after(1)
    assert (store.primary, worker.primary) == ("third", "third")
    # One of them has moved it, and is on record as the one that did.
    expected = ["superseded", "confirmed"] if is_written else ["confirmed", "superseded"]
    assert [flip.state for flip in worker.rows()] == expected
    assert not worker.override.in_force


def test_a_flip_in_doubt_does_not_take_another_flips_write_for_its_own(worker: FlipWorker, store: FakeStore) -> None:
    """It looks when its time has come: then the next incident's flip has made the very same change."""
    in_doubt(worker, store, is_written=False)
    (first,) = worker.rows()
    worker.flips.change(
        worker.flips.take(first, "t", now=worker.clock.now(), until=worker.clock.now()) or first,
        at=worker.clock.now(),
        next_try_at=worker.clock.now() + dt.timedelta(seconds=600),
    )
    worker.go(State.OPEN)
    store.fault = None
    assert worker.run_after(60) == 1
    assert worker.run_after(600) == 0
    second, first = worker.rows()
    assert (second.state, first.state) == ("confirmed", "superseded")
    assert first.cause == f"the flag serves third by {second.id}"


# ---------------------------------------------------------------- the override


def test_the_override_is_dropped_when_the_flag_itself_is_seen_to_serve_the_target(
    worker: FlipWorker, store: FakeStore
) -> None:
    """And a stream that stalls keeps it; so does one that is back, until every other process may be on its own."""
    store.source.stalled = True
    store.source.read(FlagContext())
    store.source.state = "interrupted"
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    for _ in range(20):
        worker.run_after(10)
        assert worker.primary == "third"
    store.source.stalled, store.source.state = False, "valid"
    worker.run_after(34)
    assert worker.override.in_force
    worker.run_after(1)
    assert not worker.override.in_force
    assert worker.primary == "third"
    store.set("stripe")
    assert worker.primary == "stripe"


@pytest.mark.parametrize("by", ["a person, who is not heard of", "another process"])
def test_of_a_rollout_the_override_stays_until_a_stream_has_told_the_change(
    database: Database, store: FakeStore, clock: ManualClock, by: str
) -> None:
    """What the worker is served says nothing: its own share is another provider's, before as after."""
    told: list[Told] = []
    store.serves = before = Serves(weights={"adyen": 60_000, "stripe": 40_000})
    worker = FlipWorker(database, clock, store.source, store, changes=lambda _key, _since: told)
    store.source.read(FlagContext())
    store.source.stalled = True
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.run_after(SEEN_AFTER_S)
    worker.run_after(60)
    flags, _ = worker.override.apply(RoutingFlags(primary="stripe"))
    assert flags.primary == "third"
    if by == "another process":
        told = store.audit
        worker.run_after(0.5)
    else:
        store.set(before)
        worker.clock.advance(LOOK_AGAIN_S)
    worker.run_after(0.5)
    assert not worker.override.in_force


def test_a_worker_that_begins_during_a_flip_drops_its_override_late(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Whether the flag store was away before, and other processes may be without a stream still, it cannot know."""
    first = FlipWorker(database, clock, store.source, store)
    first.go(State.OPEN)
    assert first.run_after(60) == 1
    first.run_after(1)
    second = FlipWorker(database, clock, store.source, store)
    second.run_after(34)
    assert second.override.in_force
    second.run_after(1)
    assert not second.override.in_force


@pytest.mark.parametrize("state", ["valid", "interrupted"])
def test_a_stream_that_tells_nothing_keeps_the_override_while_the_flag_holds_what_was_written(
    worker: FlipWorker, store: FakeStore, state: Literal["valid", "interrupted"]
) -> None:
    """A stream that is silently stalled says that it is well for five minutes. One look in half a minute."""
    store.source.stalled = True
    store.source.read(FlagContext())
    store.source.state = state
    worker.go(State.OPEN)
    worker.run_after(60)
    looks = store.looks
    for _ in range(100):
        worker.run_after(3)
        assert worker.primary == "third"
    assert store.looks - looks == 10
    store.fault = AWAY
    worker.run_after(LOOK_AGAIN_S)
    assert (worker.primary, worker.flip.state, worker.flip.cause) == ("third", "confirmed", None)


@pytest.mark.parametrize("to", ["stripe", "adyen"])
def test_a_person_whom_no_stream_has_told_of_ends_the_override_within_half_a_minute(
    database: Database, store: FakeStore, clock: ManualClock, to: str
) -> None:
    """Where the flag sends payments to the failing provider again; to another one, its stream will tell."""
    worker = FlipWorker(database, clock, store.source, store)
    store.source.stalled = True
    worker.go(State.OPEN)
    worker.run_after(60)
    store.set(to)
    worker.run_after(UNHEARD_AFTER_S - 1)
    assert worker.override.in_force
    worker.run_after(1)
    assert bool(worker.override.in_force) == (to == "adyen")


def test_the_override_outlasts_the_write_by_what_other_processes_need_to_hear_of_it(
    worker: FlipWorker, store: FakeStore
) -> None:
    """The worker's own stream is no proof: another process's may just be opened again."""
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.run_after(SEEN_AFTER_S - 0.1)
    flags, _ = worker.override.apply(RoutingFlags(primary="stripe"))
    assert flags.primary == "third"
    worker.run_after(0.1)
    assert not worker.override.in_force


@pytest.mark.parametrize("mode", [State.BYPASS, State.METRICS_ONLY])
@pytest.mark.parametrize("has_token", [False, True])
def test_an_operator_who_lets_everything_through_ends_the_override(
    database: Database, store: FakeStore, clock: ManualClock, mode: State, has_token: bool
) -> None:
    """Such a circuit never closes: an override that waited for the incident's end would stay for ever."""
    store.fault = AWAY
    worker = FlipWorker(database, clock, store.source, store if has_token else None, changes=store.changes)
    worker.go(State.OPEN)
    worker.run_after(60)
    assert worker.primary == "third"
    worker.go(mode, after_s=1)
    worker.run_after(0.5)
    assert (worker.flip.state, worker.primary) == ("superseded" if has_token else "failed", "stripe")


def test_an_override_that_outlived_its_flip_is_ended(worker: FlipWorker, store: FakeStore) -> None:
    """A worker of the version before knows no overrides, and ends flips without them."""
    store.fault = AWAY
    worker.go(State.OPEN)
    worker.run_after(60)
    with worker.database.write() as connection:
        connection.execute(tables.flips.update().values(state="superseded"))
    assert worker.override.in_force
    worker.run_after(0.5)
    assert (worker.flip.state, worker.primary) == ("superseded", "stripe")


@pytest.mark.parametrize("state", ["valid", "interrupted"])
def test_a_person_who_sets_the_flag_back_ends_the_override_in_the_next_round(
    worker: FlipWorker, store: FakeStore, state: Literal["valid", "interrupted"]
) -> None:
    """Within the two seconds after the write, and where the stream of this worker is interrupted."""
    store.source.stalled = state == "interrupted"
    store.source.read(FlagContext())
    store.source.state = state
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.clock.advance(1.5)
    store.set("stripe")
    assert worker.run_after(0.5) == 0
    assert (worker.flip.state, worker.primary) == ("confirmed", "stripe")
    assert not worker.override.in_force


def test_flips_switched_off_end_the_override_of_a_flip_that_was_written(worker: FlipWorker, store: FakeStore) -> None:
    """It is the switch by which a team stops the machine."""
    store.source.stalled = True
    store.source.read(FlagContext())
    store.source.state = "interrupted"
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    store.source.flags = dataclasses.replace(store.source.flags, auto_flip_enabled=False)
    worker.run_after(0.5)
    assert not worker.override.in_force


def test_a_person_is_obeyed_while_it_is_in_doubt_whether_the_write_was_done(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Only the override ends: the record waits for a look at the flag."""

    def lose() -> None:
        store.before_move = None
        store.set("third")
        store.fault = AWAY
        raise AWAY

    store.before_move = lose
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.run_after(5)
    assert (worker.flip.state, bool(worker.override.in_force)) == ("requested", True)
    store.set("stripe")
    worker.run_after(0.5)
    assert (worker.flip.state, worker.primary) == ("requested", "stripe")
    assert not worker.override.in_force
    store.fault = None
    worker.run_after(60)
    assert (worker.flip.state, store.primary) == ("superseded", "stripe")


# ---------------------------------------------------------------- crashes


class _Dead(BaseException):
    """The process is gone."""


def _dies_at(worker: FlipWorker, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    """The worker dies just before its nth commit or call of the store, and does nothing after that."""
    steps = itertools.count(1)

    def guard(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **named: object) -> object:
            if next(steps) >= nth:
                raise _Dead
            return real(*args, **named)

        return step

    flips = worker.flips
    for name in ("claim", "take", "change", "release"):
        monkeypatch.setattr(flips, name, guard(getattr(flips, name)))
    assert worker.mover is not None
    dying = _Dying(worker.mover, guard)
    monkeypatch.setattr(worker.writing, "_mover", dying)


class _Dying:
    """A way to the store that ends with its process: before the call, or between the call and its answer."""

    def __init__(self, mover: object, guard: Callable[[Callable[..., object]], Callable[..., object]]) -> None:
        for name in ("look", "move", "ask_approval", "approval", "pending_approvals", "withdraw"):
            setattr(self, name, self._both(getattr(mover, name), guard))

    def _both(
        self, real: Callable[..., object], guard: Callable[[Callable[..., object]], Callable[..., object]]
    ) -> Callable[..., object]:
        before, after = guard(real), guard(lambda answer: answer)
        return lambda *args, **named: after(before(*args, **named))


@pytest.mark.parametrize("nth", range(1, 11))
@pytest.mark.parametrize("person", [None, "adyen"])
def test_a_worker_that_dies_between_any_two_steps_is_followed_by_one_that_finds_out(
    worker: FlipWorker, store: FakeStore, monkeypatch: pytest.MonkeyPatch, nth: int, person: str | None
) -> None:
    """One write in all, or none where a person came first; the record says which, and no override is left behind."""
    worker.go(State.OPEN)
    worker.clock.advance(60)
    with monkeypatch.context() as patch:
        _dies_at(worker, patch, nth)
        try:
            worker.run_once()
        except _Dead:
            pass
        else:
            assert nth > 8, "it should have died"
    if person is not None:
        store.set(person)
    second = another(worker, store)
    second.run_after(1)
    second.run_after(LEASE_S)
    second.run_after(5)
    assert len(store.moves) <= 1
    expected = person or "third"
    assert (store.primary, second.primary) == (expected, expected)
    assert not second.override.in_force
    states = [flip.state for flip in second.rows()]
    if person is None:
        assert states == ["confirmed"]
        assert len(store.moves) == 1
    else:
        # Before the claim there is nothing to supersede; after the confirmation the person's change is another one.
        assert states in ([], ["superseded"], ["confirmed"])


def test_a_worker_that_was_paused_past_its_lease_writes_nothing_and_records_nothing(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Another one has carried the flip on meanwhile."""
    second = another(worker, store)

    def pause() -> None:
        store.before_move = None
        worker.clock.advance(LEASE_S + 1)
        assert second.run_once() == 1

    store.before_move = pause
    worker.go(State.OPEN)
    second.health.sync_once()
    assert worker.run_after(60) == 0
    assert (len(store.moves), worker.flip.state, store.primary) == (1, "confirmed", "third")


# ---------------------------------------------------------------- several workers


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_at_once_make_one_flip_and_one_write(worker: FlipWorker, store: FakeStore, workers: int) -> None:
    """Real threads over one ledger, five incidents: each is flipped by one of them."""
    crowd = [worker, *(another(worker, store) for _ in range(workers - 1))]
    for incident in range(1, 6):
        store.set("stripe")
        worker.go(State.OPEN, after_s=300)
        worker.clock.advance(60)
        for each in crowd:
            each.health.sync_once()
        for _ in range(3):
            together([each.run_once for each in crowd])
            worker.clock.advance(3)
        assert len(store.moves) == len(worker.rows()) == incident
        assert {flip.state for flip in worker.rows()} == {"confirmed"}
        worker.go(State.CLOSED)


def test_a_flip_that_has_ended_stays_as_it_ended(worker: FlipWorker, store: FakeStore) -> None:
    """Nobody carries it on, and an operator's restore of it is another matter."""
    worker.go(State.OPEN)
    worker.run_after(60)
    worker.run_after(5)
    calls = store.calls
    for _ in range(10):
        worker.run_after(60)
    assert (worker.flip.state, store.calls) == ("confirmed", calls)
    assert worker.flips.tasks("anyone", worker.clock.now()) == []


# ---------------------------------------------------------------- with the real flags file


def test_with_the_flags_file_the_flip_is_seen_by_those_who_read_it(database: Database, tmp_path: Path) -> None:
    """The real mover and the real reader: payments follow within a second, and a person's edit afterwards stands."""
    path, names = tmp_path / "flags.json", ("stripe", "adyen")
    complete_file(path, names)
    source = FileFlags(path, names, report=lambda _wrong: None, poll_interval_s=0.02)
    try:
        hand = FileFlagWriter(path, names)
        worker = FlipWorker(database, ManualClock(), source, FileFlagMover(path, names), names=names)
        worker.go(State.OPEN)
        assert worker.run_after(59) == 0
        assert worker.run_after(1) == 1
        assert hand.current(PRIMARY_PROVIDER) == "adyen"
        assert "inc_stripe_1" in path.read_text()
        _wait_for_primary(source, "adyen")
        worker.run_after(5)
        assert not worker.override.in_force
        assert hand.set(PRIMARY_PROVIDER, "stripe", expected=None, comment="a person")
        _wait_for_primary(source, "stripe")
        assert worker.run_after(600) == 0
        assert hand.current(PRIMARY_PROVIDER) == "stripe"
    finally:
        source.close()


def _wait_for_primary(source: FlagSource, primary: str) -> None:
    until = time.monotonic() + 5
    while source.read(FlagContext()).primary != primary:
        assert time.monotonic() < until, f"the primary did not become {primary}"
        time.sleep(0.01)
