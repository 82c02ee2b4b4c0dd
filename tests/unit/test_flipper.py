"""Moving the primary flag after an outage that lasts: when, whether, to whom, and what the record says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools

import pytest
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from flags.contract import PRIMARY_PROVIDER, FlagUnavailableError, RoutingFlags, RoutingTuning, Serves
from flags.definitions import definitions
from flags.document import new_document
from flags.watching import WatchedStore
from providers.contract import Health
from router.clock import ManualClock
from router.flag_watch import FlagWatch
from router.flip_rules import Limits
from router.ledger.engine import Database
from router.ledger.flag_values import FlagValueLedger
from router.scores import PRIOR_APPROVAL, PRIOR_AVAILABILITY
from router.transitions import State
from tests.fakes.clocks import SteppedClock
from tests.fakes.flags import FakeStore, Told
from tests.fakes.flips import NAMES, FlipWorker
from tests.fakes.house import teach


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> FakeStore:
    return FakeStore(clock)


@pytest.fixture
def worker(database: Database, store: FakeStore, clock: ManualClock) -> FlipWorker:
    return FlipWorker(database, clock, store.source, store)


# ---------------------------------------------------------------- when


def test_the_flag_is_moved_once_when_the_open_time_is_reached_and_not_before(
    worker: FlipWorker, store: FakeStore
) -> None:
    """Sixty seconds mean sixty seconds; afterwards nothing more happens in this incident."""
    worker.go(State.OPEN)
    assert worker.run_after(59.9) == 0
    assert worker.run_after(0.1) == 1
    assert store.primary == "third"
    for _ in range(5):
        assert worker.run_after(30) == 0
    assert len(store.moves) == 1
    assert len(worker.rows()) == 1


@pytest.mark.parametrize("step_s", [-60, 60])
def test_a_step_of_the_wall_clock_neither_flips_nor_keeps_from_it(
    database: Database, store: FakeStore, step_s: float
) -> None:
    """Sixty seconds of outage are sixty seconds, whatever a time server does meanwhile."""
    clock = SteppedClock()
    store = FakeStore(clock)
    worker = FlipWorker(database, clock, store.source, store)
    worker.go(State.OPEN)
    clock.step_wall(step_s)
    assert worker.run_after(1) == 0
    assert worker.run_after(58.9) == 0
    assert worker.run_after(0.1) == 1
    assert worker.rows()[0].evidence["open_seconds"] == pytest.approx(60)


def test_failed_rounds_of_probes_do_not_start_the_count_anew(worker: FlipWorker) -> None:
    """Half-open is not closed: 25 s open, 10 s probing, 25 s open again are a minute."""
    worker.go(State.OPEN)
    worker.go(State.HALF_OPEN, after_s=25)
    worker.go(State.OPEN, after_s=10)
    assert worker.run_after(24.9) == 0
    assert worker.run_after(0.2) == 1


def test_short_closings_are_left_out_of_the_count_but_do_not_start_it_anew(worker: FlipWorker) -> None:
    """A provider that flaps, 20 s down and 20 s up, is flipped away from in its third minute of it."""
    for _ in range(2):
        worker.go(State.OPEN, after_s=20)
        assert worker.run_after() == 0
        worker.go(State.CLOSED, after_s=20)
        assert worker.run_after() == 0
    worker.go(State.OPEN, after_s=20)
    assert worker.run_after(19.9) == 0
    assert worker.run_after(0.2) == 1


def test_a_circuit_that_is_closed_now_is_not_flipped_away_from(worker: FlipWorker) -> None:
    """It was open for long enough, but payments flow again."""
    worker.go(State.OPEN)
    worker.go(State.CLOSED, after_s=300)
    assert worker.run_after() == 0
    assert worker.rows() == []


def test_five_minutes_of_closed_start_the_count_anew(worker: FlipWorker) -> None:
    """Two outages of 40 s in one hour are two incidents, neither long enough."""
    for _ in range(2):
        worker.go(State.OPEN, after_s=300)
        assert worker.run_after(40) == 0
        worker.go(State.CLOSED)
    assert worker.rows() == []


# ---------------------------------------------------------------- whether


def test_a_team_that_switched_flips_off_is_obeyed(worker: FlipWorker, store: FakeStore) -> None:
    """And it takes effect in the incident when it is switched on again."""
    store.source.flags = RoutingFlags(auto_flip_enabled=False)
    worker.go(State.OPEN)
    assert worker.run_after(600) == 0
    assert (worker.rows(), store.calls) == ([], 0)
    store.source.flags = RoutingFlags()
    assert worker.run_after() == 1


def test_a_provider_that_is_not_the_primary_is_nobodys_concern(worker: FlipWorker, store: FakeStore) -> None:
    """The flag already points elsewhere."""
    store.set("adyen")
    worker.go(State.OPEN)
    assert worker.run_after(600) == 0
    assert (worker.rows(), store.moves) == ([], [])


def test_without_a_healthy_target_the_flag_stays(worker: FlipWorker, store: FakeStore) -> None:
    """Moving it from one broken provider to another helps nobody; once one recovers, it is moved there."""
    for name in NAMES:
        worker.go(State.OPEN, provider=name)
    assert worker.run_after(600) == 0
    assert worker.rows() == []
    worker.go(State.CLOSED, provider="adyen")
    assert worker.run_after() == 1
    assert store.primary == "adyen"


def test_a_store_that_is_away_keeps_nobody_on_the_failing_provider(worker: FlipWorker, store: FakeStore) -> None:
    """The override is in force at once; the flag follows when the store is back."""
    store.fault = FlagUnavailableError("the store is away")
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert (worker.flip.state, worker.primary, store.primary) == ("overriding", "third", "stripe")
    assert worker.told == ["flip_waits"]
    store.fault = None
    assert worker.run_after(60) == 1
    assert (worker.flip.state, worker.primary, store.primary) == ("confirmed", "third", "third")
    assert worker.told == ["flip_waits", "flip_confirmed"]


def test_a_missing_target_is_told_once_an_incident(worker: FlipWorker) -> None:
    """By whichever worker sees it."""
    for name in NAMES:
        worker.go(State.OPEN, provider=name)
    for _ in range(5):
        worker.run_after(60)
    assert worker.told == ["no_target"]


def test_a_rollout_moves_only_the_failing_providers_share(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Whom it sends elsewhere stays there, and the record says how many were moved."""
    store.serves = Serves(weights={"adyen": 70_000, "stripe": 30_000})
    worker = FlipWorker(database, clock, store.source, store)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert store.serves == Serves(weights={"adyen": 70_000, "third": 30_000})
    assert worker.flip.evidence["percent_moved"] == 30
    assert worker.flip.before == {"weights": {"adyen": 70_000, "stripe": 30_000}}


