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
from router.flip_ending import Ending
from router.flip_restoring import Restoring
from router.flip_rules import Found, found, in_words, to_json
from router.ledger.alerts import AlertKind
from router.ledger.flips import UNWRITTEN, Flip, LostFlipError, Task

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
NO_WAY = "no API token: the flag cannot be moved"


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
        self._ending = Ending(cases, mover)

    def run_once(self) -> int:
        """Carry on every flip that waits for it. Answers how many flags were moved."""
        return sum(self._carry_on(task) for task in self._flips.tasks(self._holder, self._clock.now()))

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
            ending = self._ending
            return self._is_to_be_restored(flip) or ending.why_dropped(flip) is not None or ending.is_unheard(flip)
        if flip.state not in UNWRITTEN:
            return task.is_overriding
        return self._is_due(flip) or (task.is_overriding and self._ending.why_ended(flip) is not None)

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
            self._changes_again(self._flips.get(flip.id) or flip, error)
        except FlagUnavailableError as error:
            self._not_reached(self._flips.get(flip.id) or flip, error)
        except FlagWriteError as error:
            self._refused(self._flips.get(flip.id) or flip, error)
        return moved

    # ------------------------------------------------------------ one look, and what follows from it

    def _once(self, flip: Flip) -> int:
        match flip.state:
            case "confirmed" | "failed":
                why = self._ending.why_dropped(flip)
                if why is None and self._ending.is_unheard(flip):
                    why = self._ending.why_unheard(flip)
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
        ended = self._ending.why_ended(flip)
        if ended is not None and flip.state == "overriding":
            return self._superseded(flip, ended)
        if ended is not None:
            # What was sent may have been done, and the store may be away: the override does not wait for it.
            flip = self._change(flip, override_over=ended)
        if self._mover is None:
            return self._failed(flip, NO_WAY)
        seen = self._mover.look(flip.flag)
        # By another incident's flip the same change may have been made, while the store was away for this one.
        other = self._flips.wrote(flip.flag, seen.mark, but=flip.id)
        match found(flip, seen):
            case Found.WRITTEN if other is None:
                return self._confirmed(flip, seen)
            case Found.WRITTEN | Found.TAKEN:
                self._withdraw(flip)
                return self._superseded(flip, _taken(flip, seen, other))
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

    def _changes_again(self, flip: Flip, error: FlagChangedError) -> None:
        """With every look of a round. No person does that for half a minute: then it is told, and waited for."""
        if flip.tries >= REFUSALS:
            self._not_reached(flip, FlagUnavailableError(str(error)))
            return
        again_at = self._in(self._backoff_s(flip.tries))
        self._change(flip, tries=flip.tries + 1, next_try_at=again_at, cause=str(error))

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


def _is_worth_another_look(error: BaseException) -> bool:
    """Within this round; a store that asks to be left alone is left so beyond it."""
    if isinstance(error, FlagUnavailableError):
        return (error.retry_after_s or 0.0) <= 1.0
    return isinstance(error, FlagChangedError)


def _comment(flip: Flip) -> str:
    """What the flag's history says of it; no other flip has the same."""
    return f"auto-failover: {flip.reason}, incident {flip.incident}"


def _as_seen(seen: FlagState) -> str:
    return f"serves {in_words(seen.serves)}" if seen.is_on else f"is off, and serves {seen.off}"


def _taken(flip: Flip, seen: FlagState, other: str | None) -> str:
    if other is not None:
        return f"the flag {_as_seen(seen)} by {other}"
    # At the first look nobody knows since when: a rollout may have sent the failing provider nobody all along.
    return f"by a person{', or all along' if flip.before is None else ''}: the flag {_as_seen(seen)}"


def _pins(flip: Flip, seen: FlagState) -> list[str]:
    return list(seen.pins.get(flip.from_value, ()))
