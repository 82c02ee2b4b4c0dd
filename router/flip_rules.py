"""When the primary is flipped, whether it may be, to whom, and whose hand a flag shows. Pure."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flags.contract import WHOLE, FlagState, Serves
from router.ledger.flips import Flip

HOUR = dt.timedelta(hours=1)
SEEN_WITHIN = dt.timedelta(seconds=10)
"""A write of ours is told by the flags' stream within a second; a stream that reconnects takes some more."""
TOLD_LATE = dt.timedelta(hours=1)
"""So long may every stream have been away when it tells of a write that is known to be done."""
SKEW = dt.timedelta(seconds=5)
"""Who is told of a write first may be another process than the writer, with a clock that is behind by as much."""


@dataclass(frozen=True, slots=True)
class Target:
    """A provider that the flag could be moved to, with what speaks for it."""

    provider: str
    value: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How often the machine may move the primary, by the flag or by an override."""

    cooldown_s: float = 600.0
    """Between two moves: a provider that comes and goes is no reason to move everybody each time."""
    per_hour: int = 3


def held(writes: Sequence[dt.datetime], now: dt.datetime, limits: Limits) -> str | None:
    """Why the machine may not write now, by its moves of the last hour or cooldown; None: it may."""
    ages_s = [(now - at).total_seconds() for at in writes]
    if any(age < limits.cooldown_s for age in ages_s):
        return f"the primary was moved {min(ages_s):.0f} s ago, and is left alone for {limits.cooldown_s:g} s"
    recent = sum(age < HOUR.total_seconds() for age in ages_s)
    if recent >= limits.per_hour:
        return f"the primary was moved {recent} times in the last hour, and {limits.per_hour} are allowed"
    return None


# ---------------------------------------------------------------- whose change


class Change(Protocol):
    """One line of the audit of what the flags' source told: what the flag was, and what it is."""

    @property
    def old(self) -> Mapping[str, Any] | None:
        """None: nothing was known of the flag. `serves`: its value, or `{"per_cent": {value: share}}`."""

    @property
    def new(self) -> Mapping[str, Any] | None:
        """None: it was deleted."""

    @property
    def at(self) -> dt.datetime:
        """When it was told."""


ChangesOf = Callable[[str, dt.datetime], Sequence[Change]]
"""A flag's changes since that moment, newest first."""


def no_changes(_key: str, _since: dt.datetime) -> Sequence[Change]:
    """Where there is no audit."""
    return ()


def persons_change(changes: Iterable[Change], ours: Iterable[Flip], since: dt.datetime) -> Change | None:
    """The last of these changes, newest first, told since then, that no flip or restore of ours explains.

    What was first heard of is no change, nor is one of nothing that decides what is served to whom: LaunchDarkly
    makes a new version of a flag while somebody watches its events.
    """
    flips, told = list(ours), _that_matter(changes)
    return next(
        (
            each
            for number, each in enumerate(told)
            if each.at >= since and each.old is not None and not _is_ours(each, told[number + 1 :], flips)
        ),
        None,
    )


def is_told(changes: Iterable[Change], flip: Flip) -> bool:
    """Whether the audit has the flip's own change: a process has been told of it by the flag's stream."""
    told = _that_matter(changes)
    return any(_is_ours(each, told[number + 1 :], [flip]) for number, each in enumerate(told))


def audit_since(opening: dt.datetime, ours: Iterable[Flip]) -> dt.datetime:
    """From when on the audit says which of the changes told since the opening were ours: some were written before."""
    known = ((write.since, write.known_at) for flip in ours for write in _writes(flip))
    return min([opening, *(since for since, at in known if at is not None and at > opening - TOLD_LATE)])


def _that_matter(changes: Iterable[Change]) -> Sequence[Change]:
    return [each for each in changes if each.old != each.new]


def _is_ours(change: Change, earlier: Sequence[Change], flips: Iterable[Flip]) -> bool:
    was, served = _told(change.old), _told(change.new)
    return any(
        was == write.before and served == write.after and write.can_be_told_by(change, earlier)
        for flip in flips
        for write in _writes(flip)
    )


@dataclass(frozen=True, slots=True)
class _Write:
    """What a flip or its restore made of the flag, and when that can have been told."""

    before: Any
    after: Any
    since: dt.datetime
    known_at: dt.datetime | None
    """When it was read back, or, where nobody knows whether it was done, sent; None: it is under way."""
    is_done: bool

    def can_be_told_by(self, change: Change, earlier: Sequence[Change]) -> bool:
        if change.at < self.since - SKEW:
            return False
        if self.known_at is None or change.at <= self.known_at + SEEN_WITHIN:
            return True
        # Every stream may have been away. What they then tell first is what was done first: a person who does the
        # same again has undone it before, which is told too.
        is_first = not any(each.at >= self.since for each in earlier)
        return self.is_done and is_first and change.at <= self.known_at + TOLD_LATE


