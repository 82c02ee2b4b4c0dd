"""Half an hour at half of what can be served, with a fault at a provider most of the time: `make soak`.

What the processes take must not grow, and in the end the books agree with the ledger.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.load.customers import summary
from tests.load.town import read, town

FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("stripe", {"mode": "ok"}),
    ("stripe", {"mode": "down"}),
    ("adyen", {"mode": "errors", "rate": 0.3}),
    ("stripe", {"mode": "slow", "latency_ms": 600}),
    ("adyen", {"mode": "rate_limited", "rate": 0.5}),
    ("stripe", {"mode": "lose_reply", "rate": 0.05}),
    ("stripe", {"mode": "hang", "rate": 0.05}),
    ("adyen", {"mode": "garbage", "rate": 0.2}),
    ("stripe", {"mode": "decline", "rate": 0.3}),
]
"""In turn, one at a time; between two, all is well for as long."""


def soak(
    folder: Path, *, minutes: float, share: float, fault_s: float = 20.0, ledger_url: str | None = None
) -> dict[str, Any]:
    """What web and worker took, minute by minute, what the customers were told, and the books."""
    # Faults end well within the run, so that what they left is found out before its end.
    with town(folder, ledger_url=ledger_url, ROUTER_WEB_PROCESSES="2", ROUTER_READ_TIMEOUT_SECONDS="2") as found:
        found.fill()
        per_second = found.capacity() * share
        seconds = minutes * 60
        customers = found.send(per_second, seconds)
        began, taken = time.monotonic(), []
        turns = itertools.cycle(FAULTS)
        while (left := began + seconds - time.monotonic()) > 0:
            if left > 3 * fault_s:
                provider, fault = next(turns)
                found.house.control("PUT", f"/{provider}", fault)
                time.sleep(fault_s)
                found.house.control("PUT", f"/{provider}", {"mode": "ok"})
                time.sleep(fault_s)
            else:
                time.sleep(min(left, fault_s))
            taken.append({"minute": round((time.monotonic() - began) / 60, 2), **found.takes()})
        output, _ = customers.communicate()
        told = read(output)
        return {
            "per_second": round(per_second, 1),
            "customers": summary(told),
            "growth": growth(taken),
            "taken": taken,
            "books": asdict(found.reckon(within_s=180)),
        }


def growth(taken: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each role, the mean of the run's last fifth against that of its second fifth, as a share: 0.01 is 1% more.

    The first fifth is left out: caches and pools fill.
    """
    fifth = max(1, len(taken) // 5)
    early, late = taken[fifth : 2 * fifth] or taken[:1], taken[-fifth:]
    return {
        role: {
            what: round(_mean(late, role, what) / _mean(early, role, what) - 1, 4)
            for what in ("rss", "threads", "descriptors", "connections")
        }
        for role in ("web", "worker")
    }


def _mean(taken: list[dict[str, Any]], role: str, what: str) -> float:
    return sum(float(each[role][what]) for each in taken) / len(taken)


def main() -> int:
    """1 where memory grew by 2% or more, or the books differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), minutes=options.minutes, share=options.share)
    print(json.dumps(found, indent=2))
    grown = max(each["rss"] for each in found["growth"].values())
    return 1 if grown >= 0.02 or found["books"]["wrong"] or found["books"]["unsettled"] else 0


if __name__ == "__main__":
    sys.exit(main())
