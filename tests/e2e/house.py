"""The whole service as `make run` starts it, on free ports, driven over HTTP as its users drive it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3

from flags.filewriter import FileFlagWriter
from router.settings import PROVIDER_NAMES

_numbers = itertools.count(1)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], Any], within_s: float) -> Any:
    """What `check` answers as soon as it is truthy; fails the test when it is not in time."""
    end = time.monotonic() + within_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, f"not within {within_s} s"
        time.sleep(0.03)


class House:
    """`pointsman run` in a directory of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.run_dir = folder / "run"
        web, stripe, adyen, control = (free_port() for _ in range(4))
        self.url = f"http://127.0.0.1:{web}"
        self.control_url = f"http://127.0.0.1:{control}"
        self.flags_file = self.run_dir / "flags.json"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
        self.env = inherited | {
            "ROUTER_RUN_DIR": str(self.run_dir),
            "ROUTER_BIND": f"127.0.0.1:{web}",
            "ROUTER_SANDBOX_STRIPE_PORT": str(stripe),
            "ROUTER_SANDBOX_ADYEN_PORT": str(adyen),
            "ROUTER_SANDBOX_CONTROL_PORT": str(control),
            "ROUTER_DEMO_TRAFFIC_PER_SECOND": "0",
            "ROUTER_API_KEY": "the-key-of-this-test",
            **settings,
        }
        self.log = folder / "run.log"
        self._http = urllib3.PoolManager(retries=False, timeout=30, maxsize=16)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "router", "run"], env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
        eventually(lambda: "pay:" in self.log.read_text() or self.process.poll() is not None, 30)
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> float:
        """Ctrl-C; answers how many seconds it took."""
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            finally:
                self.process.kill()
        return time.monotonic() - begun

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request to the router; answers its status and its JSON."""
        sent = {"Authorization": "Bearer the-key-of-this-test", **headers}
        data = None if body is None else json.dumps(body)
        answer = self._http.request(method, self.url + path, body=data, headers=sent)
        return answer.status, json.loads(answer.data)

    def pay(self, key: str | None = None, **order: Any) -> tuple[int, dict[str, Any]]:
        """One payment of 19.99 EUR, or as said."""
        number = next(_numbers)
        tokens = {"stripe": "pm_card_visa", "adyen": "8415718415172204"}
        body = {
            "reference": f"ORD-{number}",
            "amount": 1999,
            "currency": "EUR",
            "payment_method": {"type": "card", "tokens": tokens},
            "customer": {"id": "cus_1", "country": "DE"},
            "return_url": "https://shop.example/return",
        } | order
        status, answer = self.call("POST", "/v1/payments", body, **{"Idempotency-Key": key or f"key-{number}"})
        return status, answer

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to the sandbox's control port."""
        data = None if body is None else json.dumps(body)
        answer = self._http.request(method, f"{self.control_url}/control{path}", body=data)
        assert answer.status < 300, answer.data
        return json.loads(answer.data) if answer.data else None

    def text(self, method: str, path: str) -> str:
        """The same, where the answer is a file."""
        answer = self._http.request(method, f"{self.control_url}/control{path}")
        assert answer.status < 300, answer.data
        return answer.data.decode()

    def charges(self, provider: str, reference: str) -> list[dict[str, Any]]:
        """The provider's own books."""
        found: list[dict[str, Any]] = self.control("GET", f"/{provider}/charges?reference={reference}")["charges"]
        return found

    def webhooks(self, provider: str) -> dict[str, Any]:
        """The provider's webhooks: how many were sent, acknowledged, failed, and how many wait."""
        found: dict[str, Any] = self.control("GET", f"/{provider}/webhooks")
        return found

    def state(self, provider: str) -> str:
        """The provider's circuit, as one of the web processes sees it."""
        listed = self.call("GET", "/v1/providers")[1]["providers"]
        return next(str(each["state"]) for each in listed if each["name"] == provider)

    def pids(self) -> dict[str, list[int]]:
        """Process ids by role."""
        found: dict[str, list[int]] = json.loads((self.run_dir / "pids.json").read_text())
        return found

    def set_flag(self, key: str, value: str) -> None:
        """What `pointsman flags set` does, without a process of its own for it."""
        FileFlagWriter(self.flags_file, PROVIDER_NAMES).set(key, value, expected=None, comment="a test")

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`pointsman …` in this house."""
        return subprocess.run(
            [sys.executable, "-m", "router", *words], env=self.env, capture_output=True, text=True, check=False
        )
