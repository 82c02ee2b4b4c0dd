"""Undoing a flip: by a person or by the machine, and only while nobody has touched the flag since."""

from __future__ import annotations

from typing import Literal

import pytest

from flags.contract import FlagChangedError, FlagContext, FlagUnavailableError, FlagWriteError, RoutingFlags, Serves
from router.clock import ManualClock
from router.flip_restoring import TOUCHED
from router.flip_rules import Limits
from router.flip_writing import LEASE_S, REFUSALS
from router.ledger.engine import Database
from router.ledger.flips import RestoreRefusedError
from router.transitions import State, following
from tests.fakes.flags import FakeStore
from tests.fakes.flips import FlipWorker


@pytest.fixture
def store() -> FakeStore:
    return FakeStore(ManualClock())


def flipped(
    database: Database,
    store: FakeStore,
    *,
    restore: Literal["manual", "automatic"] = "manual",
    limits: Limits = Limits(600, 3),  # noqa: B008 - frozen
) -> FlipWorker:
    """A worker whose flip to `third` is confirmed; its provider has just been closed again."""
    worker = FlipWorker(
        database,
        store.clock,
        store.source,
        store,
        limits=limits,
        changes=store.changes,
        restore=restore,
    )
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.run_after(5)
    worker.go(State.CLOSED)
    return worker


def ask(worker: FlipWorker, reason: str = "stripe is well") -> None:
    """A person asks for it."""
    assert worker.flips.ask_restore(worker.flip.id, by="operator: jo", reason=reason, at=worker.clock.now())


def test_a_person_has_the_flag_set_back_at_once(database: Database, store: FakeStore) -> None:
    """Without waiting for the cooldown; to what it served before, a rollout too, with who and why in the comment."""
    before = Serves(weights={"stripe": 90_000, "adyen": 10_000})
    store.serves = before
    worker = flipped(database, store)
    assert store.serves == Serves(weights={"adyen": 10_000, "third": 90_000})
    ask(worker)
    assert worker.run_after(1) == 1
    flip = worker.flip
    assert (flip.state, flip.restored_at, store.serves) == ("restored", worker.clock.now(), before)
    assert store.moves[1][1] == "restore of flip_1, incident inc_stripe_1: stripe is well (operator: jo)"
    assert worker.told == ["flip_confirmed", "restored"]
    assert worker.run_after(60) == 0


def test_a_flag_that_somebody_touched_since_is_left_alone(database: Database, store: FakeStore) -> None:
    """Even where it serves the flip's value again: whoever did that decides. Asked again, it is told again."""
    worker = flipped(database, store)
    store.set("adyen")
    store.set("third")
    ask(worker)
    assert worker.run_after(1) == 0
    assert (worker.flip.state, worker.flip.cause) == ("confirmed", TOUCHED)
    assert worker.flip.restore_at is None
    assert (store.primary, len(store.moves)) == ("third", 1)
    ask(worker, "really")
    assert worker.run_after(1) == 0
    assert worker.told == ["flip_confirmed", "restore_failed", "restore_failed"]


@pytest.mark.parametrize("state", ["overriding", "failed", "requested", "needs approval", "confirmed"])
def test_a_persons_word_ends_the_override_at_once_while_the_store_is_away(
    database: Database, store: FakeStore, state: str
) -> None:
    """On-call needs no flag store for it. What was not written is superseded; the rest is undone when it is back."""
    away = FlagUnavailableError("away")
    store.source.stalled = True
    store.source.state = "interrupted"
    store.source.read(FlagContext())

    def hang() -> None:
        raise away

    match state:
        case "overriding":
            store.fault = away
        case "requested":
            store.before_move = hang
        case "needs approval":
            store.needs_approval = True
    mover = None if state == "failed" else store
    worker = FlipWorker(database, store.clock, store.source, mover, changes=store.changes)
    worker.go(State.OPEN)
    worker.run_after(60)
    assert (worker.flip.state, worker.primary) == (state, "third")
    store.before_move, store.fault = None, away
    ask(worker, "stop it")
    worker.override.refresh()
    assert worker.primary == "stripe"
    worker.run_after(30)
    if state in ("overriding", "failed"):
        assert (worker.flip.state, worker.flip.cause) == ("superseded", "stopped by operator: jo: stop it")
        with pytest.raises(RestoreRefusedError, match="is superseded"):
            ask(worker)
    store.fault = None
    worker.run_after(100)
    assert (store.primary, worker.primary, worker.flip.state) == (
        "stripe",
        "stripe",
        "restored" if state == "confirmed" else "superseded",
    )
    assert list(store.asked) == []


