"""A worker in a container of its own: its figures are on its own page, for no web process sees its directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

READY_WITHIN_S = 90.0


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def worker(run_dir: Path, **more: str) -> subprocess.Popen[str]:
    """A worker as a container starts it."""
    env = {**os.environ, "ROUTER_RUN_DIR": str(run_dir), **more}
    return subprocess.Popen([sys.executable, "-m", "router", "worker"], env=env, text=True, stderr=subprocess.PIPE)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[str]:
    """The address of a worker's page, which asks for the token `hush`."""
    port = free_port()
    process = worker(tmp_path, ROUTER_WORKER_METRICS_BIND=f"127.0.0.1:{port}", ROUTER_METRICS_TOKEN="hush")
    try:
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def answered(address: str, *, token: str | None = "hush") -> urllib3.BaseHTTPResponse:
    """What it says, once it is up."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    until = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            return urllib3.request("GET", f"{address}/metrics", headers=headers, retries=False, timeout=10)
        except urllib3.exceptions.HTTPError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_a_worker_tells_of_itself_to_whoever_has_the_token(running: str) -> None:
    """Heartbeat, circuits and loops; of the ledger's own figures the web's page tells."""
    refused = answered(running, token=None)
    assert refused.status == 401
    until = time.monotonic() + READY_WITHIN_S
    while b"pointsman_loop_rounds_total{" not in (page := answered(running).data) and time.monotonic() < until:
        time.sleep(0.1)
    assert b'pointsman_heartbeat_timestamp_seconds{role="worker"}' in page
    assert b'pointsman_circuit_state{provider="stripe",state="closed"} 1.0' in page
    assert b"pointsman_loop_rounds_total{" in page
    assert b"pointsman_parked_payments" not in page
    assert urllib3.request("GET", f"{running}/v1/payments", retries=False).status == 404


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """It names the setting."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        process = worker(tmp_path, ROUTER_WORKER_METRICS_BIND=bind)
        _, said = process.communicate(timeout=READY_WITHIN_S)
    assert process.returncode == 1
    assert said.splitlines()[-1].startswith(f"pointsman: setting ROUTER_WORKER_METRICS_BIND: {bind}")
