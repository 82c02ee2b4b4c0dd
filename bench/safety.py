"""What "no payment charged twice, none lost" costs: this tree's payments per second against an earlier commit's.

    make bench-safety [AGAINST=<tag or commit>]

Both trees run side by side on this machine, each a web process and a worker over an SQLite ledger of its own, against
one sandbox; they are loaded by turns, so that whatever else the machine does hits both. The earlier tree knows no
webhooks, so this one is measured without them and with them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import itertools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
API_KEY = "the-key-of-this-bench"
HMAC_KEY = "AB" * 32
SECRET = "whsec_bench"  # noqa: S105 - both ends of it run here, for a minute
PORTS = {"stripe": 18091, "adyen": 18092, "control": 18090, "before": 18080, "now": 18081}
CONNECTIONS = 8
READY_WITHIN_S = 30.0
_numbers = itertools.count(int(time.time() * 1000))


@dataclass
class Router:
    """One tree's web process and worker."""

    port: int
    processes: list[subprocess.Popen[bytes]]
    per_second: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Processor time of the web process and the worker so far."""
        family = [each for one in self.processes for each in _family(one.pid)]
        return sum(sum(each.cpu_times()[:2]) for each in family)

    def load(self, name: str, seconds: float) -> None:
        """Pay as fast as it answers for so long, and note how it went."""
        until, counts, refused = time.monotonic() + seconds, [0] * CONNECTIONS, []

        def client(index: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            while time.monotonic() < until:
                number = next(_numbers)
                headers = {
                    "Authorization": f"Bearer {API_KEY}",
                    "Idempotency-Key": f"bench-{number}",
                    "Content-Type": "application/json",
                }
                connection.request("POST", "/v1/payments", json.dumps(payment(number)), headers)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 201:
                    refused.append(body)
                counts[index] += 1
            connection.close()

        begun, cpu_before = time.monotonic(), self.cpu_s()
        threads = [threading.Thread(target=client, args=(index,)) for index in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s, paid = time.monotonic() - begun, sum(counts)
        if refused or not paid:
            sys.exit(f"{name}: {len(refused)} of {paid} payments were not captured, such as {refused[:1]}")
        self.per_second.setdefault(name, []).append(paid / took_s)
        self.cpu_ms.setdefault(name, []).append((self.cpu_s() - cpu_before) / paid * 1000)


def payment(number: int) -> dict[str, Any]:
    """The usual payment: one that the primary captures at once."""
    return {
        "reference": f"BENCH-{number}",
        "amount": 1999,
        "currency": "EUR",
        "payment_method": {
            "type": "card",
            "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
            "card": {"brand": "visa", "country": "DE", "funding": "credit", "fingerprint": f"card-{number % 1000}"},
        },
        "customer": {"id": "cus_1", "country": "DE"},
        "return_url": "https://shop.example/return",
    }


def main() -> int:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="main", help="tag or commit of the earlier tree")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--commits", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.commits:
        sys.stdout.write(f"{count_commits()}\n")
        return 0
    commit = _git("rev-parse", "--short", options.against).decode().strip()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-safety-")))
        earlier = folder / "earlier"
        with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
            archive.extractall(earlier, filter="data")
        stack.enter_context(_sandbox())
        before = stack.enter_context(_router(earlier, folder / "before", PORTS["before"]))
        now = stack.enter_context(_router(ROOT, folder / "now", PORTS["now"]))
        kinds = [("before", before), ("now", now), ("now, webhooks", now)]
        for number in range(options.rounds + 1):
            for name, router in kinds:
                _webhooks(name == "now, webhooks")
                router.load(name if number else "warming up", options.seconds if number else 1.0)
                _quiet(folder / "now" / "ledger.db")
        _print(kinds, commit, options)
        for name, tree in (("before", earlier), ("now", ROOT)):
            environment = _environment(tree, folder / f"count-{name}", PORTS[name])
            script = [sys.executable, str(ROOT / "bench" / "safety.py"), "--commits"]
            counted = subprocess.run(script, env=environment, cwd=tree, check=True, stdout=subprocess.PIPE)  # noqa: S603
            _say(f"commits per usual payment, {name}: {counted.stdout.decode().split()[-1]}")
    return 0


def _print(kinds: list[tuple[str, Router]], commit: str, options: argparse.Namespace) -> None:
    _say(
        f"{options.rounds} runs of {options.seconds:g} s each, by turns; {CONNECTIONS} connections; medians (spread)"
    )
    figures: dict[str, tuple[float, float]] = {}
    for name, router in kinds:
        rates, cpu = router.per_second[name], router.cpu_ms[name]
        figures[name] = statistics.median(rates), statistics.median(cpu)
        spread = f"({min(rates):.0f} to {max(rates):.0f})"
        shown = f"{name} ({commit})" if name == "before" else name
        _say(f"{shown:<22}{figures[name][0]:>7.0f} payments/s {spread:<16}{figures[name][1]:>6.2f} ms CPU a payment")
    before = kinds[0][1]
    for name, router in kinds[1:]:
        # Run by run: neighbours in time share whatever else the machine was doing.
        pairs = zip(router.per_second[name], before.per_second["before"], strict=True)
        rate = statistics.median(now / then for now, then in pairs)
        cpu_ms = figures[name][1] / figures["before"][1]
        _say(f"ratio, {name:<15}{rate:>7.2f} of the payments/s, {cpu_ms:.2f} times the CPU a payment")


def count_commits() -> int:
    """Commits of one usual payment, in the tree that `router` is imported from."""
    import sqlalchemy as sa

    from router.app.core import build
    from router.order import Order
    from router.settings import load_settings

    core = build(load_settings(), role="web")
    counted = 0

    def committed(connection: sa.Connection) -> None:
        nonlocal counted
        counted += bool(connection.get_execution_options().get("ledger_write"))

    sa.event.listen(core.database.engine, "commit", committed)
    answer = core.payments.create(Order.model_validate(payment(next(_numbers))), merchant="default", key="bench")
    if answer.payment.status != "captured":
        sys.exit(f"the payment is {answer.payment.status}")
    core.close()
    return counted


# ---------------------------------------------------------------- processes


@contextlib.contextmanager
def _sandbox() -> Iterator[None]:
    ports = [f"--{name}-port={PORTS[name]}" for name in ("stripe", "adyen", "control")]
    words = [sys.executable, "-m", "providers.sandbox", *ports]
    words += [f"--stripe-webhook-secret={SECRET}", f"--adyen-hmac-key={HMAC_KEY}"]
    process = subprocess.Popen(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})  # noqa: S603
    try:
        _wait_for(f"http://127.0.0.1:{PORTS['control']}/control")
        yield
    finally:
        _end([process])


@contextlib.contextmanager
def _router(tree: Path, run_dir: Path, port: int) -> Iterator[Router]:
    environment = _environment(tree, run_dir, port)
    processes = []
    try:
        for role in ("web", "worker"):
            words = [sys.executable, "-m", "router", role]
            with (run_dir / f"{role}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(words, cwd=tree, env=environment, stdout=log, stderr=log)  # noqa: S603
                )
        _wait_for(f"http://127.0.0.1:{port}/readyz")
        yield Router(port, processes)
    finally:
        _end(processes)


def _environment(tree: Path, run_dir: Path, port: int) -> Mapping[str, str]:
    run_dir.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    return inherited | {
        "PYTHONPATH": str(tree),
        "ROUTER_RUN_DIR": str(run_dir),
        "ROUTER_BIND": f"127.0.0.1:{port}",
        "ROUTER_API_KEY": API_KEY,
        "ROUTER_STRIPE_BASE_URL": f"http://127.0.0.1:{PORTS['stripe']}",
        "ROUTER_ADYEN_BASE_URL": f"http://127.0.0.1:{PORTS['adyen']}",
        "ROUTER_STRIPE_WEBHOOK_SECRET": SECRET,
        "ROUTER_ADYEN_HMAC_KEY": HMAC_KEY,
    }


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _webhooks(on: bool) -> None:
    url = f"http://127.0.0.1:{PORTS['now']}/webhooks/stripe" if on else None
    _put("/control/stripe/webhooks", {"url": url})


def _quiet(ledger: Path) -> None:
    """Wait until what the last run left to do is done, so that it costs the next one nothing."""
    import sqlite3

    until = time.monotonic() + 20
    while time.monotonic() < until:
        with contextlib.closing(sqlite3.connect(ledger)) as connection:
            left = connection.execute("SELECT count(*) FROM webhooks WHERE applied_at IS NULL").fetchone()[0]
        if not left and not _get("/control/stripe/webhooks")["waiting"]:
            return
        time.sleep(0.1)
    sys.exit("the webhooks of a run were not applied within 20 s")


def _put(path: str, body: Any) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORTS['control']}{path}", json.dumps(body).encode(), method="PUT"
    )
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310


def _get(path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{PORTS['control']}{path}", timeout=5) as answer:
        return json.load(answer)


def _wait_for(url: str) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):  # noqa: S310
            return
        time.sleep(0.05)
    sys.exit(f"{url} does not answer")


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603, S607


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
