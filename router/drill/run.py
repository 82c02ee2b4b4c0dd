"""Runs the drill: the whole service in a directory of its own, broken by script under traffic."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import urllib3

from flags.contract import AUTO_FLIP_ENABLED
from flags.filewriter import FileFlagWriter, complete_file
from router.clock import Clock, Ids
from router.drill.figures import Figures, figures
from router.drill.scripts import WELL, Script
from router.drill.shoppers import Shoppers
from router.ledger.circuits import CircuitLedger
from router.ledger.engine import Database
from router.ledger.tables import attempts, from_micros, payments, probes, to_micros
from router.settings import PREFIX, PROVIDER_NAMES
from router.transitions import State, Transition

READY_WITHIN_S = 60.0
SETTLED_WITHIN_S = 180.0
"""After the mending: the longest wait between probes, slow start, and as much again."""
FINAL_WITHIN_S = 60.0
WARM_UP_S = 75.0
"""A minute for the thresholds' first step, and calls enough before it."""
QUICK_WARM_UP_S = 3.0
COUNT_INTERVAL_S = 0.1
KEY = "the key of this drill"


class DrillError(Exception):
    """The drill could not be run; the message is the one line to show."""


@dataclass(frozen=True, slots=True)
class Drill:
    """How to run it."""

    scripts: Sequence[Script]
    web_processes: int = 2
    per_second: float | None = None
    """Instead of each script's own pace."""
    extra: Mapping[str, str] | None = None
    """Settings besides, as environment variables."""


def run(drill: Drill, *, clock: Clock, ids: Ids, say: Callable[[str], None]) -> list[Figures]:
    """Every script, one after another, on one running service; on a fresh one after a script that did not settle.

    Raises DrillError.
    """
    waiting, found = deque(drill.scripts), list[Figures]()
    while waiting:
        with (
            tempfile.TemporaryDirectory(prefix="pointsman-drill-") as folder,
            _house(Path(folder), drill, clock) as house,
        ):
            shoppers = Shoppers(house.url, KEY, clock=clock, ids=ids)
            _warm_up(waiting, house, shoppers, clock, say)
            while waiting:
                script = waiting.popleft()
                say(f"{script.name}: {script.about}")
                rows = _play(script, drill.per_second or script.per_second, house, shoppers, clock)
                found += rows
                if not all(each.settled and not each.not_final for each in rows):
                    # Its trouble would be in the next script's figures.
                    say(f"{script.name}: did not settle within {SETTLED_WITHIN_S:.0f} s, or left payments open")
                    break
    return found


def _warm_up(
    scripts: Iterable[Script], house: _House, shoppers: Shoppers, clock: Clock, say: Callable[[str], None]
) -> None:
    for name in PROVIDER_NAMES:
        house.control(name, WELL)
    warm_up_s = WARM_UP_S if any(each.needs_baseline for each in scripts) else QUICK_WARM_UP_S
    say(f"warming up for {warm_up_s:.0f} s")
    with _traffic(shoppers, max(each.per_second for each in scripts)):
        clock.sleep(warm_up_s)


def _play(script: Script, per_second: float, house: _House, shoppers: Shoppers, clock: Clock) -> list[Figures]:
    shoppers.taken()
    shoppers.late_s = 0.0
    with _traffic(shoppers, per_second), _counting(script.providers, house, clock) as counted:
        clock.sleep(2.0)
        began, begun = clock.now(), clock.monotonic()
        for change in script.changes:
            clock.sleep(max(0.0, begun + change.at_s - clock.monotonic()))
            house.control(change.provider, change.fault)
        mended = clock.now()
        house.wait_for(lambda: all(house.is_well(name) for name in script.providers), SETTLED_WITHIN_S, clock)
        settled = {name: house.is_well(name) for name in script.providers}
    house.wait_for(lambda: not house.open_payments(), FINAL_WITHIN_S, clock)
    not_final, shopped, late_s = house.open_payments(), shoppers.taken(), shoppers.late_s
    return [
        figures(
            script.name if len(script.providers) == 1 else f"{script.name}: {name}",
            began=began,
            mended=mended,
            shopped=shopped,
            transitions=house.transitions(name),
            sent=house.sent(name, began),
            counted=counted[name],
            probes=house.probed(name, began),
            settled=settled[name],
            not_final=not_final,
            late_s=late_s,
        )
        for name in script.providers
    ]


