"""What differs between the files and the ledger as of now, over all imports: for the alert, the page and /metrics."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping

from router.clock import Clock
from router.ledger.settlement_views import SettlementViews
from router.reconciliation.matching import DIFFERING

GRACE = dt.timedelta(days=7)
"""How old a payment is before its absence from every file says anything: Stripe's payouts follow within days, Adyen's
batches are closed weekly at the longest by default."""
BOOKED_WITHIN: Mapping[str, dt.timedelta] = {"adyen": dt.timedelta(days=4)}
"""How long after a capture its line may be booked, by provider: a file says nothing of captures in so much before its
last line, for theirs may be in the next file. Adyen books what the acquirer has settled, one to three days later over
a weekend; Stripe's balance transaction is made with the capture."""
USUALLY_WITHIN = dt.timedelta(minutes=5)
"""Clocks differ, and a refund may take a moment."""
COUNTED_AT_ONCE = dt.timedelta(days=7)
"""Of what is in the ledger only: a query over years could take longer than PostgreSQL is let to."""
LEDGER_ONLY = "ledger_only"
"""Of what differs, what is no verdict on a line: there is none."""
KEPT_S = 600.0
"""A count of what is in the ledger only: it changes with an import, and as days pass."""


def covered(views: SettlementViews, provider: str) -> tuple[dt.datetime, dt.datetime] | None:
    """From when and until before when every capture and refund should be in a file; None: there is no file."""
    lines = views.covered(provider)
    if lines is None:
        return None
    return lines[0], lines[1] - BOOKED_WITHIN.get(provider, USUALLY_WITHIN)


def count_missing(views: SettlementViews, provider: str, until: dt.datetime) -> int:
    """Captures and refunds in the ledger only, of all that this provider's files cover until then."""
    period, missing = covered(views, provider), 0
    if period is None:
        return 0
    since, until = period[0], min(period[1], until)
    while since < until:
        ends = min(since + COUNTED_AT_ONCE, until)
        missing += views.count_missing(provider, since, ends)
        since = ends
    return missing


class OpenDifferences:
    """What a scrape of /metrics asks; cheap: what is in the ledger only is counted now and then, and after an import.

    Thread-safe: at worst two scrapes count the same.
    """

    def __init__(
        self, views: SettlementViews, providers: Iterable[str], *, clock: Clock, grace: dt.timedelta = GRACE
    ) -> None:
        self._views = views
        self._providers = tuple(providers)
        self._clock = clock
        self._grace = grace
        self._counted: tuple[float, str | None, Mapping[str, int]] | None = None

    def counts(self) -> Mapping[tuple[str, str], int]:
        """By provider, and `amount_differs`, `fee_differs`, `provider_only` (lines) or `ledger_only` (captures and
        refunds); zeros included. Raises LedgerUnavailableError."""
        found = self._views.differing(DIFFERING)
        missing = self._missing()
        return {
            (provider, kind): missing[provider] if kind == LEDGER_ONLY else found.get((provider, kind), 0)
            for provider in self._providers
            for kind in (*DIFFERING, LEDGER_ONLY)
        }

    def _missing(self) -> Mapping[str, int]:
        now = self._clock.monotonic()
        newest = next((f"{each.id} {each.state}" for each in self._views.imports(limit=1)), None)
        counted = self._counted
        if counted is None or counted[1] != newest or now - counted[0] >= KEPT_S:
            until = self._clock.now() - self._grace
            counted = now, newest, {each: count_missing(self._views, each, until) for each in self._providers}
            self._counted = counted
        return counted[2]
