"""Whether a log can tell what another policy would have earned; the rule, in one place. Pure.

It cannot where the policy asked about goes where the log never goes (its first choices there could have ended in
anything), where too few payments carry what is told of the others, or where one payment carries too much of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.replay.estimate import Support

UNSUPPORTED_AT_MOST = 0.01
"""Share of all first choices that may be without support: the interval is widened by as much at both ends, and a
percentage point is what such a change of policy is expected to bring."""
UNSUPPORTED_OF_MOVED = 0.5
"""Of what would have had another first choice: where more than half has no support, the log has no overlap with the
policy in the very payments that are asked about, however few they are."""
EFFECTIVE_AT_LEAST = 2.0
"""Payments, each counting the same, that must carry what is told of the moved. The intervals hold with fewer, as
`make replay-honesty` shows, but say next to nothing."""
MOVED_MATTERS = 0.1
"""Where fewer would have had another first choice, they cannot change the rate by more, whatever they earn."""
LARGEST_WEIGHT = 0.2
"""Share of all weights that one payment may have."""


def doubts(support: Support) -> Sequence[str]:
    """Why it cannot be told, in words for a person; empty where it can."""
    found = []
    lacking = support.unsupported
    if lacking > UNSUPPORTED_AT_MOST or lacking > UNSUPPORTED_OF_MOVED * support.moved:
        found.append(
            f"{_percent(lacking)} of the payments would have gone first where the log never does: "
            "it has no overlap with this policy there (did it explore?)"
        )
    elif support.moved > MOVED_MATTERS and support.effective_moved < EFFECTIVE_AT_LEAST:
        found.append(
            f"{_percent(support.moved)} would have had another first choice, and only "
            f"{support.effective_moved:.1f} payments' worth of the log tells of them (at least "
            f"{EFFECTIVE_AT_LEAST:g} are needed): ask about a longer period"
        )
    if support.largest_weight > LARGEST_WEIGHT:
        found.append(
            f"one payment has {_percent(support.largest_weight)} of all weights (at most "
            f"{_percent(LARGEST_WEIGHT)}): ask about a longer period"
        )
    return found


def _percent(share: float) -> str:
    return f"{share * 100:.2f}%" if share >= 0.0001 or share == 0 else "less than 0.01%"
