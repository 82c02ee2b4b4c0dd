"""Undoes a flip: the flag serves again what it served before, if nobody has touched it since."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from typing import Any

import structlog

from flags.contract import (
    ApprovalNeededError,
    FlagChangedError,
    FlagMover,
    FlagState,
    FlagUnavailableError,
    FlagWriteError,
)
from router.flip_cases import Cases, say
from router.flip_rules import alike, in_words, serves_of
from router.ledger.flips import MACHINE, Flip, LostFlipError

log = structlog.get_logger("router.flips")

TOUCHED = "the flag was changed since the flip was written: whoever did that decides"

ASKED_AGAIN_AFTER = dt.timedelta(hours=1)
"""By the machine, where it was refused: a token is replaced within hours, and each try costs some calls."""


class Restoring:
    """One round of a restore, by the worker that holds the flip."""

    def __init__(self, cases: Cases, mover: FlagMover | None) -> None:
        self._cases = cases
        self._mover = mover

    def once(self, flip: Flip) -> int:
        """Look, and move the flag back. Answers how many were. Raises what the mover does."""
        if self._mover is None:
            return self.give_up(flip, "no API token: the flag cannot be moved")
        if flip.before is None or flip.written is None:
            return self.give_up(flip, "what the flag served before is not on record", is_final=True)
        before = serves_of(flip.before)
        seen = self._mover.look(flip.flag)
        if seen.mark != flip.written:
            # Sent by a worker that died, and done.
            if flip.restore_sent_at is not None and seen.is_on and alike(seen.serves, before):
                return self._restored(flip, seen)
            return self.give_up(flip, TOUCHED, is_final=True)
        if flip.restore_by == MACHINE and flip.restore_sent_at is None:
            # It was so when it was asked for, and the store may have been away since.
            why_not = self._cases.why_not_restored(flip.from_value)
            if why_not is not None:
                return self._take_back(flip, why_not)
        # On record before it is sent.
        flip = self._change(flip, restore_sent_at=self._cases.clock.now())
        if flip.lease_until is None or self._cases.clock.now() >= flip.lease_until:
            raise LostFlipError(flip.id)
        comment = f"restore of {flip.id}, incident {flip.incident}: {flip.restore_reason} ({flip.restore_by})"
        try:
            restored = self._mover.move(flip.flag, before, seen=seen, comment=comment)
        except FlagChangedError:
            self._change(flip, restore_sent_at=None)
            raise
        except ApprovalNeededError:
            flip = self._change(flip, restore_sent_at=None)
            return self.give_up(flip, "the flag needs a person's approval: set it back in the flag store")
        except FlagUnavailableError:
            raise
        except FlagWriteError:
            # An answer: nothing of it comes later, so a flag as it was proves that nothing was written.
            with contextlib.suppress(FlagWriteError):
                if self._mover.look(flip.flag).mark == seen.mark:
                    self._change(flip, restore_sent_at=None)
            raise
        return self._restored(flip, restored)

    def _take_back(self, flip: Flip, cause: str) -> int:
        """As if it had not been asked for; the machine asks again when its time has come."""
        log.info("restore_taken_back", flip=flip.id, incident=flip.incident, cause=cause)
        self._change(flip, restore_by=None, restore_reason=None, restore_at=None, cause=cause)
        return 0

    def give_up(self, flip: Flip, cause: str, *, is_final: bool = False) -> int:
        """It stays as the flip made it; a person may ask again, and the machine does so later, if not final."""
        text = f"{flip.flag} is not moved back from {flip.to_value}: {cause}"
        values: dict[str, Any] = {"restore_at": None, "next_try_at": None, "tries": 0, "refusals": 0, "cause": cause}
        if flip.restore_by == MACHINE and not is_final:
            again_at = self._cases.clock.now() + ASKED_AGAIN_AFTER
            values |= {"restore_by": None, "restore_reason": None, "next_try_at": again_at}
        alert = self._cases.alert("restore_failed", flip.incident, text, flip=dataclasses.replace(flip, **values))
        # The machine asks again each hour, which nobody wants to hear of each hour.
        alert = dataclasses.replace(alert, is_answer=flip.restore_by != MACHINE)
        is_new = alert.is_answer or not self._cases.alerts.is_told("restore_failed", flip.id)
        self._change(flip, alert=alert, **values)
        if is_new:
            say(alert, flip.from_value)
        return 0

    def _restored(self, flip: Flip, seen: FlagState) -> int:
        now = self._cases.clock.now()
        served = in_words(serves_of(flip.before or {}))
        text = f"{flip.flag} serves {served} again: {flip.restore_reason} ({flip.restore_by})"
        if flip.evidence.get("pins_moved"):
            text += f"; not moved back: {', '.join(flip.pins or ())}"
        values: dict[str, Any] = {"state": "restored", "restored_at": now, "cause": None, "written": seen.mark}
        alert = self._cases.alert("restored", flip.incident, text, flip=dataclasses.replace(flip, **values))
        # The flag serves again what the flip before this one made of it, and its undoing goes by the mark.
        moved = None if flip.mark is None else (flip.mark, seen.mark)
        self._change(flip, alert=alert, override_over="restored", mark_moved=moved, **values)
        say(alert, flip.from_value)
        return 1

    def _change(self, flip: Flip, **values: Any) -> Flip:
        return self._cases.flips.change(flip, at=self._cases.clock.now(), **values)
