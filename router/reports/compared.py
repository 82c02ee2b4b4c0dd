"""Routing as it was, against always taking the primary first: the replay (`router.replay`), on demand.

It looks at every decision of the period, 10,000 payments or so a second, so whoever asks for it waits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from flags.contract import RoutingTuning
from router.ledger.decision_log import DecisionLog, LogEntry
from router.replay.asking import Asked
from router.replay.report import replay
from router.reports.query import Query, QueryError

ALWAYS_THE_PRIMARY = Asked(strategy="primary-first", tuning=RoutingTuning(explore=0.0, holdout=0.0))
FILTERS = frozenset({"merchant", "currency"})
"""What a replay can be asked of."""


def against_the_primary(log: DecisionLog, query: Query, *, most: int | None = None) -> dict[str, Any]:
    """What the replay of `ALWAYS_THE_PRIMARY` tells of a query's period, as `router.replay` shows it.

    Raises QueryError for filters that it does not know, or for more than `most` payments.
    """
    if not query.filters.keys() <= FILTERS:
        raise QueryError("compare", f"filters can be {' and '.join(sorted(FILTERS))} only")
    found = log.between(
        query.start, query.end, merchant=query.filters.get("merchant"), currency=query.filters.get("currency")
    )
    return replay(found if most is None else _at_most(found, most), ALWAYS_THE_PRIMARY).to_json()


def _at_most(entries: Iterator[LogEntry], most: int) -> Iterator[LogEntry]:
    yield from itertools.islice(entries, most)
    if next(entries, None) is not None:
        raise QueryError("compare", f"at most {most} payments here; `pointsman replay` takes any number")
