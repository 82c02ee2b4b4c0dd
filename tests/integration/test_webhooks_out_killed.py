"""Workers that are killed while they send lose nothing, and keep each payment's order; on real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import defaultdict

import pytest

from router.ledger.engine import Database
from router.webhooks_out import LEASE
from router.webhooks_out_addresses import EVERYWHERE
from router.webhooks_out_endpoints import Endpoints
from tests.fakes.webhooks_out import Bureau
from tests.integration import webhook_sender
from tests.unit.webhook_receiver import Receiver, until

KILLS = 4
PAYMENTS = 8


@pytest.mark.processes
def test_a_worker_killed_between_sending_and_recording_loses_nothing(database: Database, ledger_url: str) -> None:
    """Four kills, at every seventh request, before its answer and after it: some events come twice, each at last."""
    bureau = Bureau(database)
    receiver = Receiver()
    child: subprocess.Popen[bytes] | None = None
    came: list[str] = []
    kills = 0

    def receive(path: str, headers: dict[str, str], body: bytes) -> int:
        nonlocal kills
        came.append({name.lower(): value for name, value in headers.items()}["x-pointsman-event-id"])
        if len(came) % 7 == 0 and kills < KILLS and child is not None:
            kills += 1
            os.kill(child.pid, signal.SIGKILL)  # what is answered now nobody reads, and nobody records
        return 200

    receiver.receive = receive  # type: ignore[method-assign]  # the server asks it by name
    endpoints = Endpoints(
        bureau.endpoint_ledger, bureau.feed, allow_http=True, allowed=EVERYWHERE, clock=bureau.clock, ids=bureau.ids
    )
    endpoint, _secret = endpoints.create(merchant="shop", url=receiver.url)
    payments = [bureau.becomes(bureau.pays(), "authorized", "captured") for _ in range(PAYMENTS)]
    wanted = {f"{payment.id}:{version}" for payment in payments for version in (1, 2, 3)}
    try:
        for _ in range(KILLS + 1):
            before = kills
            moment = bureau.clock.now().isoformat()
            child = subprocess.Popen([sys.executable, "-m", webhook_sender.__name__, ledger_url, moment])
            until(
                lambda: kills > before or set(bureau.states(endpoint).values()) == {"accepted"},  # noqa: B023 - called at once
                within_s=60,
            )
            if kills == before:
                break
            child.wait(30)
            bureau.clock.advance(LEASE.total_seconds() + 1)
        assert kills >= 2
        assert bureau.states(endpoint) == dict.fromkeys(wanted, "accepted")
        assert set(came) == wanted
        firsts: dict[str, list[str]] = defaultdict(list)
        for each in dict.fromkeys(came):
            firsts[each.partition(":")[0]].append(each)
        assert all(versions == sorted(versions) for versions in firsts.values())
        assert len(came) > len(wanted)
    finally:
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait(30)
        receiver.close()
