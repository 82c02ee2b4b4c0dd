"""What reports add up: the dimensions that payments are grouped by, and the measures of each, all of them sums.

A payment becomes a few *facts*: one of its own, at the minute of its creation and the provider that it ended with;
one for each attempt, at that minute and the attempt's own provider; and one for each capture and refund, at the
minute in which it was made. Facts of one minute, provider and decline class are one. A *cell* of the rollup is the
sum of the facts of an hour or a day. Nothing here is ever averaged: rates, intervals and quantiles are made of sums
when they are shown (`router.reports.figures`). Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

MINUTE_US = 60_000_000
HOUR_MINUTES = 60
DAY_MINUTES = 1440

NARROW = ("merchant", "currency", "provider")
"""Dimensions of every cell."""
WIDE = ("country", "brand", "decline_class")
"""Dimensions that only facts and the cells of whole days tell apart: hours of all six are nearly as many as facts."""
DIMENSIONS = (*NARROW, *WIDE)


class Level(enum.IntEnum):
    """Which cells."""

    HOUR = 0
    """Of an hour of UTC, by NARROW."""
    DAY = 1
    """Of a day of UTC, by NARROW."""
    WIDE_DAY = 2
    """Of a day of UTC, by DIMENSIONS."""


class Kind(enum.Enum):
    """What a measure counts."""

    COUNT = "count"
    MONEY = "money"
    """Minor units of the currency."""
    FEE = "fee"
    """Ten-thousandths of the currency's major unit: the digits in which decisions state fees."""
    MILLISECONDS = "milliseconds"


class Measure(NamedTuple):
    """One column of sums."""

    name: str
    kind: Kind
    about: str


def _counts(*pairs: tuple[str, str]) -> list[Measure]:
    return [Measure(name, Kind.COUNT, about) for name, about in pairs]


DECLINE_CLASSES = ("soft", "hard", "fraud", "authentication", "invalid")
FEE_UNITS = 10_000
"""Of one major unit."""

LATENCY_BUCKETS = 26
LATENCY_FIRST_MS = 50.0
LATENCY_GROWTH = 1.3
"""Bucket 0 ends at 50 ms, each further one 1.3 times higher; the last begins at 27 s and is open. A quantile lies in
the bucket that it is said to lie in, so it is off by 30% at most, and by 14% where the bucket's middle is told."""
LATENCIES = tuple(f"latency_{number:02d}" for number in range(LATENCY_BUCKETS))

MEASURES: Sequence[Measure] = (
    *_counts(
        ("payments", "created in the period"),
        ("approved", "of these, now authorized or captured, or canceled after they had been approved"),
        ("declined", "ended by an issuer's or a provider's decline"),
        ("failed", "accepted and never placed: expired while parked, or nothing came of it"),
        ("canceled", "canceled before any approval"),
        ("open", "not final yet: processing, waiting for the customer, or parked"),
    ),
    Measure("amount", Kind.MONEY, "asked for"),
    Measure("approved_amount", Kind.MONEY, "of the approved"),
    Measure("captured_amount", Kind.MONEY, "captured of these payments, whenever that was"),
    Measure("refunded_amount", Kind.MONEY, "refunded of these payments, whenever that was"),
    Measure("captured_in_period", Kind.MONEY, "captured in the period, whenever the payment was created"),
    Measure("refunded_in_period", Kind.MONEY, "refunded in the period, whenever the payment was created"),
    *_counts(
        ("first_answers", "payments whose first attempt was approved or declined"),
        ("first_approvals", "of these, approved"),
        ("attempts", "at this provider, of payments created in the period"),
        ("attempts_approved", ""),
        ("attempts_not_executed", "proved never to have been carried out"),
        ("attempts_in_doubt", "no answer known yet"),
        *((f"declines_{name}", "attempts declined so") for name in (*DECLINE_CLASSES, "other")),
    ),
    Measure("fee_estimated", Kind.FEE, "what the decisions expected the attempts to cost"),
    Measure("fee_actual", Kind.MONEY, "what providers say they charged, where they settle in the payment's currency"),
    Measure("fee_estimated_of_actual", Kind.FEE, "what was expected of those attempts"),
    *_counts(
        ("fees_told", "attempts whose provider has said what it charged"),
        ("fees_told_otherwise", "of these, in another currency: counted with their estimate"),
    ),
    Measure("cost", Kind.FEE, "the actual fee where it is known in this currency, else the estimate"),
    *_counts(
        ("failed_over", "went on to another provider because one was unavailable, or kept away from it"),
        ("cascaded", "went on to another provider after a soft decline"),
        ("recovered_by_failover", "approved there, after no decline"),
    ),
    Measure("recovered_by_failover_amount", Kind.MONEY, ""),
    *_counts(("recovered_by_cascade", "approved after another provider's decline")),
    Measure("recovered_by_cascade_amount", Kind.MONEY, ""),
    *_counts(
        ("parked", "accepted while no provider could be had"),
        ("recovered_by_parking", "of these, approved later; in neither of the other recoveries"),
    ),
    Measure("recovered_by_parking_amount", Kind.MONEY, ""),
    *_counts(("parked_completed", "approved or declined later")),
    Measure("parked_wait_ms", Kind.MILLISECONDS, "of these, from creation to the provider's answer"),
    *_counts(
        ("disputes", "opened by cardholders, each one"),
        ("chargebacks", "of these, lost"),
    ),
    Measure("disputed_amount", Kind.MONEY, "captured of payments with a dispute"),
    Measure("chargeback_amount", Kind.MONEY, "captured of payments with a lost one"),
    *(Measure(name, Kind.COUNT, "attempts by latency") for name in LATENCIES),
)
"""In the order of their columns, which is that of every sequence of sums."""

NAMES = tuple(each.name for each in MEASURES)
INDEX: Mapping[str, int] = {name: number for number, name in enumerate(NAMES)}
FIRST_LATENCY = INDEX[LATENCIES[0]]
MONEY_KINDS = frozenset({Kind.MONEY, Kind.FEE})
"""Never added up across currencies."""


class Dimensions(NamedTuple):
    """What a fact is grouped by; "" where there is none."""

    merchant: str
    currency: str
    provider: str
    country: str
    """Of the card."""
    brand: str
    decline_class: str
    """Of the payment's decline, or of the attempt's."""


class Piece(NamedTuple):
    """What one query answers of a period."""

    level: Level | None
    """None: facts."""
    begin: int
    """Minutes since 1970, UTC; the end is not in it."""
    end: int
    offset: int
    """Minutes that the zone is ahead of UTC there."""
    bucket: int | None
    """Minutes of a row's hour or day; None: rows are of the whole period."""
    adds: Sequence[tuple[int, int]] = ((0, 1),)
    """Into which buckets its sums go, counted from its own, and how often: ((0, 1), (-1, -1)) moves them out of the
    bucket before, ((0, -1),) takes them away."""
    nudge: int = 0
    """Minutes by which buckets begin early: where cells do not begin with the zone's hours and days."""
