"""What ends a flip, and what ends its override: people, the incident's end, and the flag that says it by itself."""

from __future__ import annotations

from flags.contract import FlagMover, FlagState, FlagWriteError
from router.flip_cases import Cases
from router.flip_rules import serves_of
from router.ledger.flips import UNWRITTEN, Flip, stopped
from router.transitions import State, Transition

LET_THROUGH = frozenset({State.BYPASS, State.METRICS_ONLY})
"""No such circuit ever closes, so its incident does not end by itself."""
SEEN_AFTER_S = 5.0
"""After the write every process's stream has had so long: this one's alone is no proof that the others have it. The
SDK opens a stream that broke at that moment after 1 s, and after 2 s more where that failed."""
UNHEARD_AFTER_S = 30.0
"""A stream that is sound has told the change long before; one that is silently stalled is noticed after 300 s."""
LOOK_AGAIN_S = 30.0


class Ending:
    """One worker's judgement."""

    def __init__(self, cases: Cases, mover: FlagMover | None) -> None:
        self._cases = cases
        self._mover = mover
        self._looked: dict[str, float] = {}

    def why_ended(self, flip: Flip) -> str | None:
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

    def why_dropped(self, flip: Flip) -> str | None:
        """Why the override of a flip that was written, or failed, is not needed any more; None: it is, or is none.

        Asks nobody but the ledger and the stream, so that it can be asked in every round.
        """
        if not self._is_overriding(flip):
            return None
        ended = self.why_ended(flip)
        if ended is not None or flip.state == "failed":
            return ended
        if self._age_s(flip) < SEEN_AFTER_S:
            return None
        if serves_of(flip.before or {}).weights:
            # The worker is served one share of it, which may never have been the failing provider's.
            return "the flag's stream has told the change" if self._cases.is_told(flip) else None
        primary = self._cases.flags().primary
        return None if primary == flip.from_value else f"the flag serves {primary} by itself"

    def is_unheard(self, flip: Flip) -> bool:
        """Whether the stream has told nothing of the write for so long that the store is to be asked, now."""
        if flip.state != "confirmed" or self._age_s(flip) < UNHEARD_AFTER_S or not self._is_overriding(flip):
            return False
        now = self._cases.clock.monotonic()
        return now - self._looked.get(flip.id, now - LOOK_AGAIN_S) >= LOOK_AGAIN_S

    def why_unheard(self, flip: Flip) -> str | None:
        """Why the override of a flip that `is_unheard` is not needed any more, by a look at the flag; None: it is.

        A stream may be stalled, and then the flag holds what was written; or a person has set the flag back before
        the stream told anything. A store that is away proves neither.
        """
        self._looked[flip.id] = self._cases.clock.monotonic()
        if self._mover is None:
            return f"the flag has had {UNHEARD_AFTER_S:g} s to be told"
        try:
            seen = self._mover.look(flip.flag)
        except FlagWriteError:
            return None
        return f"the flag was changed since, and serves {flip.from_value}" if _serves(seen, flip.from_value) else None

    def _is_overriding(self, flip: Flip) -> bool:
        return flip.id in {each.flip for each in self._cases.flips.overrides()}

    def _age_s(self, flip: Flip) -> float:
        return (self._cases.clock.now() - (flip.confirmed_at or flip.created_at)).total_seconds()


def _serves(seen: FlagState, provider: str) -> bool:
    return seen.serves.share_of(provider) > 0 if seen.is_on else bool(seen.off == provider)


def _over(flip: Flip, last: Transition | None) -> str:
    return f"the incident {flip.incident} is over" if last is not None else "the circuit's history is gone"
