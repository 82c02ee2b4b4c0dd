"""A PostgreSQL that is restarted, crashes, and stands still for ten seconds, while customers pay.

    make database-away

Who cannot be served hears it with a time to come back; nothing is charged that is not in the ledger; everybody goes
on by himself when it is back. (A full disk: `tests/e2e/test_full_disk.py`.)
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.integration.postgres import Server, served
from tests.load.customers import Told, summary
from tests.load.town import read, town


def restart(server: Server) -> None:
    """As for an upgrade: sessions are ended, and it is back after a second."""
    server.stop(signal.SIGINT)
    time.sleep(1.0)
    server.start()


def crash(server: Server) -> None:
    """SIGKILL, and back after two seconds."""
    server.stop(signal.SIGKILL)
    time.sleep(2.0)
    server.start()


def pause(server: Server) -> None:
    """Ten seconds without a word, connections open."""
    with server.paused():
        time.sleep(10.0)


TROUBLES: dict[str, Callable[[Server], None]] = {"restarted": restart, "crashed": crash, "paused for 10 s": pause}


def away(folder: Path, *, per_second: float) -> dict[str, Any]:
    """What customers were told in each trouble, and the books at the end."""
    with (
        served(synchronous_commit="on", fsync="on") as server,
        town(folder, ledger_url=server.databases.create(), ROUTER_WEB_PROCESSES="2") as found,
    ):
        pids, told, well_after = found.house.pids(), {}, {}
        for name, trouble in TROUBLES.items():
            customers = found.send(per_second, 35.0)
            time.sleep(3.0)
            trouble(server)
            ended = time.monotonic()
            output, _ = customers.communicate()
            heard = read(output)
            told[name] = summary(heard)
            # By the customers' own clock, which began about as long before the trouble as is slept above.
            well_after[name] = _well_after(heard, 35.0 - (time.monotonic() - ended))
        return {
            "told": told,
            "last_refusal_s_after_its_end": well_after,
            "processes_replaced": found.house.pids() != pids,
            "books": asdict(found.reckon(within_s=120)),
        }


def _well_after(told: list[Told], ended_at: float) -> float:
    """Seconds from the trouble's end to the last request that was not paid, by when it came."""
    bad = [each.at for each in told if each.status not in (201, 202)]
    return round(max(0.0, max(bad, default=0.0) - ended_at), 1)


def main() -> int:
    """1 where a refusal came without a time to come back, or the books differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=40.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = away(Path(folder), per_second=options.per_second)
    print(json.dumps(found, indent=2))
    hasty = sum(each["refused_without_retry_after"] for each in found["told"].values())
    return 1 if hasty or found["books"]["wrong"] or found["books"]["unsettled"] or found["processes_replaced"] else 0


if __name__ == "__main__":
    sys.exit(main())
