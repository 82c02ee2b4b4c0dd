"""What the router costs, beside what it is compared with: one table, each line a ratio measured in one run.

    make bench [BENCH="--parts decisions,payments --quick"]

Both sides run at the same time on this machine behind the same server with the same options, and are loaded by turns,
so that whatever else the machine does hits both; a ratio is the median over the turns of that turn's ratio. The load
comes from `bench/load.py`. What each line says, and what it is on a developer's machine: docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import town
from bench.town import Side

DECISION = json.dumps(
    {
        "reference": "ORD-@@",
        "amount": 1999,
        "currency": "EUR",
        "payment_method": {"type": "card", "card": {"brand": "visa", "country": "DE", "funding": "credit"}},
        "customer": {"id": "cus_1", "country": "DE"},
    }
)
PAYMENT = json.dumps(
    {
        "reference": "ORD-@@",
        "amount": 1999,
        "currency": "EUR",
        "payment_method": {
            "type": "card",
            "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
            "card": {"brand": "visa", "country": "DE", "funding": "credit"},
        },
        "customer": {"id": "cus_1", "country": "DE"},
    }
)
PROVIDER_MS = 100
PACED = 147
"""Decisions a second at which the best-known open engine reports a p95 of 14 ms on two cores."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    part: str
    what: str
    ours: str
    theirs: str
    figure: float
    """The ratio; a difference where the unit says ms."""
    unit: str
    wanted: str
    met: bool


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    turns: int
    seconds: float
    paced_s: float
    rows_ledger: Path | None


class Runs:
    """What came of the turns, by side."""

    def __init__(self) -> None:
        self._of: dict[str, list[dict[str, Any]]] = {}

    def add(self, side: str, found: dict[str, Any]) -> None:
        """Keep one run."""
        self._of.setdefault(side, []).append(found)

    def median(self, side: str, figure: str) -> float:
        """Of the side's runs."""
        return statistics.median(each[figure] for each in self._of[side])

    def ratio(self, ours: str, theirs: str, figure: str) -> float:
        """The median of each turn's own ratio: neighbours in time share whatever else the machine was doing."""
        pairs = zip(self._of[ours], self._of[theirs], strict=True)
        return statistics.median(mine[figure] / other[figure] for mine, other in pairs)

    def quantile(self, side: str, share: float) -> float:
        """Of all latencies of the side's runs together, ms."""
        every = sorted(taken for each in self._of[side] for taken in each["all"])
        return float(every[min(len(every) - 1, int(len(every) * share))])


def by_turns(sides: Sequence[Side], effort: Effort, *, connections: int = 8) -> Runs:
    """Load each in turn, as fast as it answers; who begins changes with every turn."""
    runs = Runs()
    for side in sides:
        side.load(1.0, connections=connections)
    for turn in range(effort.turns):
        for side in sides if turn % 2 else tuple(reversed(sides)):
            runs.add(side.name, side.load(effort.seconds, connections=connections))
    return runs


def compared(part: str, what: str, runs: Runs, ours: str, theirs: str, *, least: float) -> Line:
    """A line of requests a second, with the processor's time beside them."""
    ratio = runs.ratio(ours, theirs, "per_second")
    told = {
        side: f"{runs.median(side, 'per_second'):.0f}/s, {runs.median(side, 'cpu_us'):.0f} µs"
        for side in (ours, theirs)
    }
    return Line(part, what, told[ours], told[theirs], round(ratio, 3), "×", f"≥ {least:g}", ratio >= least)


# ---------------------------------------------------------------- the parts


def decisions(effort: Effort, folder: Path) -> Iterator[Line]:
    """Decisions beside an empty endpoint; how many there are a second on all cores; how long one takes at a pace."""
    with town.bare({}) as (port, web), town.router(folder / "one", {}) as (mine, own):
        empty = Side("empty", port, "/empty", DECISION, web)
        ours = Side("decision", mine, "/v1/decisions", DECISION, own, town.KEY)
        runs = by_turns([empty, ours], effort)
        yield compared("decisions", "decisions, beside an empty endpoint", runs, "decision", "empty", least=0.4)
        paced = Runs()
        for _ in range(effort.turns):
            paced.add("decision", ours.load(effort.paced_s, per_second=PACED))
        p95 = statistics.median(each["p95"] for each in paced._of["decision"])
        told = f"p50 {paced.median('decision', 'p50'):.2f} ms"
        yield Line("decisions", f"p95 at {PACED} decisions/s", told, "", round(p95, 2), "ms", "< 5", p95 < 5)
    with town.router(folder / "two", {}, processes=2) as (mine, own):
        ours = Side("decision", mine, "/v1/decisions", DECISION, own, town.KEY)
        runs = by_turns([ours], effort, connections=16)
        rate = runs.median("decision", "per_second")
        told = f"{runs.median('decision', 'cpu_us'):.0f} µs"
        yield Line("decisions", "decisions/s, two processes", told, "", round(rate), "/s", "≥ 1700", rate >= 1700)


