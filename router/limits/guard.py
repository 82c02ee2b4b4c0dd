"""What of a key's rate and a merchant's quota a request may have. O(1), a few microseconds, asks no ledger.

A key has its rate four times: for what makes something (payments, decisions), for what changes a payment (captures,
refunds), for reads, and for answers once more. So a flood of new payments starves neither a refund nor a look at one
that is under way; and checkout, beyond its rate or its merchant's quota, still learns what became of a payment whose
answer it lost, by sending it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from router.clock import Clock
from router.limits.quota import QuotaBounds, pace_of
from router.limits.rate import LocalRates, Pace, Rates, divided

Kind = Literal["make", "change", "read", "again"]
Limit = Literal["rate", "quota", "share"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not now, and when."""

    limit: Limit
    retry_after_s: int
    """Whole seconds, as the header wants them; at least 1."""


class Guard:
    """A web process's limits. Thread-safe."""

    def __init__(
        self,
        *,
        rate: Pace,
        bounds: QuotaBounds,
        clock: Clock,
        processes: int = 1,
        rates: Rates | None = None,
        refused: Callable[[str], None] = lambda _limit: None,
    ) -> None:
        """`rates`: what counts for all processes; without it this one counts its own part, one of `processes`.

        `refused` is told of each refusal: `rate`, `quota` or `share`.
        """
        self._rates = LocalRates() if rates is None else rates
        self._parts = processes if rates is None else 1
        self._rate = divided(rate, self._parts)
        self._clock = clock
        self._refused = refused
        self._bounds = bounds
        self._floor = divided(pace_of(bounds.floor), self._parts)
        self._quotas: Mapping[str, Pace] = {}

    def request(self, key_id: str, kind: Kind) -> Refusal | None:
        """Whether this key may do something of this kind now; None: it may."""
        return self._take("rate", f"{kind}:{key_id}", self._rate)

    def payment(self, merchant: str) -> Refusal | None:
        """Whether this merchant may make one more payment now; None: it may."""
        return self._take("quota", f"quota:{merchant}", self._quotas.get(merchant, self._floor))

    def not_made(self, merchant: str) -> None:
        """The last one made no payment: it was known already."""
        self._rates.give_back(f"quota:{merchant}", self._quotas.get(merchant, self._floor))

    def tell(self, limit: Limit) -> None:
        """A request was answered 429 because of this limit."""
        self._refused(limit)

    def follow(self, quotas: Mapping[str, int]) -> None:
        """From now on these are the merchants' payments a minute; every other's are the floor's."""
        self._quotas = {merchant: divided(pace_of(each), self._parts) for merchant, each in quotas.items()}

    @property
    def bounds(self) -> QuotaBounds:
        """Within which quotas follow the past."""
        return self._bounds

    def _take(self, limit: Limit, name: str, pace: Pace) -> Refusal | None:
        wait_s = self._rates.take(name, pace, self._clock.monotonic())
        return None if wait_s <= 0 else Refusal(limit, max(1, math.ceil(wait_s)))
