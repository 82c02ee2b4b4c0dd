"""What the web's keys and limits need built, and the loops that keep them in step with the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from router.api.key_ring import KeyRing
from router.app.core import Core
from router.clock import Clock
from router.ledger.counts import hour_of
from router.ledger.keys import KeyLedger
from router.ledger.merchant_volumes import MerchantVolumes
from router.ledger.unavailable import LedgerUnavailableError
from router.limits.guard import Guard
from router.limits.quota import QuotaBounds, hours_that_count, quotas
from router.limits.rate import Pace
from router.loops import Loop, Loops
from router.settings import Settings

KEYS_INTERVAL_S = 60.0
"""How often it is written when keys were used last, in one commit."""
QUOTAS_INTERVAL_S = 60.0
"""A quota follows hours that are over: a minute is soon enough."""


def build_guard(settings: Settings, clock: Clock, *, refused: Callable[[str], None] = lambda _limit: None) -> Guard:
    """The limits by the settings; `refused` is told of each refusal: `rate`, `quota` or `share`."""
    rates = None
    if settings.limits_store is not None:
        from router.limits.shared import SharedRates, redis_storage

        storage = redis_storage(settings.limits_store.get_secret_value())
        rates = SharedRates(storage, processes=settings.web_processes)
    return Guard(
        rate=Pace(settings.rate_per_key, settings.rate_per_key * settings.rate_burst_seconds),
        bounds=QuotaBounds(settings.quota_floor_per_minute, settings.quota_cap_per_minute, settings.quota_growth),
        clock=clock,
        processes=settings.web_processes,
        rates=rates,
        refused=refused,
    )


def add_limits(loops: Loops, core: Core, ring: KeyRing, guard: Guard) -> None:
    """Add the web's loops."""
    ledger, volumes = KeyLedger(core.database), MerchantVolumes(core.database)

    def keys() -> int:
        used = ring.take_used()
        with contextlib.suppress(LedgerUnavailableError):  # the next use says it again
            ledger.used(used)
        return ledger.end_expired(core.clock.now())

    def follow() -> None:
        hours = hours_that_count(hour_of(core.clock.now()))
        guard.follow(quotas(volumes.peaks(hours), guard.bounds))

    loops.add(Loop("keys", keys, loops.pause(KEYS_INTERVAL_S)))
    loops.add(Loop("quotas", follow, loops.pause(QUOTAS_INTERVAL_S)))