@contextmanager
def _counting(
    names: Iterable[str], house: _House, clock: Clock
) -> Iterator[Mapping[str, Sequence[tuple[dt.datetime, int]]]]:
    """Ask the stand-ins again and again how many requests they have got."""
    stop = threading.Event()
    counted: dict[str, list[tuple[dt.datetime, int]]] = {name: [] for name in names}

    def ask() -> None:
        while not stop.wait(COUNT_INTERVAL_S):
            for name, found in counted.items():
                requests = house.requests(name)
                if requests is not None:
                    found.append((clock.now(), requests))

    thread = threading.Thread(target=ask, name="counting", daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        stop.set()
        thread.join()


@contextmanager
def _traffic(shoppers: Shoppers, per_second: float) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=shoppers.shop, args=(per_second, stop), name="shoppers")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _house(folder: Path, drill: Drill, clock: Clock) -> Iterator[_House]:
    """The service with its sandbox, on free ports; ended with everything it started."""
    web, stripe, adyen, control = _free_ports(4)
    run_dir = folder / "run"
    run_dir.mkdir()
    flags = run_dir / "flags.json"
    complete_file(flags, PROVIDER_NAMES)
    # A flip would move the traffic away for good; what is drilled here is the circuit.
    FileFlagWriter(flags, PROVIDER_NAMES).set(AUTO_FLIP_ENABLED, False, expected=None, comment="drill")
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | {
        f"{PREFIX}RUN_DIR": str(run_dir),
        f"{PREFIX}BIND": f"127.0.0.1:{web}",
        f"{PREFIX}SANDBOX_STRIPE_PORT": str(stripe),
        f"{PREFIX}SANDBOX_ADYEN_PORT": str(adyen),
        f"{PREFIX}SANDBOX_CONTROL_PORT": str(control),
        f"{PREFIX}DEMO_TRAFFIC_PER_SECOND": "0",
        f"{PREFIX}WEB_PROCESSES": str(drill.web_processes),
        f"{PREFIX}API_KEY": KEY,
        **(drill.extra or {}),
    }
    with ExitStack() as stack:
        log = stack.enter_context((folder / "run.log").open("w"))
        process = subprocess.Popen(
            [sys.executable, "-m", "router", "run"], env=env, stdout=log, stderr=subprocess.STDOUT
        )
        stack.callback(_end, process)
        house = _House(f"http://127.0.0.1:{web}", f"http://127.0.0.1:{control}", run_dir)
        if not house.wait_for(house.is_ready, READY_WITHIN_S, clock):
            raise DrillError(f"the service did not become ready within {READY_WITHIN_S:.0f} s")
        stack.callback(house.close)
        house.open()
        yield house


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


class _House:
    """The running service: its sandbox's control, and its ledger read from beside."""

    def __init__(self, url: str, control_url: str, run_dir: Path) -> None:
        self.url = url
        self._control_url = control_url
        self._ledger_url = f"sqlite:///{run_dir / 'ledger.db'}"
        self._http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(connect=2.0, read=10.0))
        self._database: Database | None = None

    def open(self) -> None:
        """Look into its ledger from now on."""
        self._database = Database(self._ledger_url, pool_size=2)

    def close(self) -> None:
        """Look no more."""
        self._ledger.close()

    @property
    def _ledger(self) -> Database:
        assert self._database is not None
        return self._database

    def is_ready(self) -> bool:
        """Whether it takes payments."""
        try:
            return self._http.request("GET", f"{self.url}/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def control(self, provider: str, fault: Mapping[str, Any]) -> None:
        """Let a stand-in behave so from now on. Raises DrillError."""
        answer = self._http.request("PUT", f"{self._control_url}/control/{provider}", body=json.dumps(dict(fault)))
        if answer.status != 200:
            raise DrillError(f"the sandbox refused: {answer.data.decode()[:200]}")

    def wait_for(self, check: Callable[[], bool], within_s: float, clock: Clock) -> bool:
        """Look until it is so, or the time is over; whether it is."""
        until = clock.monotonic() + within_s
        while not check():
            if clock.monotonic() >= until:
                return False
            clock.sleep(0.2)
        return True

    def transitions(self, provider: str) -> Sequence[Transition]:
        """A circuit's moves, oldest first."""
        return list(reversed(CircuitLedger(self._ledger).history(provider, limit=10_000)))

    def is_well(self, provider: str) -> bool:
        """Whether its circuit is closed, and not marked."""
        last = next(iter(CircuitLedger(self._ledger).history(provider, limit=1)), None)
        return last is None or (last.state is State.CLOSED and not last.suspect)

    def open_payments(self) -> int:
        """Payments that are not final."""
        query = sa.select(sa.func.count()).where(
            sa.or_(payments.c.status.in_(("processing", "parked")), payments.c.resolve_at.is_not(None))
        )
        with self._ledger.read() as connection:
            return int(connection.scalar(query) or 0)

    def sent(self, provider: str, since: dt.datetime) -> Sequence[dt.datetime]:
        """When payments were sent to a provider since then."""
        query = sa.select(attempts.c.started_at).where(
            attempts.c.provider == provider, attempts.c.started_at >= to_micros(since)
        )
        with self._ledger.read() as connection:
            return [from_micros(micros) for micros in connection.scalars(query)]

    def probed(self, provider: str, since: dt.datetime) -> Sequence[dt.datetime]:
        """When synthetic probes were sent since then."""
        query = sa.select(probes.c.at).where(probes.c.provider == provider, probes.c.at >= to_micros(since))
        with self._ledger.read() as connection:
            return [from_micros(micros) for micros in connection.scalars(query)]

    def requests(self, provider: str) -> int | None:
        """How many a stand-in has got so far; None: it does not say."""
        try:
            answer = self._http.request("GET", f"{self._control_url}/control/{provider}")
            return int(json.loads(answer.data)["requests"])
        except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
            return None


def _free_ports(many: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(many)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
