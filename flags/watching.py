"""The SDK's store of flags, ours: it remembers what changed, in order, and may begin with the last flags known.

The SDK writes here from one thread (its stream's, or the file watcher's) and reads from every payment's. With the
SDK's own store, reading takes three locks for each flag; here it takes none: a write replaces the tables whole.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ldclient.interfaces import FeatureStore
from ldclient.versioned_data_kind import FEATURES, SEGMENTS, VersionedDataKind

from flags.changes import SINGLED_OUT, Definition, Kind, Name, needed

REMEMBERED_CHANGES = 1000
"""Changes that wait to be written down: some hours of a person's toggles; a few kilobytes each at most."""

KINDS: Mapping[Kind, VersionedDataKind] = {"flag": FEATURES, "segment": SEGMENTS}
NAMES: Mapping[str, Kind] = {FEATURES.namespace: "flag", SEGMENTS.namespace: "segment"}

Items = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was not written down yet; numbers rise by one or more."""

    number: int
    definition: Definition


class WatchedStore(FeatureStore):
    """An SDK feature store in memory; `pending` are the changes of the flags named by `keys`, and of what they use.

    Build one for each client. `known` are the last definitions known: with any, the SDK evaluates them until it
    hears better. `by_time` is for a source whose versions are its own (a file): what it says last counts.
    """

    def __init__(
        self,
        keys: Iterable[str],
        known: Sequence[Definition] = (),
        *,
        by_time: bool = False,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._keys = tuple(keys)
        self._by_time = by_time
        self._now = now
        self._lock = threading.Lock()
        self._waiting: list[Change] = []
        self._last_number = 0
        self._dropped = 0
        self._told_whole_at: dt.datetime | None = None
        self._noted: dict[Name, tuple[int, Mapping[str, Any] | None]] = {}
        tables: dict[VersionedDataKind, dict[str, Any]] = {FEATURES: {}, SEGMENTS: {}}
        usable = []
        for each in known:
            try:
                decoded = KINDS[each.kind].decode(each.data)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # written by another version of the SDK: what cannot be evaluated is not known
            if each.data is not None:
                tables[KINDS[each.kind]][each.key] = decoded
                self._noted[each.name] = (each.version, each.data)
                usable.append(each)
        self._tables: Mapping[VersionedDataKind, Items] = tables
        self._initialized = bool(usable)
        self.known_at: dt.datetime | None = max((each.at for each in usable), default=None)
        """When the newest of the last known definitions was told; None: nothing was known."""

    # ------------------------------------------------------------ the SDK's side

    def get(self, kind: VersionedDataKind, key: str, callback: Callable[[Any], Any] = lambda item: item) -> Any:
        item = self._tables.get(kind, {}).get(key)
        return callback(None if item is None or item.get("deleted") else item)

    def all(self, kind: VersionedDataKind, callback: Callable[[Any], Any] = lambda items: items) -> Any:
        items = self._tables.get(kind, {})
        return callback({key: item for key, item in items.items() if not item.get("deleted")})

    def init(self, all_data: Mapping[VersionedDataKind, Mapping[str, dict[Any, Any]]]) -> None:
        """Take a full set, whatever its versions: it is what there is now."""
        tables = {kind: {key: kind.decode(item) for key, item in items.items()} for kind, items in all_data.items()}
        with self._lock:
            self._tables = tables
            self._initialized = True
            self._told_whole_at = self._now()
            self._note()

    def upsert(self, kind: VersionedDataKind, item: dict[Any, Any]) -> None:
        """Take one definition, unless it is older than what is here."""
        self._put(kind, str(item["key"]), int(item["version"]), kind.decode(item))

    def delete(self, kind: VersionedDataKind, key: str, version: int) -> None:
        """Remember that it went in that version, so that an older patch does not bring it back."""
        self._put(kind, key, version, {"deleted": True, "version": version})

    @property
    def initialized(self) -> bool:
        return self._initialized

    def _put(self, kind: VersionedDataKind, key: str, version: int, item: Any) -> None:
        with self._lock:
            items = self._tables.get(kind, {})
            if key in items and items[key]["version"] >= version:
                return
            self._tables = {**self._tables, kind: {**items, key: item}}
            self._note()

    # ------------------------------------------------------------ the router's side

    @property
    def generation(self) -> object:
        """Another object after any change of any definition."""
        return self._tables

    def same_for_everyone(self, keys: Iterable[str]) -> frozenset[str]:
        """Those of these flags that serve one value, whoever asks: no target, rule, rollout or prerequisite."""
        flags = self._tables.get(FEATURES, {})
        found = []
        for key in keys:
            item = flags.get(key)
            if item is not None and not item.get("deleted") and _serves_one_value(FEATURES.encode(item)):
                found.append(key)
        return frozenset(found)

    @property
    def told_whole_at(self) -> dt.datetime | None:
        """When a full set came last; None: never, what is served are the last known or nothing."""
        return self._told_whole_at

    def pending(self) -> Sequence[Change]:
        """What changed and was not `written` yet, in the order in which it was told."""
        with self._lock:
            return tuple(self._waiting)

    def written(self, number: int) -> None:
        """Forget the changes up to this number."""
        with self._lock:
            self._waiting = [each for each in self._waiting if each.number > number]

    def dropped(self) -> int:
        """How many changes were left out since the last call because too many waited: never a flag's latest."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped

    def settled(self, name: Name) -> Definition | None:
        """What is here of it now, to count by when the last full set came; None where none came."""
        with self._lock:
            if self._told_whole_at is None:
                return None
            version, data = self._here(name)
            return Definition(*name, version, data, self._told_whole_at, settled=True)

    def _note(self) -> None:
        """Whatever changed of what is watched is one more change that waits."""
        flags, segments = (self._tables.get(kind, {}) for kind in (FEATURES, SEGMENTS))
        at = self._now()
        # Sorted, so that every process writes what one full set brought in the same order.
        for name in sorted(needed(self._keys, flags, segments) | self._noted.keys()):
            version, data = self._here(name)
            before = self._noted.get(name)
            if before == (version, data) or (before is None and data is None):
                continue
            self._noted[name] = (version, data)
            self._last_number += 1
            definition = Definition(*name, version, data, at, settled=self._by_time)
            self._waiting.append(Change(self._last_number, definition))
        if len(self._waiting) > REMEMBERED_CHANGES:
            last = {each.definition.name: each for each in self._waiting}
            self._dropped += len(self._waiting) - len(last)
            self._waiting = sorted(last.values(), key=lambda each: each.number)

    def _here(self, name: Name) -> tuple[int, Mapping[str, Any] | None]:
        kind, key = name
        item = self._tables.get(KINDS[kind], {}).get(key)
        if item is None:
            return 0, None
        if item.get("deleted"):
            return item["version"], None
        return item["version"], KINDS[kind].encode(item)


def _serves_one_value(data: Mapping[str, Any]) -> bool:
    if not data.get("on"):
        return True
    fallthrough = data.get("fallthrough")
    return (
        not any(data.get(part) for part in SINGLED_OUT["flag"])
        and isinstance(fallthrough, dict)
        and not fallthrough.get("rollout")
    )