@pytest.mark.parametrize("moves_pins", [False, True])
def test_rules_and_targets_of_the_failing_provider_are_named_and_moved_only_where_the_setting_says_so(
    database: Database, store: FakeStore, clock: ManualClock, moves_pins: bool
) -> None:
    """In the record and in the alert."""
    store.pins = {"stripe": ("rule `vip customers`",), "adyen": ("target big-shop",)}
    worker = FlipWorker(database, clock, store.source, store, moves_pins=moves_pins)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert worker.flip.pins == ["rule `vip customers`"]
    assert store.moved_pins == [("stripe", "third") if moves_pins else None]
    (alert,) = worker.alerts.all()
    assert alert.detail["pins"] == ["rule `vip customers`"]
    assert ("still on stripe: rule `vip customers`" in alert.text) is not moves_pins


def test_an_alert_tells_the_record_as_it_is_with_what_it_tells(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Its state, cause and approval request; not those of the record before."""
    worker = FlipWorker(database, clock, store.source, store)
    store.needs_approval = True
    worker.go(State.OPEN)
    worker.run_after(60)
    asked = worker.flip
    store.approve("request-1")
    worker.run_after(31)
    worker.flips.ask_restore(asked.id, by="jo", reason="well", at=clock.now())
    store.needs_approval = False
    worker.run_after(1)
    told = [(each.detail["state"], each.detail["cause"], each.detail["approval"]) for each in worker.alerts.all()]
    assert asked.cause is not None
    assert told == [
        ("needs approval", asked.cause, "request-1"),
        ("confirmed", None, "request-1"),
        ("restored", None, "request-1"),
    ]


# ---------------------------------------------------------------- how often


def test_after_a_write_the_flag_is_left_alone_for_the_cooldown(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Another incident waits for it, with no override, and says so once."""
    worker = FlipWorker(database, clock, store.source, store, limits=Limits(cooldown_s=600, per_hour=3))
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.go(State.OPEN, provider="third")
    for _ in range(5):
        assert worker.run_after(60) == 0
    assert (worker.told, worker.primary) == (["flip_confirmed", "flip_held"], "third")
    assert worker.run_after(600 - 300) == 1
    assert store.primary == "adyen"


def test_the_limits_are_looked_at_where_the_flip_is_decided(
    database: Database, store: FakeStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers may both find that they may: of two incidents' flips the second one counts the first."""
    limits = Limits(cooldown_s=600, per_hour=3)
    worker = FlipWorker(database, clock, store.source, store, limits=limits)
    worker.go(State.OPEN)
    worker.go(State.OPEN, provider="third")
    assert worker.run_after(60) == 1
    assert store.primary == "adyen"
    store.set("third")
    writes = worker.flips.writes
    # As this worker saw it, before the other one's flip.
    monkeypatch.setattr(worker.flips, "writes", lambda _since: [])
    assert worker.run_after(60) == 0
    assert [flip.incident for flip in worker.rows()] == ["inc_stripe_1"]
    monkeypatch.setattr(worker.flips, "writes", writes)
    worker.run_after(1)
    assert worker.told == ["flip_confirmed", "flip_held"]


@pytest.mark.parametrize("has_token", [False, True])
def test_an_override_that_no_write_followed_counts_too(
    database: Database, store: FakeStore, clock: ManualClock, has_token: bool
) -> None:
    """It moves every payment as a write does. Without a token, or with a store that is away for the hour."""
    store.fault = FlagUnavailableError("the store is away")
    limits = Limits(cooldown_s=600, per_hour=3)
    worker = FlipWorker(database, clock, store.source, store if has_token else None, limits=limits)
    primaries = []
    for _ in range(10):
        worker.go(State.OPEN)
        worker.run_after(60)
        primaries.append(worker.primary)
        worker.go(State.CLOSED)
        worker.run_after(300)
        worker.run_after(0)
        assert worker.primary == "stripe"
    assert primaries.count("third") == 3
    began = [each.created_at for each in worker.rows()]
    assert all(later - earlier >= dt.timedelta(seconds=600) for later, earlier in itertools.pairwise(began))


def test_there_are_at_most_so_many_writes_an_hour(database: Database, store: FakeStore, clock: ManualClock) -> None:
    """The fourth of an hour is held, until the first of them is an hour old."""
    worker = FlipWorker(database, clock, store.source, store, limits=Limits(cooldown_s=0, per_hour=3))
    for _ in range(3):
        store.set("stripe")
        worker.go(State.OPEN)
        assert worker.run_after(60) == 1
        worker.go(State.CLOSED)
        worker.clock.advance(300)
    store.set("stripe")
    worker.go(State.OPEN)
    assert worker.run_after(60) == 0
    assert worker.told[-1] == "flip_held"
    assert worker.run_after(3600 - 3 * 360) == 1


# ---------------------------------------------------------------- people


def test_a_persons_change_during_the_incident_keeps_the_machine_from_flipping(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """There and back again: the flag serves what it did, and a person has decided that."""
    worker = FlipWorker(database, clock, store.source, store, changes=store.changes)
    worker.go(State.OPEN)
    clock.advance(10)
    store.set("adyen")
    clock.advance(10)
    store.set("stripe")
    for _ in range(3):
        assert worker.run_after(60) == 0
    assert (worker.flip.state, worker.primary, store.moves) == ("superseded", "stripe", [])
    assert worker.flip.cause is not None
    assert "a person changed payments-primary-provider at 00:00:20 (from adyen to stripe)" in worker.flip.cause
    assert worker.told == ["flip_superseded"]


def test_our_own_writes_are_no_persons_change(database: Database, store: FakeStore, clock: ManualClock) -> None:
    """The flip to `third` is told during the incident of `third`, and is not held against the next one."""
    worker = FlipWorker(database, clock, store.source, store, changes=store.changes)
    worker.go(State.OPEN)
    worker.go(State.OPEN, provider="third")
    worker.go(State.CLOSED, provider="third")
    assert worker.run_after(60) == 1
    assert store.primary == "third"
    worker.go(State.OPEN, provider="third", after_s=1)
    assert worker.run_after(60) == 1
    assert store.primary == "adyen"


def test_a_version_that_only_says_that_somebody_watches_events_is_no_persons_word(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """LaunchDarkly makes one for its own debugger, which people open in an outage. A new target is a word."""
    flags = new_document(definitions(NAMES).values())["flags"]
    stream, ledger = WatchedStore([PRIMARY_PROVIDER], now=clock.now), FlagValueLedger(database)
    watch = FlagWatch(stream, ledger, source="launchdarkly:x", seen_by="w", clock=clock)
    stream.init({FEATURES: flags, SEGMENTS: {}})
    watch.run_once()
    worker = FlipWorker(database, clock, store.source, store, changes=ledger.changes)
    store.fault = FlagUnavailableError("the store is away")
    worker.go(State.OPEN)
    clock.advance(10)
    watched = {**flags[PRIMARY_PROVIDER], "version": 2, "debugEventsUntilDate": 1_800_000_000_000}
    stream.upsert(FEATURES, watched)
    assert watch.run_once().written == 1
    worker.run_after(60)
    assert (worker.flip.state, worker.primary) == ("overriding", "third")
    target = {"contextKind": "merchant", "variation": 0, "values": ["m_1"]}
    stream.upsert(FEATURES, {**watched, "version": 3, "contextTargets": [target]})
    watch.run_once()
    worker.run_after(1)
    assert (worker.flip.state, worker.primary) == ("superseded", "stripe")


class Late:
    """The audit, told so much later: every process's stream was away."""

    def __init__(self, store: FakeStore, seconds: float) -> None:
        self._store = store
        self._late = dt.timedelta(seconds=seconds)

    def __call__(self, key: str, since: dt.datetime) -> list[Told]:
        told = (
            dataclasses.replace(each, at=each.at + self._late)
            for each in self._store.changes(key, dt.datetime.min.replace(tzinfo=dt.UTC))
        )
        return [each for each in told if since <= each.at <= self._store.clock.now()]


@pytest.mark.parametrize(("late_s", "is_ours"), [(300, True), (3700, False)])
def test_our_own_write_is_ours_however_late_the_streams_tell_it(
    database: Database, store: FakeStore, clock: ManualClock, late_s: float, is_ours: bool
) -> None:
    """It was taken for a person's, in the incident of the very provider that the flag had been moved to."""
    worker = FlipWorker(database, clock, store.source, store, changes=Late(store, late_s))
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    worker.go(State.OPEN, provider="third", after_s=late_s - 1)
    worker.run_after(60)
    assert (worker.rows()[0].state, store.primary) == (("confirmed", "adyen") if is_ours else ("superseded", "third"))


def test_a_persons_change_among_what_is_told_late_is_theirs(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Though they made it what our write had made it: they had undone that."""
    worker = FlipWorker(database, clock, store.source, store, changes=Late(store, 300))
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    clock.advance(20)
    store.set("stripe")
    clock.advance(1)
    store.set("third")
    # So late that of the three only the last one is told in the next incident.
    worker.go(State.OPEN, provider="third", after_s=299.5)
    worker.run_after(60)
    assert worker.rows()[0].state == "superseded"
    assert "(from stripe to third)" in (worker.rows()[0].cause or "")


def test_a_persons_change_before_the_incident_is_no_veto(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """However short a time before, and after a flip of ours: their word is for an incident that they knew of."""
    worker = FlipWorker(database, clock, store.source, store, changes=store.changes)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    clock.advance(20)
    store.set("adyen")
    worker.go(State.OPEN, provider="adyen", after_s=1)
    worker.run_after(60)
    assert (worker.rows()[0].state, store.primary) == ("confirmed", "third")
    assert worker.override.in_force
    # Nor is it one when the second flip's own change is told.
    worker.run_after(1)
    assert worker.override.in_force


def test_our_own_write_told_by_a_process_whose_clock_is_behind_is_ours(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """By up to five seconds: clocks that are kept differ by less."""

    def changes(key: str, since: dt.datetime) -> list[Told]:
        behind = dt.timedelta(seconds=4)
        return [dataclasses.replace(each, at=each.at - behind) for each in store.changes(key, since)]

    worker = FlipWorker(database, clock, store.source, store, changes=changes)
    worker.go(State.OPEN, provider="third")
    worker.go(State.CLOSED, provider="third", after_s=1)
    worker.go(State.OPEN, after_s=1)
    assert worker.run_after(60) == 1
    assert store.primary == "third"
    worker.go(State.OPEN, provider="third", after_s=1)
    assert worker.run_after(60) == 1
    assert store.primary == "adyen"


# ---------------------------------------------------------------- to whom


@pytest.mark.parametrize(
    ("disabled", "broken", "target"),
    [((), (), "third"), (("third",), (), "adyen"), ((), ("third",), "adyen"), (("adyen",), (), "third")],
)
def test_the_target_is_the_most_valuable_provider_that_is_enabled_and_closed(
    worker: FlipWorker,
    store: FakeStore,
    disabled: tuple[str, ...],
    broken: tuple[str, ...],
    target: str,
) -> None:
    """By fees on a typical payment `third` is the best; a kill switch or a circuit takes it out."""
    store.source.flags = RoutingFlags(enabled=dict.fromkeys(disabled, False))
    for name in broken:
        worker.go(State.OPEN, provider=name)
    worker.go(State.OPEN)
    assert worker.run_after(60) == 1
    assert store.primary == target


def test_a_target_that_is_only_half_open_is_not_chosen(worker: FlipWorker, store: FakeStore) -> None:
    """Its probes are not over."""
    worker.go(State.OPEN, provider="third")
    worker.go(State.HALF_OPEN, provider="third")
    worker.go(State.OPEN)
    worker.run_after(60)
    assert store.primary == "adyen"


def test_of_equally_valuable_targets_the_first_by_name_is_chosen(
    database: Database, store: FakeStore, clock: ManualClock
) -> None:
    """Every worker chooses the same."""
    worker = FlipWorker(database, clock, store.source, store, names=("stripe", "zebra", "beta", "gamma"))
    worker.go(State.OPEN)
    worker.run_after(60)
    assert store.primary == "beta"


# ---------------------------------------------------------------- the record


def test_the_record_explains_the_flip(worker: FlipWorker, store: FakeStore) -> None:
    """From, to, why, when, the window at the opening, the candidates with their values, and the comment written."""
    store.source.flags = RoutingFlags(tuning=RoutingTuning(margin=0.2))
    opened_at = worker.clock.now()
    teach(worker.health, Health.UNREACHABLE)
    worker.health.sync_once()
    worker.go(State.HALF_OPEN, after_s=30)
    worker.go(State.OPEN, after_s=0.5)
    worker.run_after(31)
    (flip,) = worker.rows()
    assert (flip.flag, flip.from_value, flip.to_value) == (PRIMARY_PROVIDER, "stripe", "third")
    assert (flip.state, flip.incident) == ("confirmed", "inc_stripe_1")
    assert flip.reason == "circuit of stripe not closed for 62 s: 10 of the last 10 calls failed"
    assert flip.created_at == flip.confirmed_at == worker.clock.now()
    window = flip.evidence["window"]
    assert (window["calls"], window["failures"], window["unreachable"]) == (10, 10, 10)
    assert {**flip.evidence, "window": None} == {
        "open_seconds_at_write": 61.5,
        "percent_moved": 100,
        "pins_moved": False,
        "open_seconds": 61.5,
        "incident_started_at": opened_at.isoformat(),
        "window": None,
        # 20% of 50.00, less 1% and 2% of it, with the rates that are taken before any is known.
        "candidates": [
            {"provider": name, "value": round(PRIOR_AVAILABILITY * PRIOR_APPROVAL * (10 - fee), 4)}
            for name, fee in (("third", 0.5), ("adyen", 1.0))
        ],
    }
    ((served, comment),) = store.moves
    assert served == Serves("third")
    assert comment == f"auto-failover: {flip.reason}, incident inc_stripe_1"
