"""Carries a flip on, from the override to what the flag store serves, and back again where it is to be restored.

Any number of workers may run it; a lease makes it one at a time. What is about to be sent is committed first, with
the mark that the flag had, so whoever follows a worker that died looks at the flag and knows: the same mark, nothing
was written; another one, and it serves what was decided, it was; another one, and anything else, a person was there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

import structlog
import tenacity

from flags.contract import (
    ApprovalNeededError,
    FlagChangedError,
    FlagMover,
    FlagState,
    FlagUnavailableError,
    FlagWriteError,
    Serves,
)
from router.flip_cases import Cases, say
from router.flip_restoring import Restoring
from router.flip_rules import Found, found, in_words, serves_of, to_json
from router.ledger.alerts import AlertKind
from router.ledger.flips import UNWRITTEN, Flip, LostFlipError, Task, stopped
from router.transitions import State, Transition

log = structlog.get_logger("router.flips")

LEASE_S = 60.0
"""A round starts nothing after ROUND_S, and what it started then takes 28 s at most: four requests of the mover."""
ROUND_S = 20.0
LOOKS_A_ROUND = 3
AGAIN_AT_MOST_S = 60.0
ASKED_AGAIN_AT_MOST_S = 600.0
"""So long at most does a store say to be left alone and is obeyed."""
REFUSALS = 5
"""With doubled waits they are half a minute: an API token that was just replaced is in force by then."""
APPROVAL_LOOK_S = 30.0
LATE_AT_MOST_S = 30.0
"""The mover gives a write up after 5 s; a gateway in front of the store holds it for half a minute at most."""
IDLE_LOOK_S = 5.0
"""While the circuit is not failing the flag is not moved, and looked at for a person's hand."""
LET_THROUGH = frozenset({State.BYPASS, State.METRICS_ONLY})
"""No such circuit ever closes, so its incident does not end by itself."""
NO_WAY = "no API token: the flag cannot be moved"
SEEN_AFTER_S = 2.0
"""After the write every process's stream has had so long: this one's alone is no proof that the others have it."""
DROPPED_AFTER_S = 30.0
"""A stream that is sound has told the change long before."""
RECONNECTED_AFTER_S = 35.0
"""So long after this process's stream may another's come back: the SDK waits up to 30 s before it tries again."""


