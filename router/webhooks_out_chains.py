"""The order of deliveries to one endpoint: each payment's events one after the other. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Sequence

from router.ledger.webhook_records import Delivery

Chain = Sequence[Delivery]
"""Deliveries of one payment, to be sent in this order, each only when the one before it was accepted."""


def chains(pending: Sequence[Delivery], now: dt.datetime) -> tuple[Sequence[Chain], Sequence[Delivery]]:
    """What may be sent now, the longest due first; and what waits for a try later than its own, with that moment.

    `pending` is all that an endpoint has not accepted, by payment and version. A payment's first is due at its
    time; what is behind it waits for it, whatever its own says.
    """
    due, postponed = [], []
    for _payment, each in itertools.groupby(pending, key=lambda delivery: delivery.payment_id):
        chain = list(each)
        first = chain[0]
        if first.next_try_at <= now:
            due.append(chain)
            continue
        waiting = [later for later in chain[1:] if later.next_try_at < first.next_try_at]
        postponed += [dataclasses.replace(later, next_try_at=first.next_try_at) for later in waiting]
    due.sort(key=lambda chain: (chain[0].next_try_at, chain[0].number))
    return due, postponed
