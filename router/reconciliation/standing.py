"""What should be in the files by now and is not, over all imports: for the alert and the page."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from router.ledger.settlement_views import SettlementViews

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
