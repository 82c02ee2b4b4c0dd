"""The SDK's store, ours: what changed is remembered in order, and last known flags serve from it."""

from __future__ import annotations

import copy
import datetime as dt
from typing import Any

import pytest
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from flags import watching
from flags.changes import Definition
from flags.contract import AUTO_FLIP_ENABLED, PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document
from flags.watching import WatchedStore
from router.clock import ManualClock

KEYS = tuple(definitions(("stripe", "adyen")))
FLAGS: dict[str, Any] = new_document(definitions(("stripe", "adyen")).values())["flags"]


def full_set(**changed: Any) -> dict[Any, Any]:
    """What a stream's first event brings, with these fields of the primary flag instead."""
    flags = copy.deepcopy(FLAGS)
    flags[PRIMARY_PROVIDER] |= changed
    return {FEATURES: flags, SEGMENTS: {}}


def primary(version: int, served: int = 0) -> dict[str, Any]:
    return {**FLAGS[PRIMARY_PROVIDER], "version": version, "fallthrough": {"variation": served}}


def told(store: WatchedStore) -> list[tuple[str, int]]:
    """Key and version of what waits, which is then written."""
    waiting = store.pending()
    if waiting:
        store.written(waiting[-1].number)
    return [(each.definition.key, each.definition.version) for each in waiting]


def test_a_full_set_and_each_patch_are_told_in_their_order() -> None:
    """Every version that the stream told, once; what it told twice or too late, not at all."""
    store = WatchedStore(KEYS)
    assert (store.initialized, store.pending()) == (False, ())
    store.init(full_set())
    assert store.initialized
    assert told(store) == [(key, 1) for key in sorted(KEYS)]
    for version in (2, 3, 3, 2, 4):
        store.upsert(FEATURES, primary(version, version % 2))
    assert told(store) == [(PRIMARY_PROVIDER, version) for version in (2, 3, 4)]
    assert store.get(FEATURES, PRIMARY_PROVIDER)["version"] == 4


def test_a_full_set_counts_whatever_its_versions() -> None:
    """After a reconnect it is what LaunchDarkly serves now, older or not; the change is told behind those before."""
    store = WatchedStore(KEYS)
    store.init(full_set())
    told(store)
    store.upsert(FEATURES, primary(5))
    store.init({FEATURES: {**FLAGS, PRIMARY_PROVIDER: primary(4, 1)}, SEGMENTS: {}})
    store.upsert(FEATURES, primary(6))
    assert told(store) == [(PRIMARY_PROVIDER, 5), (PRIMARY_PROVIDER, 4), (PRIMARY_PROVIDER, 6)]


def test_what_was_told_and_not_written_waits() -> None:
    """A ledger that is away loses nothing."""
    store = WatchedStore([PRIMARY_PROVIDER])
    store.init(full_set())
    first = store.pending()
    store.upsert(FEATURES, primary(2))
    assert [each.definition.version for each in store.pending()] == [1, 2]
    store.written(first[-1].number)
    assert told(store) == [(PRIMARY_PROVIDER, 2)]


def test_when_too_much_waits_each_flags_latest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, and it says how many were left out."""
    monkeypatch.setattr(watching, "REMEMBERED_CHANGES", 20)
    store = WatchedStore([PRIMARY_PROVIDER, AUTO_FLIP_ENABLED])
    store.init(full_set())
    for version in range(2, 100):
        store.upsert(FEATURES, primary(version))
    assert len(store.pending()) <= 20
    kept = told(store)
    assert kept[-1] == (PRIMARY_PROVIDER, 99)
    assert (AUTO_FLIP_ENABLED, 1) in kept
    assert store.dropped() + len(kept) == 100
    assert store.dropped() == 0


def test_a_deleted_flag_is_told_and_an_older_patch_does_not_bring_it_back() -> None:
    """As in the SDK's own store."""
    store = WatchedStore([PRIMARY_PROVIDER])
    store.init(full_set())
    told(store)
    store.delete(FEATURES, PRIMARY_PROVIDER, 3)
    store.upsert(FEATURES, primary(2))
    assert store.get(FEATURES, PRIMARY_PROVIDER) is None
    assert PRIMARY_PROVIDER not in store.all(FEATURES)
    [change] = store.pending()
    assert (change.definition.version, change.definition.data) == (3, None)
    store.upsert(FEATURES, primary(4))
    assert store.get(FEATURES, PRIMARY_PROVIDER)["version"] == 4
    store.init({FEATURES: {}, SEGMENTS: {}})
    assert [each.definition.data is None for each in store.pending()] == [True, False, True]