def payments(effort: Effort, folder: Path) -> Iterator[Line]:
    """Payments beside a bare endpoint that calls the SDK, over SQLite and over PostgreSQL."""
    with town.sandbox() as ports, town.bare(ports) as (port, web):
        bare = Side("SDK alone", port, "/charge", PAYMENT, web)
        for name, database in databases():
            with database as url, town.router(folder / name, ports, database=url) as (mine, own):
                ours = Side("payment", mine, "/v1/payments", PAYMENT, own, town.KEY)
                runs = by_turns([bare, ours], effort)
                yield compared(
                    "payments", f"payments on {name}, beside the SDK alone", runs, "payment", "SDK alone", least=0.5
                )


def latency(effort: Effort, folder: Path) -> Iterator[Line]:
    """What the router adds to a provider that takes 100 ms, at 50 payments a second."""
    with town.sandbox() as ports:
        town.slow(ports, PROVIDER_MS)
        for name, database in databases():
            with database as url, town.router(folder / name, ports, database=url) as (mine, own):
                ours = Side("payment", mine, "/v1/payments", PAYMENT, own, town.KEY)
                ours.load(2.0, per_second=50)
                runs = Runs()
                for _ in range(effort.turns):
                    runs.add("payment", ours.load(effort.paced_s, per_second=50))
                    runs.add("direct", direct(ports, effort.paced_s, per_second=50))
                for share, most in ((0.5, 5.0), (0.99, 20.0)):
                    mine_ms, direct_ms = runs.quantile("payment", share), runs.quantile("direct", share)
                    added, word = mine_ms - direct_ms, f"p{share * 100:.0f}"
                    yield Line(
                        "latency",
                        f"{word} added on {name}, 50/s, provider {PROVIDER_MS} ms",
                        f"{mine_ms:.1f} ms",
                        f"{direct_ms:.1f} ms",
                        round(added, 2),
                        "ms",
                        f"≤ {most:g}",
                        added <= most,
                    )


