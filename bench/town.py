"""Real processes to be measured: the sandbox, the router's web and worker, the bare application beside it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.load import Load, words
from router.sealing import new_key

ROOT = Path(__file__).resolve().parents[1]
KEY = "the-key-of-this-bench"
READY_WITHIN_S = 60.0
THREADS = 32
"""Of every web process, the bare application's too: the router's default."""


ENCRYPTION_KEY = new_key()
"""Tokens are sealed, as they are where a shop runs it."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@dataclass
class Side:
    """One thing that is measured: where it listens, what is asked of it, and the web processes that answer."""

    name: str
    port: int
    path: str
    body: str
    web: subprocess.Popen[bytes]
    key: str = ""
    number: int = field(default_factory=lambda: secrets.randbelow(10**8) * 1000)
    """Of the last request, shorter than a card number. Sides that share a ledger must not share numbers: a key that
    was used is answered again, for next to nothing."""

    def load(self, seconds: float, *, connections: int = 8, per_second: float | None = None) -> dict[str, Any]:
        """One run: what the generator says of it, and `cpu_us`, the web processes' own time for a request."""
        load = Load(
            self.port, self.path, seconds, self.body, self.key, connections, per_second, first=self.number, keep=True
        )
        before = cpu_s(self.web.pid)
        told = subprocess.run(words(load), check=True, stdout=subprocess.PIPE).stdout  # noqa: S603
        found: dict[str, Any] = json.loads(told)
        found["cpu_us"] = (cpu_s(self.web.pid) - before) / max(1, found["requests"]) * 1e6
        self.number = found["ends_at"]
        bad = {status: count for status, count in found["statuses"].items() if status not in ("200", "201")}
        if bad or not found["requests"]:
            sys.exit(f"{self.name}: {bad} of {found['requests']} requests failed: {found['refused']}")
        return found


def cpu_s(pid: int) -> float:
    """Processor time of a process and its children so far."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


@contextlib.contextmanager
def sandbox() -> Iterator[dict[str, int]]:
    """The stand-in providers; their ports."""
    ports = {name: free_port() for name in ("stripe", "adyen", "control")}
    asked = [f"--{name}-port={port}" for name, port in ports.items()]
    with _process([sys.executable, "-m", "providers.sandbox", *asked], {}):
        wait_for(f"http://127.0.0.1:{ports['control']}/control")
        yield ports


@contextlib.contextmanager
def bare(ports: dict[str, int], *, processes: int = 1) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The bare application on granian, with the router's options."""
    port = free_port()
    words = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(port), "--no-ws"]
    words += ["--workers", str(processes), "--blocking-threads", str(THREADS), "--log-level", "error"]
    environment = {"BENCH_STRIPE": f"http://127.0.0.1:{ports.get('stripe', 1)}"}
    with _process([*words, "bench.bare:app"], environment) as web:
        wait_for(f"http://127.0.0.1:{port}/empty", b"{}")
        yield port, web


@contextlib.contextmanager
def router(
    folder: Path, ports: dict[str, int], *, database: str | None = None, processes: int = 1, worker: bool = True
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The router's web, and its worker unless it is not wanted; the web's port and process."""
    port = free_port()
    folder.mkdir(exist_ok=True, parents=True)
    environment = {
        "ROUTER_RUN_DIR": str(folder),
        "ROUTER_API_KEY": KEY,
        "ROUTER_BIND": f"127.0.0.1:{port}",
        "ROUTER_WEB_PROCESSES": str(processes),
        "ROUTER_WEB_THREADS": str(THREADS),
        "ROUTER_STRIPE_BASE_URL": f"http://127.0.0.1:{ports.get('stripe', 1)}",
        "ROUTER_ADYEN_BASE_URL": f"http://127.0.0.1:{ports.get('adyen', 1)}",
        # Counted as ever; but what is measured is not how many one key may ask.
        "ROUTER_RATE_PER_KEY": "1000000",
    }
    if database is not None:
        # Beside a ledger that is a file the router keeps its keys by itself: a folder can be used again.
        environment |= {"ROUTER_DATABASE_URL": database, "ROUTER_ENCRYPTION_KEYS": ENCRYPTION_KEY}
    log = folder / "log"
    with _process([sys.executable, "-m", "router", "web"], environment, log) as web:
        wait_for(f"http://127.0.0.1:{port}/readyz", log=log)
        if not worker:
            yield port, web
            return
        with _process([sys.executable, "-m", "router", "worker"], environment, log):
            yield port, web


@contextlib.contextmanager
def _process(
    words: list[str], environment: dict[str, str], log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    with contextlib.ExitStack() as stack:
        out: Any = subprocess.DEVNULL if log is None else stack.enter_context(log.open("ab"))
        process = subprocess.Popen(  # noqa: S603
            words, env=inherited | {"PYTHONPATH": str(ROOT)} | environment, cwd=ROOT, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def slow(ports: dict[str, int], latency_ms: int) -> None:
    """Let Stripe take so long for every call."""
    body = json.dumps({"mode": "ok", "latency_ms": latency_ms}).encode()
    url = f"http://127.0.0.1:{ports['control']}/control/stripe"
    urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=5).close()


def wait_for(url: str, data: bytes | None = None, *, log: Path | None = None) -> None:
    """Until it answers, or ends the bench."""
    until = time.monotonic() + READY_WITHIN_S
    headers = {"Content-Type": "application/json"}
    while time.monotonic() < until:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=2),  # noqa: S310
        ):
            return
        time.sleep(0.1)
    sys.exit(f"{url} does not answer\n{'' if log is None else log.read_text()[-2000:]}")