def test_other_teams_flags_are_served_and_not_told() -> None:
    """An environment has hundreds; a segment is told once a watched flag uses it."""
    store = WatchedStore([PRIMARY_PROVIDER])
    store.init({FEATURES: {**FLAGS, "other": {**FLAGS[AUTO_FLIP_ENABLED], "key": "other"}}, SEGMENTS: {}})
    store.upsert(SEGMENTS, {"key": "vip", "version": 1, "included": ["cus_1"]})
    assert told(store) == [(PRIMARY_PROVIDER, 1)]
    assert store.get(FEATURES, "other") is not None
    clause = {"op": "segmentMatch", "attribute": "", "values": ["vip"]}
    store.upsert(FEATURES, {**primary(2), "rules": [{"variation": 1, "clauses": [clause]}]})
    assert told(store) == [(PRIMARY_PROVIDER, 2), ("vip", 1)]
    store.upsert(SEGMENTS, {"key": "vip", "version": 2, "included": []})
    assert told(store) == [("vip", 2)]


def test_last_known_flags_serve_and_are_no_news() -> None:
    """What the source then tells differently is; what cannot be decoded was not known."""
    at = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
    known = [
        Definition("flag", PRIMARY_PROVIDER, 7, primary(7, 1), at),
        Definition("flag", AUTO_FLIP_ENABLED, 1, {"variations": "none"}, at + dt.timedelta(days=1)),
    ]
    store = WatchedStore(KEYS, known)
    assert (store.initialized, store.known_at, store.told_whole_at) == (True, at, None)
    assert store.get(FEATURES, PRIMARY_PROVIDER)["version"] == 7
    assert store.settled(("flag", PRIMARY_PROVIDER)) is None
    store.init({FEATURES: {PRIMARY_PROVIDER: primary(7, 1)}, SEGMENTS: {}})
    assert store.pending() == ()
    store.upsert(FEATURES, primary(8))
    assert told(store) == [(PRIMARY_PROVIDER, 8)]


def test_a_file_counts_by_time_and_a_stream_once_it_has_settled() -> None:
    """Each change with the moment at which it was told; the settled one with the full set's."""
    clock = ManualClock()
    store = WatchedStore([PRIMARY_PROVIDER], by_time=True, now=clock.now)
    store.init(full_set())
    [change] = store.pending()
    assert (change.definition.settled, change.definition.at) == (True, clock.now())
    whole_at = clock.now()
    clock.advance(5)
    store.upsert(FEATURES, primary(2))
    held = store.settled(("flag", PRIMARY_PROVIDER))
    assert held is not None
    assert (held.version, held.at, held.settled) == (2, whole_at, True)


def test_a_malformed_definition_changes_nothing() -> None:
    """The SDK is told by an exception, and goes on with what was there."""
    store = WatchedStore([PRIMARY_PROVIDER])
    store.init(full_set())
    told(store)
    with pytest.raises(ValueError, match="variations"):
        store.upsert(FEATURES, {**primary(2), "variations": 7})
    with pytest.raises(ValueError, match="variations"):
        store.init({FEATURES: {PRIMARY_PROVIDER: {**primary(2), "variations": 7}}, SEGMENTS: {}})
    assert store.get(FEATURES, PRIMARY_PROVIDER)["version"] == 1
    assert store.pending() == ()


def test_a_flag_is_the_same_for_everyone_while_nothing_singles_anybody_out() -> None:
    store = WatchedStore(KEYS)
    assert store.same_for_everyone(KEYS) == frozenset()
    store.init(full_set())
    assert store.same_for_everyone(KEYS) == frozenset(KEYS)
    someone = [{"contextKind": "merchant", "variation": 1, "values": ["shop"]}]
    rollout = {"variations": [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]}
    for singles_out in (
        {"targets": [{"variation": 1, "values": ["anna"]}]},
        {"contextTargets": someone},
        {"rules": [{"id": "r", "variation": 1, "clauses": []}]},
        {"prerequisites": [{"key": AUTO_FLIP_ENABLED, "variation": 0}]},
        {"fallthrough": {"rollout": rollout}},
    ):
        store.init(full_set(**singles_out))
        assert store.same_for_everyone(KEYS) == frozenset(KEYS) - {PRIMARY_PROVIDER}, singles_out
        # Switched off, it serves its one value, whatever its rules say.
        store.init(full_set(**singles_out, on=False))
        assert store.same_for_everyone(KEYS) == frozenset(KEYS), singles_out
    store.delete(FEATURES, PRIMARY_PROVIDER, 99)
    assert PRIMARY_PROVIDER not in store.same_for_everyone(KEYS)


def test_any_change_is_another_generation() -> None:
    store = WatchedStore(KEYS)
    seen = [store.generation]
    store.init(full_set())
    seen.append(store.generation)
    store.upsert(FEATURES, primary(7))
    seen.append(store.generation)
    store.delete(SEGMENTS, "friends", 1)
    seen.append(store.generation)
    assert len({id(each) for each in seen}) == len(seen)
    store.upsert(FEATURES, primary(6))  # too late: it changes nothing
    assert store.generation is seen[-1]