def direct(ports: dict[str, int], seconds: float, *, per_second: float) -> dict[str, Any]:
    """The SDK's own call in threads of this process, at that pace: no server, no HTTP hop of ours."""
    os.environ["BENCH_STRIPE"] = f"http://127.0.0.1:{ports['stripe']}"
    from bench import bare

    order, taken = json.loads(PAYMENT), []

    def pay(due: float) -> None:
        bare.charge(order, f"direct-{time.time_ns()}-{threading.get_ident()}")
        taken.append((time.perf_counter() - due) * 1000)

    begun, threads = time.perf_counter(), []
    for number in range(int(seconds * per_second)):
        due = begun + number / per_second
        time.sleep(max(0.0, due - time.perf_counter()))
        threads.append(threading.Thread(target=pay, args=(due,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return {"all": taken}


def processes(effort: Effort, folder: Path) -> Iterator[Line]:
    """Processor time of a payment with two web processes beside one: the load and the database share the cores.

    And the same of the bare endpoint, which shares nothing between its processes: what a busy machine adds by itself
    (two virtual cores of one physical core slow each other down) is in both.
    """
    with town.sandbox() as ports, contextlib.ExitStack() as stack:
        name, database = databases()[-1]
        url = stack.enter_context(database)
        sides = []
        for number in (1, 2):
            port, web = stack.enter_context(town.router(folder / f"{number}", ports, database=url, processes=number))
            sides.append(Side(f"{number}", port, "/v1/payments", PAYMENT, web, town.KEY))
            port, web = stack.enter_context(town.bare(ports, processes=number))
            sides.append(Side(f"bare {number}", port, "/charge", PAYMENT, web))
        runs = by_turns(sides, effort)

        def told(side: str) -> str:
            return f"{runs.median(side, 'cpu_us'):.0f} µs, {runs.median(side, 'per_second'):.0f}/s"

        ours, theirs = runs.ratio("2", "1", "cpu_us"), runs.ratio("bare 2", "bare 1", "cpu_us")
        what = f"CPU a payment on {name}, two processes beside one"
        yield Line("processes", what, told("2"), told("1"), round(ours, 3), "×", "≤ 1.15", ours <= 1.15)
        what = "the same of the SDK alone, which shares nothing: the machine's part"
        yield Line("processes", what, told("bare 2"), told("bare 1"), round(theirs, 3), "×", "", True)
        own = ours / theirs
        yield Line("processes", "what the router adds to that", "", "", round(own, 3), "×", "≤ 1.15", own <= 1.15)


def ledger(effort: Effort, folder: Path) -> Iterator[Line]:
    """Payments over a ledger of millions of rows (`--ledger`) beside those over an empty one."""
    if effort.rows_ledger is None:
        sys.stderr.write("ledger: left out; say --ledger <run folder of `pointsman generate-ledger`>\n")
        return
    with town.sandbox() as ports, contextlib.ExitStack() as stack:
        sides = []
        for name, run_dir in (("empty", folder / "empty"), ("full", effort.rows_ledger)):
            # Without a worker: made-up payments that nobody has rolled up yet would keep it busy for minutes.
            port, web = stack.enter_context(town.router(run_dir, ports, worker=False))
            sides.append(Side(name, port, "/v1/payments", PAYMENT, web, town.KEY))
        runs = by_turns(sides, effort)
        what = f"payments on SQLite, {rows_of(effort.rows_ledger) / 1e6:.1f} million rows beside none"
        yield compared("ledger", what, runs, "full", "empty", least=0.9)


def rows_of(run_dir: Path) -> int:
    """Rows of payments, attempts, operations and events, of which none is ever deleted."""
    tables = ("payments", "attempts", "operations", "payment_events")
    with contextlib.closing(sqlite3.connect(run_dir / "ledger.db")) as connection:
        return sum(connection.execute(f"SELECT max(rowid) FROM {each}").fetchone()[0] or 0 for each in tables)  # noqa: S608


PARTS: dict[str, Callable[[Effort, Path], Iterator[Line]]] = {
    "decisions": decisions,
    "payments": payments,
    "latency": latency,
    "processes": processes,
    "ledger": ledger,
}


def databases() -> list[tuple[str, contextlib.AbstractContextManager[str | None]]]:
    """SQLite in the run folder, and a PostgreSQL out of the tests' wheel; both commit durably."""
    return [("SQLite", contextlib.nullcontext(None)), ("PostgreSQL", _postgres())]


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    from tests.integration.postgres import served

    durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
    with served(**durable) as server:
        yield server.databases.create()


def table(lines: Sequence[Line]) -> str:
    """As Markdown."""
    rows = ["| what | router | beside it | figure | wanted | |", "|---|---|---|---|---|---|"]
    for each in lines:
        verdict = "met" if each.met else "missed"
        figure = f"{each.figure:g} {each.unit}"
        rows.append(f"| {each.what} | {each.ours} | {each.theirs} | {figure} | {each.wanted} | {verdict} |")
    return "\n".join(rows)


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def synced_ms(folder: Path, *, times: int = 100) -> list[float]:
    """How long a page takes to be on this disk for good: a payment waits for it twice."""
    taken = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fsync(file.fileno())
            taken.append((time.perf_counter() - begun) * 1000)
    return taken


def put_into(page: Path, text: str) -> None:
    """Between the page's two marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """Measure, print and write; 1 where `--check` asks and something was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--quick", action="store_true", help="five short turns: under two minutes in all")
    parser.add_argument("--ledger", type=Path, help="a run folder with a ledger of ten million rows; it is added to")
    parser.add_argument("--json", type=Path, default=Path(".run/bench.json"))
    parser.add_argument("--page", type=Path, help="a Markdown page with the marks to put the table between")
    parser.add_argument("--check", action="store_true", help="fail when a line misses what is wanted")
    options = parser.parse_args()
    turns, seconds = (5, 1.0) if options.quick else (options.turns, options.seconds)
    effort = Effort(turns, seconds, max(seconds, 2.0), options.ledger)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        synced = synced_ms(Path(folder))
        for name in options.parts.split(","):
            for line in PARTS[name](effort, Path(folder) / name):
                lines.append(line)
                sys.stdout.write(f"{table([line]).splitlines()[-1]}\n")
                sys.stdout.flush()
        synced += synced_ms(Path(folder))
    cores, at = os.cpu_count(), time.strftime("%Y-%m-%d", time.gmtime())
    busy = os.getloadavg()[2]  # of the last quarter of an hour: what else the machine did
    setting = (
        f"{at}, {cores} cores, medians of {effort.turns} turns of {effort.seconds:g} s, load average {busy:.0f}, "
        f"a page is on the disk in {statistics.median(synced):.2f} ms"
    )
    sys.stdout.write(f"\n{table(lines)}\n\n{setting}\n")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    told = {
        "at": at,
        "cores": cores,
        "load_average": round(busy, 1),
        "fsync_ms": round(statistics.median(synced), 3),
        "turns": effort.turns,
        "seconds": effort.seconds,
    }
    options.json.write_text(json.dumps(told | {"lines": [asdict(each) for each in lines]}, indent=1) + "\n")
    if options.page is not None:
        put_into(options.page, f"{table(lines)}\n\n{setting}.")
    return int(options.check and not all(each.met for each in lines))


if __name__ == "__main__":
    sys.exit(main())
