"""One process's part in the metrics: its place in the directory, its instruments, and the page over everybody's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import structlog
from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from router.measuring.catalogue import Catalogue
from router.measuring.instruments import Shelf
from router.measuring.lives import Life, bury, read

log = structlog.get_logger("router.measuring")

FOLDER = "metrics"
"""In the run directory."""


class Measuring:
    """What `/metrics` is made from, in one process. Made after a fork, not before."""

    def __init__(self, run_dir: Path, providers: Iterable[str], *, life: str) -> None:
        """`life`: a name of this process that no other one on this machine has, ever.

        Never raises: a machine whose disk is full takes payments, and counts them in memory.
        """
        self.folder = run_dir / FOLDER
        self._life: Life | None = None
        try:
            self._life = Life(self.folder, life.replace("_", "-"))
            bury(self.folder)
        except OSError as error:
            log.error("metrics_not_shared", cause=error.strerror or type(error).__name__)
        self.catalogue = Catalogue(Shelf(self._life), providers)

    def close(self) -> None:
        """The process ends: what it found of itself counts no more, what it counted does."""
        life, self._life = self._life, None
        if life is not None:
            life.end()

    def refused(self, reason: str) -> None:
        """A request was refused by a limit; `reason` is one of a few words of the code, never of the caller."""
        self.catalogue.refused.of(reason).add(1.0)

    def round_ended(self, loop: str, result: str) -> None:
        """A round of a background loop is over: `ok`, `ledger_unavailable` or `failed`."""
        self.catalogue.rounds.of(loop, result).add(1.0)

    def page(self, state: Callable[[], Iterator[Metric]]) -> bytes:
        """Everything in Prometheus's text format; `state` adds what the ledger knows."""
        return generate_latest(_Families(self.folder, state))


class _Families(Collector):
    def __init__(self, folder: Path, state: Callable[[], Iterator[Metric]]) -> None:
        self._folder = folder
        self._state = state

    def collect(self) -> Iterator[Metric]:
        try:
            counted, readable = read(self._folder), 1.0
        except OSError as error:
            log.error("metrics_not_read", cause=error.strerror or str(error))
            counted, readable = (), 0.0
        yield GaugeMetricFamily(
            "pointsman_metrics_readable", "1: the figures of this machine's processes could be read", value=readable
        )
        yield from sorted(counted, key=lambda each: each.name)
        yield from self._state()
