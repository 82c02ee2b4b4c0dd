"""A process that does nothing but relay events to Kafka, by the router's own settings and a quick lease."""

from __future__ import annotations

import datetime as dt
import sys

from router.app.loops import build_kafka_relay
from router.clock import SystemClock, TimeOrderedIds
from router.ledger.engine import Database
from router.loops import Loop, Loops
from router.settings import load_settings

if __name__ == "__main__":
    settings, clock, loops = load_settings(), SystemClock(), Loops()
    database = Database(settings.ledger_url, pool_size=2)
    lease = dt.timedelta(seconds=float(sys.argv[1]))
    relay = build_kafka_relay(settings, database, clock, TimeOrderedIds(clock), lease=lease)
    loops.add(Loop("kafka", relay.run_once, lambda: clock.sleep(min(0.1, relay.pause_s))))
    loops.start()
    # Until it is killed, or nobody wants it any more.
    sys.stdin.read()