def test_a_person_stops_a_flip_whose_write_was_done(database: Database, store: FakeStore) -> None:
    """The flag is moved back when it is found that it was."""
    worker = FlipWorker(database, store.clock, store.source, store, changes=store.changes)

    def lose() -> None:
        store.before_move = None
        store.set("third")
        store.fault = FlagUnavailableError("away")
        raise store.fault

    store.before_move = lose
    worker.go(State.OPEN)
    worker.run_after(60)
    ask(worker, "stop it")
    store.fault = None
    worker.run_after(1)
    worker.run_after(1)
    assert (store.primary, worker.flip.state) == ("stripe", "restored")


def test_what_cannot_be_restored_says_why(database: Database, store: FakeStore) -> None:
    """Asked already, restored already, or never written."""
    worker = flipped(database, store)
    ask(worker)
    with pytest.raises(RestoreRefusedError, match="asked for already"):
        ask(worker)
    worker.run_after(1)
    with pytest.raises(RestoreRefusedError, match="has been restored"):
        ask(worker)
    assert worker.flips.ask_restore("flip_9", by="jo", reason="-", at=worker.clock.now()) is None


def test_a_restore_waits_for_a_store_that_is_away_and_gives_up_where_it_is_refused(
    database: Database, store: FakeStore
) -> None:
    """It stays confirmed, and the alert says so."""
    worker = flipped(database, store)
    store.fault = FlagUnavailableError("away")
    ask(worker)
    assert worker.run_after(1) == 0
    assert worker.flip.cause == "away"
    store.fault = FlagWriteError("403")
    for _ in range(REFUSALS + 1):
        assert worker.run_after(60) == 0
    given_up = worker.flip
    assert (given_up.state, given_up.cause, given_up.restore_at) == ("confirmed", "403", None)
    store.fault = None
    ask(worker)
    assert worker.run_after(1) == 1


@pytest.mark.parametrize("written", [False, True])
def test_a_worker_that_died_in_a_restore_is_followed(database: Database, store: FakeStore, written: bool) -> None:
    """By the flag's mark: it was written, and is on record, or it was not, and is."""
    worker = flipped(database, store)

    def die() -> None:
        raise SystemExit

    ask(worker)
    store.before_move = die
    with pytest.raises(SystemExit):
        worker.run_after(1)
    store.before_move = None
    if written:
        store.set("stripe")
    second = FlipWorker(database, store.clock, store.source, store)
    assert second.run_after(LEASE_S) == 1
    assert (second.flip.state, store.primary) == ("restored", "stripe")


def test_a_change_between_the_look_and_the_restore_stands(database: Database, store: FakeStore) -> None:
    """Nothing is written over it."""
    worker = flipped(database, store)

    def change() -> None:
        store.before_move = None
        store.set("adyen")
        raise FlagChangedError("changed")

    store.before_move = change
    ask(worker)
    assert worker.run_after(1) == 0
    assert (store.primary, worker.flip.state, worker.flip.cause) == ("adyen", "confirmed", TOUCHED)


def test_the_machine_restores_by_itself_after_half_an_hour_of_closed(database: Database, store: FakeStore) -> None:
    """And a mark of suspicion starts the half hour anew."""
    worker = flipped(database, store, restore="automatic")
    worker.run_after(1500)
    last = worker.health.snapshot("stripe").last
    for suspect in (True, False):
        last = following(
            last,
            State.CLOSED,
            provider="stripe",
            at=worker.clock.now(),
            actor="a",
            reason="calm or not",
            suspect=suspect,
        )
        assert worker.health.propose(last)
    assert worker.run_after(1799) == 0
    assert store.primary == "third"
    assert worker.run_after(1) == 1
    assert (worker.flip.state, worker.flip.restore_by, store.primary) == ("restored", "pointsman", "stripe")


@pytest.mark.parametrize("meanwhile", ["it fails again", "it is suspect", "flips are switched off", "it is disabled"])
def test_what_the_machine_asked_for_is_not_carried_out_where_it_is_no_longer_right(
    database: Database, store: FakeStore, meanwhile: str
) -> None:
    """The store was away in between. It is not used up by that: asked for again, half an hour after all is well."""
    worker = flipped(database, store, restore="automatic")
    store.fault = FlagUnavailableError("away")
    worker.run_after(1800)
    assert worker.flip.restore_at is not None
    store.fault = None
    flags = store.source.flags
    match meanwhile:
        case "it fails again":
            worker.go(State.OPEN)
        case "it is suspect":
            last = worker.health.snapshot("stripe").last
            at = worker.clock.now()
            assert worker.health.propose(
                following(last, State.CLOSED, provider="stripe", at=at, actor="a", reason="slow", suspect=True)
            )
        case "flips are switched off":
            store.source.flags = RoutingFlags(auto_flip_enabled=False)
        case _:
            store.source.flags = RoutingFlags(enabled={"stripe": False})
    assert worker.run_after(70) == 0
    assert (store.primary, worker.flip.state, worker.flip.restore_by) == ("third", "confirmed", None)
    assert worker.told == ["flip_confirmed"]
    store.source.flags = flags
    if meanwhile.startswith("it fails"):
        worker.go(State.CLOSED)
    elif meanwhile.startswith("it is suspect"):
        last = worker.health.snapshot("stripe").last
        at = worker.clock.now()
        assert worker.health.propose(
            following(last, State.CLOSED, provider="stripe", at=at, actor="a", reason="calm")
        )
    assert worker.run_after(1800) == 1
    assert (store.primary, worker.flip.state) == ("stripe", "restored")


