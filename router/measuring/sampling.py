"""What a process looks up about itself, every second: circuits, places taken, pools, threads, memory, flags."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path

import sqlalchemy as sa

from flags.contract import FlagSource
from router.clock import Clock
from router.health import ProviderHealth
from router.ledger.engine import Database
from router.measuring.catalogue import Catalogue
from router.transitions import State

SAMPLE_INTERVAL_S = 1.0
"""A scrape is every 15 s or so; a round costs a fraction of a millisecond."""
FLAG_STATES = ("initializing", "valid", "interrupted", "off")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc/self")

Used = Callable[[], tuple[int, int]]
"""Of a pool: how many are in use, and how many there may be."""


class Sampler:
    """One process's looks at itself."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        role: str,
        flags: FlagSource,
        flag_source: str,
        health: ProviderHealth,
        database: Database,
        http_pools: Mapping[str, Used],
        web_threads: int,
        clock: Clock,
    ) -> None:
        """`flag_source`: `launchdarkly` or `file`. `web_threads`: 0 in a process that answers no requests."""
        self._found = catalogue
        self._role = role
        self._flags = flags
        self._health = health
        self._pool = database.engine.pool
        self._most_connections = database.most_connections
        self._http_pools = http_pools
        self._clock = clock
        self._began_at = clock.monotonic()
        self._cpu_s = 0.0
        now = clock.now().timestamp()
        catalogue.processes.of(role).set(1.0)
        catalogue.started.of(role).set(now)
        catalogue.build.of(version(), platform.python_version()).set(1.0)
        catalogue.flag_source.of(flag_source).set(1.0)
        if web_threads:
            catalogue.web_threads.of().set(web_threads)

    def run_once(self) -> int:
        """Look, and write it down. Answers how many providers there are."""
        self._look_at_process()
        self._look_at_flags()
        for provider in self._found.providers:
            self._look_at_provider(provider)
        return len(self._found.providers)

    def _look_at_process(self) -> None:
        found, role = self._found, self._role
        found.sampled.of(role).set(self._clock.now().timestamp())
        found.threads.of(role).set(threading.active_count())
        spent_s = time.process_time()
        found.cpu.of(role).add(spent_s - self._cpu_s)
        self._cpu_s = spent_s
        if PROC.is_dir():  # on Linux
            resident = int((PROC / "statm").read_text().split()[1]) * PAGE_BYTES
            found.memory.of(role).set(resident)
            found.descriptors.of(role).set(sum(1 for _ in (PROC / "fd").iterdir()))
        if isinstance(self._pool, sa.QueuePool):
            found.pool_used.of().set(self._pool.checkedout())
            found.pool_size.of().set(self._most_connections)

    def _look_at_flags(self) -> None:
        status = self._flags.status()
        for state in FLAG_STATES:
            self._found.flag_state.of(state).set(float(state == status.state))
        age_s = 0.0
        if status.state != "valid":
            # Never known to be right: since this process began, at least.
            age_s = self._clock.monotonic() - self._began_at
            if status.as_of is not None:
                age_s = (self._clock.now() - status.as_of).total_seconds()
        self._found.staleness.of().set(max(0.0, age_s))

    def _look_at_provider(self, provider: str) -> None:
        found, circuit = self._found, self._health.snapshot(provider)
        for state in State:
            found.state.of(provider, state.value).set(float(state is circuit.state))
        found.suspect.of(provider).set(float(circuit.suspect))
        found.share.of(provider).set(self._health.readiness(provider).share)
        calls, failures = self._health.stage_calls(provider)
        found.stage_calls.of(provider).set(calls)
        found.stage_failures.of(provider).set(failures)
        places = self._health.bulkhead(provider)
        found.places.of(provider).set(places.permits)
        found.places_used.of(provider).set(places.in_use)
        if provider in self._http_pools:
            used, size = self._http_pools[provider]()
            found.connections_used.of(provider).set(used)
            found.connections.of(provider).set(size)


def version() -> str:
    """This build's."""
    try:
        return metadata.version("pointsman")
    except metadata.PackageNotFoundError:
        return "unknown"


def pools(providers: Iterable[tuple[str, object]]) -> Mapping[str, Used]:
    """The HTTP pools of those providers that have one to look at."""
    return {name: each.pool_use for name, each in providers if hasattr(each, "pool_use")}