class FlipWriting:
    """A worker loop."""

    def __init__(
        self,
        cases: Cases,
        *,
        mover: FlagMover | None,
        holder: str,
        moves_pins: bool = False,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """`holder`: a name that no other worker has or had. `mover` None: there is no way to write."""
        self._cases = cases
        self._flips = cases.flips
        self._clock = cases.clock
        self._mover = mover
        self._holder = holder
        self._moves_pins = moves_pins
        self._random = random
        self._restoring = Restoring(cases, mover)
        self._began_at = cases.clock.now()
        self._source_since: dt.datetime | None = None
        self._sound_from, self._was_away = cases.clock.monotonic(), False

    def run_once(self) -> int:
        """Carry on every flip that waits for it. Answers how many flags were moved."""
        self._see_source()
        return sum(self._carry_on(task) for task in self._flips.tasks(self._holder, self._clock.now()))

    def _see_source(self) -> None:
        """Notice that the flags' stream was away."""
        status = self._cases.source.status()
        if status.state != "valid" or self._source_since not in (None, status.since):
            self._sound_from, self._was_away = self._clock.monotonic(), True
        self._source_since = status.since

    def _may_others_lag(self, flip: Flip) -> bool:
        """Whether processes may be without a stream still, although this one has its own: the flag store was away.

        Who has begun during the flip cannot know whether it was.
        """
        if not self._was_away and flip.created_at >= self._began_at:
            return False
        return self._clock.monotonic() - self._sound_from < RECONNECTED_AFTER_S

    def _carry_on(self, task: Task) -> int:
        if not self._has_work(task):
            return 0
        now = self._clock.now()
        flip = self._flips.take(task.flip, self._holder, now=now, until=now + dt.timedelta(seconds=LEASE_S))
        if flip is None:
            return 0
        try:
            return self._patiently(Task(flip, task.is_overriding))
        except LostFlipError:
            log.warning("flip_lost", flip=flip.id)
            return 0
        finally:
            self._flips.release(flip)

    def _has_work(self, task: Task) -> bool:
        """Whether a lease is worth its commits: what only waits is looked at in every round."""
        flip = task.flip
        if flip.state in ("confirmed", "failed"):
            return self._is_to_be_restored(flip) or self._why_dropped(flip) is not None
        if flip.state not in UNWRITTEN:
            return task.is_overriding
        return self._is_due(flip) or (task.is_overriding and self._why_ended(flip) is not None)

    def _is_due(self, flip: Flip) -> bool:
        return flip.next_try_at is None or flip.next_try_at <= self._clock.now()

    def _is_to_be_restored(self, flip: Flip) -> bool:
        return flip.state == "confirmed" and flip.restore_at is not None and self._is_due(flip)

    def _patiently(self, task: Task) -> int:
        """One round: looks and tries again within it, each time by what the flag then is."""
        flip, moved, ends_at = task.flip, 0, self._clock.monotonic() + ROUND_S
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_worth_another_look),
            stop=lambda state: state.attempt_number >= LOOKS_A_ROUND or self._clock.monotonic() >= ends_at,
            wait=lambda state: 0.2 * 2 ** (state.attempt_number - 1) * (0.5 + self._random()),
            sleep=self._clock.sleep,
            reraise=True,
        )
        try:
            for attempt in again:
                with attempt:
                    flip = self._flips.get(flip.id) or flip
                    if flip.holder != self._holder:
                        raise LostFlipError(flip.id)
                    moved = self._once(flip)
        except FlagChangedError as error:
            self._wait(self._flips.get(flip.id) or flip, 1.0, str(error))
        except FlagUnavailableError as error:
            self._not_reached(self._flips.get(flip.id) or flip, error)
        except FlagWriteError as error:
            self._refused(self._flips.get(flip.id) or flip, error)
        return moved

    # ------------------------------------------------------------ one look, and what follows from it

    def _once(self, flip: Flip) -> int:
        match flip.state:
            case "confirmed" | "failed":
                why = self._why_dropped(flip)
                if why is not None:
                    flip = self._change(flip, override_over=why)
                return self._restoring.once(flip) if self._is_to_be_restored(flip) else 0
            case "overriding" | "requested" | "needs approval":
                return self._towards_the_flag(flip)
            case _:
                # By a worker of the version before, which knows no overrides.
                self._change(flip, override_over=f"the flip is {flip.state}")
                return 0

    def _towards_the_flag(self, flip: Flip) -> int:
        ended = self._why_ended(flip)
        if ended is not None and flip.state == "overriding":
            return self._superseded(flip, ended)
        if ended is not None:
            # What was sent may have been done, and the store may be away: the override does not wait for it.
            flip = self._change(flip, override_over=ended)
        if self._mover is None:
            return self._failed(flip, NO_WAY)
        seen = self._mover.look(flip.flag)
        match found(flip, seen):
            case Found.WRITTEN:
                return self._confirmed(flip, seen)
            case Found.TAKEN:
                self._withdraw(flip)
                return self._superseded(flip, f"by a person: the flag {_as_seen(seen)}")
            case Found.OFF:
                if ended is not None:
                    return self._superseded(flip, ended)
                cause = "the flag is off: nothing that is written moves anyone"
                return self._failed(flip, cause, pins=_pins(flip, seen))
            case Found.UNWRITTEN if ended is not None:
                late_s = self._may_come_late_s(flip)
                if late_s > 0:
                    self._wait(flip, late_s, ended)
                    return 0
                self._withdraw(flip)
                return self._superseded(flip, ended)
            case Found.UNWRITTEN if flip.state == "needs approval" and flip.approval is not None:
                return self._await_approval(flip, flip.approval)
            case Found.UNWRITTEN if flip.state == "needs approval":
                # It was asked, and the answer was lost: a second request would outlive the flip.
                filed = self._mover.pending_approvals(flip.flag, comment=_comment(flip))
                if filed:
                    return self._asked(flip, filed[0])
        return self._write(flip, seen)

    def _may_come_late_s(self, flip: Flip) -> float:
        """For so long a write that was not answered may still be done: that it is not yet proves nothing."""
        if flip.state != "requested" or flip.requested_at is None:
            return 0.0
        return LATE_AT_MOST_S - (self._clock.now() - flip.requested_at).total_seconds()

    def _write(self, flip: Flip, seen: FlagState) -> int:
        assert self._mover is not None
        cases = self._cases
        last = cases.health.snapshot(flip.from_value).last
        targets = cases.targets(flip.from_value, cases.flags())
        if last is None or not last.is_failing:
            self._wait(flip, IDLE_LOOK_S, f"{flip.from_value} is not failing at this moment")
            return 0
        if not targets:
            self._wait(flip, IDLE_LOOK_S, "no other provider is healthy and enabled")
            return 0
        to = flip.to_value if flip.to_value in {each.provider for each in targets} else targets[0].provider
        after = seen.serves.moved(flip.from_value, to)
        pinned = seen.pins.get(flip.from_value, ())
        evidence = {
            **flip.evidence,
            "candidates": [{"provider": each.provider, "value": each.value} for each in targets],
            "open_seconds_at_write": round(cases.open_s(last), 3),
            "percent_moved": round(seen.serves.share_of(flip.from_value) * 100, 3),
            "pins_moved": bool(pinned) and self._moves_pins,
        }
        # On record before it is sent.
        flip = self._change(
            flip,
            state="requested",
            requested_at=self._clock.now(),
            to_value=to,
            mark=seen.mark,
            before=to_json(seen.serves),
            pins=list(pinned),
            evidence=evidence,
            cause=None,
        )
        if flip.lease_until is None or self._clock.now() >= flip.lease_until:
            raise LostFlipError(flip.id)
        comment = _comment(flip)
        pins = (flip.from_value, to) if self._moves_pins and pinned else None
        try:
            written = self._mover.move(flip.flag, after, seen=seen, comment=comment, pins=pins)
        except FlagChangedError:
            # Nothing was written: whatever the flag shows next is not ours.
            self._change(flip, state="overriding", requested_at=None, mark=None)
            raise
        except ApprovalNeededError:
            return self._ask_approval(flip, after, pins)
        except FlagUnavailableError:
            raise
        except FlagWriteError:
            # An answer: nothing of it comes later, so a flag as it was proves that nothing was written.
            with contextlib.suppress(FlagWriteError):
                if self._mover.look(flip.flag).mark == seen.mark:
                    self._change(flip, state="overriding", requested_at=None, mark=None)
            raise
        if written.serves.share_of(flip.from_value) > 0:
            raise FlagChangedError(f"{flip.flag} was read back, and {_as_seen(written)}")
        return self._confirmed(flip, written)

    def _ask_approval(self, flip: Flip, to: Serves, pins: tuple[str, str] | None) -> int:
        assert self._mover is not None
        # On record before it is sent, as a write is.
        asking = "the flag needs a person's approval, which is being asked for"
        flip = self._change(flip, state="needs approval", approval=None, requested_at=None, cause=asking)
        return self._asked(flip, self._mover.ask_approval(flip.flag, to, comment=_comment(flip), pins=pins))

    def _asked(self, flip: Flip, request: str) -> int:
        cause = f"the flag needs a person's approval: request {request} is filed, the override stays meanwhile"
        self._end(
            flip,
            "flip_needs_approval",
            cause,
            approval=request,
            cause=cause,
            next_try_at=self._in(APPROVAL_LOOK_S),
        )
        return 0

    def _await_approval(self, flip: Flip, request: str) -> int:
        assert self._mover is not None
        answer = self._mover.approval(flip.flag, request)
        if answer in ("declined", "gone"):
            self._withdraw(dataclasses.replace(flip, approval=None))  # this one stays as it was answered
            return self._superseded(flip, f"by a person: the approval request {request} is {answer}")
        self._wait(flip, APPROVAL_LOOK_S, flip.cause)
        return 0

    def _withdraw(self, flip: Flip) -> None:
        """Take back what was asked of people; an unreachable store raises, and it is tried again."""
        if self._mover is None or flip.state != "needs approval":
            return
        try:
            # The record may not know of all: what was filed while the answer was lost counts too.
            pending = self._mover.pending_approvals(flip.flag, comment=_comment(flip))
            for request in dict.fromkeys([*([flip.approval] if flip.approval else []), *pending]):
                self._mover.withdraw(flip.flag, request)
        except FlagUnavailableError:
            raise
        except FlagWriteError as error:
            log.error("approval_not_withdrawn", flip=flip.id, incident=flip.incident, cause=str(error))

    # ------------------------------------------------------------ how it ends, or goes on

    def _confirmed(self, flip: Flip, seen: FlagState) -> int:
        now = self._clock.now()
        pins = f"; still on {flip.from_value}: {', '.join(flip.pins)}" if flip.pins and not self._moves_pins else ""
        text = f"{flip.flag} moved from {flip.from_value} to {flip.to_value}: {flip.reason}{pins}"
        self._end(
            flip,
            "flip_confirmed",
            text,
            state="confirmed",
            confirmed_at=now,
            requested_at=flip.requested_at or now,
            written=seen.mark,
            cause=None,
            next_try_at=None,
            tries=0,
            refusals=0,
        )
        return 1

    def _superseded(self, flip: Flip, cause: str, **values: Any) -> int:
        text = f"{flip.flag} is not moved from {flip.from_value} to {flip.to_value}: {cause}"
        self._end(
            flip, "flip_superseded", text, over=cause, state="superseded", cause=cause, next_try_at=None, **values
        )
        return 0

    def _failed(self, flip: Flip, cause: str, **values: Any) -> int:
        stays = f"the override to {flip.to_value} stays until the incident is over"
        text = f"{flip.flag} could not be moved from {flip.from_value}: {cause}; {stays}"
        self._end(flip, "flip_failed", text, state="failed", cause=cause, next_try_at=None, **values)
        return 0

    def _not_reached(self, flip: Flip, error: FlagUnavailableError) -> None:
        wait_s = max(self._backoff_s(flip.tries), min(error.retry_after_s or 0.0, ASKED_AGAIN_AT_MOST_S))
        values: dict[str, Any] = {"tries": flip.tries + 1, "next_try_at": self._in(wait_s), "cause": str(error)}
        if flip.state == "confirmed":
            self._change(flip, **values)
            return
        text = f"{flip.flag} cannot be moved yet, the override to {flip.to_value} is in force: {error}"
        self._end(flip, "flip_waits", text, **values)

    def _refused(self, flip: Flip, error: FlagWriteError) -> None:
        if flip.refusals + 1 < REFUSALS:
            again_at = self._in(self._backoff_s(flip.refusals))
            self._change(flip, refusals=flip.refusals + 1, next_try_at=again_at, cause=str(error))
        elif flip.state == "confirmed":
            self._restoring.give_up(flip, str(error))
        else:
            self._failed(flip, str(error), refusals=flip.refusals + 1)

    def _wait(self, flip: Flip, seconds: float, cause: str | None) -> None:
        self._change(flip, next_try_at=self._in(seconds), cause=cause)

    def _backoff_s(self, tries: int) -> float:
        return min(AGAIN_AT_MOST_S, float(2 ** min(tries, 10))) * (0.75 + self._random() / 2)

    def _in(self, seconds: float) -> dt.datetime:
        return self._clock.now() + dt.timedelta(seconds=seconds)

    def _change(self, flip: Flip, **values: Any) -> Flip:
        return self._flips.change(flip, at=self._clock.now(), **values)

    def _end(self, flip: Flip, kind: AlertKind, text: str, *, over: str | None = None, **values: Any) -> None:
        """Commit it with the alert that tells it."""
        is_new = not self._cases.alerts.is_told(kind, flip.id)
        alert = self._cases.alert(kind, flip.incident, text, flip=dataclasses.replace(flip, **values))
        self._flips.change(flip, at=self._clock.now(), alert=alert, override_over=over, **values)
        if is_new:
            say(alert, flip.from_value)

    # ------------------------------------------------------------ what ends it

    def _why_ended(self, flip: Flip) -> str | None:
        """Why this flip is not wanted any more, for good; a change that may be ours is told from a person's."""
        if flip.restore_at is not None and flip.state in UNWRITTEN:
            return stopped(flip.restore_by or "", flip.restore_reason or "")
        last = self._cases.last(flip.from_value)
        if self._cases.is_over(flip, last):
            return _over(flip, last)
        if last is not None and last.state in LET_THROUGH:
            return f"an operator lets everything through to {flip.from_value} ({last.state.value})"
        if not self._cases.flags().auto_flip_enabled:
            return "flips were switched off by the flag payments-auto-flip-enabled"
        return self._cases.persons_change(flip.flag, flip.incident)

    def _why_dropped(self, flip: Flip) -> str | None:
        """Why the override of a flip that was written, or failed, is not needed any more; None: it is, or is none."""
        if flip.id not in {each.flip for each in self._flips.overrides()}:
            return None
        ended = self._why_ended(flip)
        if ended is not None or flip.state == "failed":
            return ended
        age_s = (self._clock.now() - (flip.confirmed_at or flip.created_at)).total_seconds()
        is_sound = self._cases.source.status().state == "valid"
        if age_s < SEEN_AFTER_S or self._may_others_lag(flip):
            return None
        if serves_of(flip.before or {}).weights:
            # The worker is served one share of it, which may never have been the failing provider's.
            if self._cases.is_told(flip):
                return "the flag's stream has told the change"
        elif (primary := self._cases.flags().primary) != flip.from_value:
            return f"the flag serves {primary} by itself"
        if is_sound and age_s >= DROPPED_AFTER_S:
            return f"the flag has had {DROPPED_AFTER_S:g} s to be told"
        return None


def _is_worth_another_look(error: BaseException) -> bool:
    """Within this round; a store that asks to be left alone is left so beyond it."""
    if isinstance(error, FlagUnavailableError):
        return (error.retry_after_s or 0.0) <= 1.0
    return isinstance(error, FlagChangedError)


def _comment(flip: Flip) -> str:
    """What the flag's history says of it; no other flip has the same."""
    return f"auto-failover: {flip.reason}, incident {flip.incident}"


def _over(flip: Flip, last: Transition | None) -> str:
    return f"the incident {flip.incident} is over" if last is not None else "the circuit's history is gone"


def _as_seen(seen: FlagState) -> str:
    return f"serves {in_words(seen.serves)}" if seen.is_on else f"is off, and serves {seen.off}"


def _pins(flip: Flip, seen: FlagState) -> list[str]:
    return list(seen.pins.get(flip.from_value, ()))