def test_without_the_setting_the_flag_stays_until_a_person_says_so(database: Database, store: FakeStore) -> None:
    """For hours."""
    worker = flipped(database, store)
    for _ in range(20):
        assert worker.run_after(1800) == 0
    assert store.primary == "third"


def test_the_machine_asks_once_where_a_person_has_touched_the_flag(database: Database, store: FakeStore) -> None:
    """The flag is theirs."""
    worker = flipped(database, store, restore="automatic")
    store.set("adyen")
    for _ in range(5):
        assert worker.run_after(1800) == 0
    assert (store.primary, worker.flip.state, worker.told) == (
        "adyen",
        "confirmed",
        ["flip_confirmed", "restore_failed"],
    )


def test_the_machine_asks_again_an_hour_after_a_refusal(database: Database, store: FakeStore) -> None:
    """A token that was refused for some minutes is no reason to leave the flag for ever. It is told once."""
    worker = flipped(database, store, restore="automatic")

    def refuse() -> None:
        raise FlagWriteError("401")

    store.before_move = refuse
    worker.run_after(1800)
    for _ in range(10):
        worker.run_after(60)
    assert (worker.flip.restore_at, worker.flip.restore_by, worker.flip.cause) == (None, None, "401")
    store.before_move = None
    assert worker.run_after(2400) == 0
    assert worker.run_after(1200) == 1
    assert (store.primary, worker.flip.state) == ("stripe", "restored")
    assert worker.told == ["flip_confirmed", "restore_failed", "restored"]


def test_what_the_machine_may_not_restore_is_told_once_and_a_person_who_asks_is_answered(
    database: Database, store: FakeStore
) -> None:
    """It was told each hour, for as long as the flag needs approval."""
    worker = flipped(database, store, restore="automatic")
    store.needs_approval = True
    for _ in range(5 * 30):
        worker.run_after(120)
    assert worker.told == ["flip_confirmed", "restore_failed"]
    ask(worker)
    worker.run_after(1)
    assert worker.told == ["flip_confirmed", "restore_failed", "restore_failed"]


def test_the_machine_restores_nothing_before_the_incident_is_over(
    database: Database, store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incident has one flip: the flag would stay where it is if the provider failed again within five minutes."""
    worker = flipped(database, store, restore="automatic", limits=Limits(cooldown_s=0, per_hour=1000))
    monkeypatch.setattr(worker.flipper, "_restore_after_s", 60.0)
    assert worker.run_after(299) == 0
    assert (store.primary, worker.flip.restore_at) == ("third", None)
    assert worker.run_after(1) == 1
    assert store.primary == "stripe"


def test_a_chain_of_flips_is_restored_one_after_the_other(database: Database, store: FakeStore) -> None:
    """From stripe to third to adyen: to third when third is well, and to stripe when that is."""
    worker = flipped(database, store, restore="automatic")
    worker.go(State.OPEN)
    worker.go(State.OPEN, provider="third", after_s=600)
    assert worker.run_after(60) == 1
    assert store.primary == "adyen"
    worker.go(State.CLOSED, provider="third", after_s=10)
    assert worker.run_after(1800) == 1
    assert store.primary == "third"
    worker.go(State.CLOSED)
    assert worker.run_after(1800) == 1
    assert store.primary == "stripe"
    assert {flip.state for flip in worker.rows()} == {"restored"}


def test_a_flip_before_one_that_was_restored_is_not_where_a_person_was_between(
    database: Database, store: FakeStore
) -> None:
    """The flag was theirs before the later flip: what it serves again is not what the earlier one wrote."""
    worker = flipped(database, store, restore="automatic")
    store.set("adyen")
    store.set("third")
    worker.go(State.OPEN, provider="third", after_s=600)
    assert worker.run_after(60) == 1
    worker.go(State.CLOSED, provider="third", after_s=10)
    assert worker.run_after(1800) == 1
    for _ in range(5):
        assert worker.run_after(1800) == 0
    assert store.primary == "third"


def test_a_flip_that_brought_the_flag_back_by_itself_is_not_taken_back(database: Database, store: FakeStore) -> None:
    """From stripe to third, and, as third failed, to stripe again: that is what the team had set."""
    worker = flipped(database, store, restore="automatic")
    worker.go(State.OPEN, provider="adyen")
    worker.go(State.OPEN, provider="third", after_s=600)
    assert worker.run_after(60) == 1
    assert store.primary == "stripe"
    worker.go(State.CLOSED, provider="third", after_s=10)
    for _ in range(5):
        assert worker.run_after(1800) == 0
    assert store.primary == "stripe"
