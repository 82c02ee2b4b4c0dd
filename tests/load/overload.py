"""Five times as many customers as can be served, for a minute: `make overload`.

Nobody's payment is lost or charged twice, who cannot be served hears it at once, with a time to come back, and what
comes afterwards is served as quickly as before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.load.customers import Told, quantiles, summary
from tests.load.town import town

NORMAL_SHARE = 0.5
"""Of capacity: what comes before and after."""
BACK_WITHIN_S = 5.0


def overload(
    folder: Path, *, times: float, seconds: float, processes: int, ledger_url: str | None = None
) -> dict[str, Any]:
    """Before, during, after; what it took; and the books."""
    with town(folder, ledger_url=ledger_url, ROUTER_WEB_PROCESSES=str(processes)) as found:
        found.fill()
        capacity = found.capacity()
        pids = found.house.pids()
        usual = capacity * NORMAL_SHARE
        before = found.customers(usual, 10)
        took_before = found.takes()
        during = found.customers(capacity * times, seconds)
        after = found.customers(usual, 15)
        took_after = found.takes()
        return {
            "capacity_per_s": round(capacity, 1),
            "before": summary(before),
            "during": summary(during),
            "after": summary(after),
            "back_to_normal_s": back_to_normal(before, after),
            "takes_before": took_before,
            "takes_after": took_after,
            "processes_replaced": found.house.pids() != pids,
            "books": asdict(found.reckon()),
        }


def back_to_normal(before: list[Told], after: list[Told]) -> float | None:
    """Seconds after the flood from which on each is normal: median at most twice the usual, nobody refused."""
    usual = _paid(before)
    assert usual is not None
    last_bad = -1
    for second in range(int(max(each.at for each in after)) + 1):
        told = [each for each in after if second <= each.at < second + 1]
        paid = _paid(told)
        refused = any(each.status not in (201, 202) for each in told)
        if paid is None or refused or paid["p50"] > 2 * usual["p50"] + 5:
            last_bad = second
    return last_bad + 1


def _paid(told: list[Told]) -> Mapping[str, float] | None:
    return quantiles([each.took for each in told if each.status in (201, 202)])


def main() -> int:
    """1 where anything was lost, charged twice, or left unanswered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = overload(Path(folder), times=options.times, seconds=options.seconds, processes=options.processes)
    print(json.dumps(found, indent=2))
    books = found["books"]
    bad = bool(books["wrong"] or books["unsettled"] or found["processes_replaced"])
    return 1 if bad or found["back_to_normal_s"] is None or found["back_to_normal_s"] > BACK_WITHIN_S else 0


if __name__ == "__main__":
    sys.exit(main())
