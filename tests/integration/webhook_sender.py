"""A worker's webhook sending as a process of its own, which a test kills: `python -m … URL MOMENT`."""

from __future__ import annotations

import datetime as dt
import sys
import time

from router.clock import ManualClock, SystemClock, TimeOrderedIds
from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed
from router.ledger.webhook_deliveries import DeliveryLedger
from router.webhooks_out import Relay
from router.webhooks_out_addresses import EVERYWHERE
from router.webhooks_out_post import Poster


def main(url: str, moment: str) -> None:
    """Send, round after round, until somebody ends the process; the clock stands, so that leases last."""
    database = Database(url, pool_size=10)
    ids = TimeOrderedIds(SystemClock())
    relay = Relay(
        feed=EventFeed(database),
        deliveries=DeliveryLedger(database),
        post=Poster(allow_http=True, allowed=EVERYWHERE),
        holder=ids.new("webhooks"),
        clock=ManualClock(dt.datetime.fromisoformat(moment)),
        ids=ids,
        random=lambda: 0.5,
    )
    while True:
        relay.run_once()
        time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
