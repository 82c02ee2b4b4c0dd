"""Web processes replaced one after another while customers pay: `make rolling`.

Each gets SIGTERM, as a deployment or a drained node sends it, answers what it has begun and ends; the next follows
when its successor serves. No request may fail, and no payment be lost.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.house import eventually
from tests.load.customers import summary
from tests.load.town import Town, read, town

WEB_PROCESSES = 2
REST_S = 6.0
"""Between two: the server takes two ends of one place within 5.5 s for a crash loop."""


def rolling(folder: Path, *, rounds: int, per_second: float, rest_s: float = REST_S) -> dict[str, Any]:
    """Every web process replaced so many times."""
    with town(folder, ROUTER_WEB_PROCESSES=str(WEB_PROCESSES)) as found:
        customers = found.send(per_second, rounds * WEB_PROCESSES * (rest_s + 4.0) + 2.0)
        time.sleep(1.0)
        replaced = 0
        for _ in range(rounds):
            for pid in found.house.pids()["web"][1:]:
                _replace(found, pid)
                replaced += 1
                time.sleep(rest_s)
        output, _ = customers.communicate()
        told = read(output)
        return {"replaced": replaced, "customers": summary(told), "books": asdict(found.reckon())}


def _replace(found: Town, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: pid not in found.house.pids()["web"] and _serving(found) == WEB_PROCESSES, 30)


def _serving(found: Town) -> int:
    """Web processes that have begun to listen: what a deployment asks of a readiness probe."""
    return sum(
        any(each.status == psutil.CONN_LISTEN for each in psutil.Process(pid).net_connections("tcp"))
        for pid in found.house.pids()["web"][1:]
        if psutil.pid_exists(pid)
    )


def main() -> int:
    """1 where a request failed or a payment was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-second", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rolling(Path(folder), rounds=options.rounds, per_second=options.per_second)
    print(json.dumps(found, indent=2))
    answers = set(found["customers"]["answers"])
    return 1 if answers - {"201", "202"} or found["books"]["wrong"] or found["books"]["unsettled"] else 0


if __name__ == "__main__":
    sys.exit(main())
