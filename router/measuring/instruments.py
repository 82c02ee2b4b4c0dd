"""Counters, histograms and gauges over cells: what a hook holds is a child whose cell is found already.

A count costs a lock that nobody else wants and one store; no registry is asked, no label is formatted.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import structlog
from prometheus_client.utils import floatToGoString

from router.measuring.cells import Cell, CellFile, alone, key
from router.measuring.lives import Life

log = structlog.get_logger("router.measuring")

Mode = Literal["livesum", "livemax", "livemin"]
"""How the gauges of the living processes become one."""


_bound: Callable[[float], str] = floatToGoString
"""A bound as the library writes it."""


class Shelf:
    """Where one process's cells are made. Thread-safe."""

    def __init__(self, life: Life | None) -> None:
        """`life` None: they are this process's alone."""
        self._life = life
        self._files: dict[str, CellFile] = {}
        self._lock = threading.Lock()
        self._full = False

    def cell(self, prefix: str, family: str, sample: str, labels: Mapping[str, str], about: str) -> Cell:
        """A new figure; where the disk has no room for it, nobody but this process sees it."""
        if self._life is None:
            return alone()
        with self._lock:
            try:
                file = self._files.get(prefix)
                if file is None:
                    file = self._files[prefix] = self._life.file(prefix)
                return file.cell(key(family, sample, labels, about))
            except OSError as error:
                if not self._full:
                    log.error("figures_not_shared", family=family, cause=error.strerror)
                self._full = True
                return alone()


class Counter:
    """Counts what happened. `name` without its `_total`."""

    def __init__(self, shelf: Shelf, name: str, about: str, labels: Sequence[str] = ()) -> None:
        self._shelf = shelf
        self.name = name
        self._about = about
        self.labels = tuple(labels)
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._lock = threading.Lock()

    def of(self, *values: str) -> Cell:
        """The figure with these labels, in the order of their names; made with its first use."""
        found = self._cells.get(values)
        return found if found is not None else self._make(values)

    def _make(self, values: tuple[str, ...]) -> Cell:
        with self._lock:
            if values not in self._cells:
                labels = dict(zip(self.labels, values, strict=True))
                self._cells[values] = self._shelf.cell(
                    "counter", self.name, f"{self.name}_total", labels, self._about
                )
            return self._cells[values]


class Observed:
    """One histogram: how many values lay below each bound, and their sum."""

    __slots__ = ("_bounds", "_buckets", "_sum")

    def __init__(self, bounds: Sequence[float], buckets: Sequence[Cell], total: Cell) -> None:
        """A cell for each bound, and one for what is above them all."""
        self._bounds = tuple(bounds)
        self._buckets = tuple(buckets)
        self._sum = total

    def observe(self, value: float) -> None:
        """One value more, in the histogram's unit."""
        # A bound is the highest value of its bucket.
        self._buckets[bisect_left(self._bounds, value)].add(1.0)
        self._sum.add(value)


class Histogram:
    """How values are spread. `bounds`: rising, without the infinite one."""

    def __init__(
        self, shelf: Shelf, name: str, about: str, labels: Sequence[str] = (), *, bounds: Sequence[float]
    ) -> None:
        self._shelf = shelf
        self.name = name
        self._about = about
        self.labels = tuple(labels)
        self._bounds = tuple(bounds)
        self._children: dict[tuple[str, ...], Observed] = {}
        self._lock = threading.Lock()

    def of(self, *values: str) -> Observed:
        """The histogram with these labels; made with its first use."""
        found = self._children.get(values)
        return found if found is not None else self._make(values)

    def _make(self, values: tuple[str, ...]) -> Observed:
        with self._lock:
            if values not in self._children:
                labels = dict(zip(self.labels, values, strict=True))
                total = self._cell("sum", labels)
                bounds = [_bound(each) for each in (*self._bounds, float("inf"))]
                buckets = [self._cell("bucket", labels | {"le": each}) for each in bounds]
                self._children[values] = Observed(self._bounds, buckets, total)
            return self._children[values]

    def _cell(self, suffix: str, labels: Mapping[str, str]) -> Cell:
        return self._shelf.cell("histogram", self.name, f"{self.name}_{suffix}", labels, self._about)


class Gauge:
    """What a process finds of itself now; dead processes have no part in it."""

    def __init__(self, shelf: Shelf, name: str, about: str, labels: Sequence[str] = (), *, mode: Mode) -> None:
        self._shelf = shelf
        self.name = name
        self._about = about
        self.labels = tuple(labels)
        self._mode = mode
        self._cells: dict[tuple[str, ...], Cell] = {}
        self._lock = threading.Lock()

    def of(self, *values: str) -> Cell:
        """The figure with these labels."""
        found = self._cells.get(values)
        if found is not None:
            return found
        with self._lock:
            if values not in self._cells:
                labels = dict(zip(self.labels, values, strict=True))
                self._cells[values] = self._shelf.cell(
                    f"gauge_{self._mode}", self.name, self.name, labels, self._about
                )
            return self._cells[values]
