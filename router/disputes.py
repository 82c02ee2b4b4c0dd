"""What became of a payment's disputes, told in any order. Pure.

Each dispute goes its own way, from opened to won or lost; what was won and then lost, by a second chargeback, is
lost. A payment can have several, one after another: the one that asks most of us is shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

_STAGES: Mapping[str | None, int] = {"opened": 1, "won": 2, "lost": 3}
_GRAVITY: Mapping[str | None, int] = {"won": 1, "lost": 2, "opened": 3}
"""An open one has a date to answer by."""


def told(
    known: Mapping[str, Any] | None, dispute_id: str, stage: str | None, notice: str, at: dt.datetime
) -> dict[str, Any] | None:
    """A payment's disputes after a provider's word on one; None where that is no news.

    `dispute_id` is the provider's, or "" where it names none. The answer is the gravest dispute's `reason` (its
    stage), `notice` (the provider's word) and `at`, with each of them by its id under `each`.
    """
    before = known or {}
    # Rows of before there could be several hold one, of no known id.
    each = dict(before.get("each") or ({"": _alone(before)} if before else {}))
    if dispute_id in each and _STAGES.get(each[dispute_id]["reason"], 0) >= _STAGES.get(stage, 0):
        return None
    each[dispute_id] = {"reason": stage, "notice": notice, "at": at.isoformat()}
    gravest = max(sorted(each), key=lambda name: _GRAVITY.get(each[name]["reason"], 0))
    return {**each[gravest], "each": each}


def _alone(dispute: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dispute[name] for name in ("reason", "notice", "at")}