def _writes(flip: Flip) -> Iterable[_Write]:
    has_ended = flip.state in ("superseded", "failed")
    if flip.before is None or (has_ended and not flip.was_sent):
        return
    before = serves_of(flip.before)
    one, other = as_told(before), as_told(before.moved(flip.from_value, flip.to_value))
    known_at = flip.requested_at if has_ended else flip.confirmed_at
    yield _Write(one, other, flip.created_at, known_at, is_done=not has_ended)
    if flip.restore_sent_at is not None:
        yield _Write(other, one, flip.restore_sent_at, flip.restored_at, is_done=True)


def _told(described: Mapping[str, Any] | None) -> Any:
    """What the flag served, as the audit has it."""
    serves = None if described is None else described.get("serves")
    if isinstance(serves, Mapping) and isinstance(serves.get("per_cent"), Mapping):
        return {"per_cent": {value: share for value, share in serves["per_cent"].items() if share}}
    return serves


def as_told(serves: Serves) -> Any:
    """What a flag serves, as the audit has it."""
    if not serves.weights:
        return serves.value
    return {"per_cent": {value: round(each * 100 / WHOLE, 3) for value, each in serves.weights.items() if each}}


def told_in_words(told: Any) -> str:
    """What the audit has of what a flag serves, for people."""
    if isinstance(told, Mapping) and isinstance(told.get("per_cent"), Mapping):
        return ", ".join(f"{share:g}% {value}" for value, share in told["per_cent"].items())
    return str(told)


def in_words(serves: Serves) -> str:
    """What a flag serves, for people."""
    return told_in_words(as_told(serves))


def to_json(serves: Serves) -> Mapping[str, Any]:
    """As a flip keeps it."""
    return {"weights": dict(serves.weights)} if serves.weights else {"value": serves.value}


def serves_of(kept: Mapping[str, Any]) -> Serves:
    """What `to_json` kept."""
    return Serves(kept.get("value"), kept.get("weights") or {})


# ---------------------------------------------------------------- what a look at the flag says of a flip


class Found(enum.Enum):
    """What became of a flip, by what its flag serves."""

    UNWRITTEN = "unwritten"
    """The flag still serves the failing provider, and nothing of ours is in it."""
    WRITTEN = "written"
    """It serves what we wrote, or what a person approved."""
    TAKEN = "taken"
    """A person has moved it."""
    OFF = "off"
    """It is off, and serves the failing provider to everyone: what it would serve while on is of no matter."""


def found(flip: Flip, seen: FlagState) -> Found:
    """Whose hand the flag shows. A mark that has not changed since before the write proves that it was not done."""
    is_in_doubt = flip.state == "requested" and flip.mark is not None
    if is_in_doubt and seen.mark == flip.mark:
        return Found.UNWRITTEN if seen.is_on else Found.OFF
    may_be_ours = flip.state in ("requested", "needs approval")
    if not seen.is_on:
        # While it is off nothing that we write moves anyone; whoever switched it off is a person.
        return Found.OFF if seen.off == flip.from_value and not may_be_ours else Found.TAKEN
    if seen.serves.share_of(flip.from_value) == 0:
        is_as_asked = seen.serves.share_of(flip.to_value) >= (_share_asked(flip) or 1e-9)
        return Found.WRITTEN if may_be_ours and is_as_asked else Found.TAKEN
    # Changed after the write was sent, and the failing provider is served again, or still: a person has been there.
    # Likewise where another share of it is served than at the last look, whether or not the audit knows of it yet.
    is_as_looked_at = flip.before is None or alike(serves_of(flip.before), seen.serves)
    return Found.UNWRITTEN if is_as_looked_at and not is_in_doubt else Found.TAKEN


def _share_asked(flip: Flip) -> float:
    """Which part of everyone the flip was to send to its target; 0 where that is not known."""
    if flip.before is None:
        return 0.0
    return serves_of(flip.before).moved(flip.from_value, flip.to_value).share_of(flip.to_value)


# ---------------------------------------------------------------- restoring


def alike(one: Serves, other: Serves) -> bool:
    """Whether they serve the same to the same shares."""
    return bool(as_told(one) == as_told(other))


def to_restore(newest: Sequence[Flip]) -> Flip | None:
    """Of the last flips, newest first, the one that the machine may undo by itself once its provider is well.

    Only the last one that holds, and once. After a later one that was restored, where that brought back what this one
    wrote. Not where the flag holds what the team had set: a flip that undid an earlier one, provider by provider, is
    not to be taken back.
    """
    written = [each for each in newest if each.state in ("confirmed", "restored")]
    undone = list(itertools.takewhile(lambda each: each.state == "restored", written))
    standing = written[len(undone) :]
    if not standing or standing[0].restore_by is not None:
        return None
    last = standing[0]
    if undone and (last.written is None or last.written != undone[-1].written):
        return None
    if len(standing) > 1 and standing[1].state == "confirmed" and last.before is not None:
        earlier = standing[1]
        now_served = serves_of(last.before).moved(last.from_value, last.to_value)
        is_unbroken = earlier.written is not None and earlier.written == last.mark
        if is_unbroken and earlier.before is not None and alike(serves_of(earlier.before), now_served):
            return None
    return last
