"""Every key and secret replaced while customers pay: `make rotations`.

API keys by `pointsman api-keys rotate`, checkout's webhook secret by `pointsman webhooks rotate`, the ledger's
encryption keys by `pointsman keys new, promote, rotate, retire`; two web processes and a worker. No request fails,
every delivery is signed under a secret that its receiver has, nothing is left under a retired key.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from router.ledger.keys import digest
from router.signing import SIGNATURE
from tests.load.customers import Told, summary
from tests.load.town import Town, read, town


class Receiver:
    """Checkout's endpoint: counts what is signed under one of its secrets, and what is not."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.seen: Counter[str] = Counter()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.seen[receiver.judge(self.headers[SIGNATURE], body)] += 1
                self.wfile.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def judge(self, header: str, body: bytes) -> str:
        """`believed` or `refused`, as `router.signing` describes it."""
        moment, told = re.findall(r"t=(\d+)", header)[0], re.findall(r"v1=([0-9a-f]+)", header)
        made = {
            hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
            for secret in self.secrets
        }
        return "believed" if made & set(told) else "refused"

    def close(self) -> None:
        """No more."""
        self._server.shutdown()


def rotation(folder: Path, *, rounds: int, per_second: float) -> dict[str, Any]:
    """Each kind of key replaced so many times."""
    with town(
        folder, ROUTER_WEB_PROCESSES="2", ROUTER_WEBHOOK_ALLOW_HTTP="true", ROUTER_WEBHOOK_ALLOW_PRIVATE="all"
    ) as found:
        receiver = Receiver()
        status, endpoint = found.house.call("POST", "/v1/webhook-endpoints", {"url": receiver.url})
        assert status == 201, endpoint
        receiver.secrets = [endpoint["secret"]]
        key = _said(found, "api-keys", "create", "--merchant", "default", "--scopes", "payments")
        told: list[Told] = []
        took: dict[str, list[float]] = {"api key": [], "webhook secret": [], "encryption key": []}
        for _ in range(rounds):
            customers = found.send(per_second, 45.0, key=key)
            time.sleep(1.0)
            began = time.monotonic()
            key = _said(found, "api-keys", "rotate", f"key_{digest(key)[:24]}")
            took["api key"].append(time.monotonic() - began)
            began = time.monotonic()
            receiver.secrets.append(_said(found, "webhooks", "rotate", endpoint["id"]))
            took["webhook secret"].append(time.monotonic() - began)
            began = time.monotonic()
            _replace_encryption_key(found)
            took["encryption key"].append(time.monotonic() - began)
            newcomers = found.send(per_second / 2, 3.0, key=key)
            for process in (customers, newcomers):
                output, _ = process.communicate()
                told += read(output)
        books = found.reckon()
        time.sleep(2.0)
        receiver.close()
        return {
            "customers": summary(told),
            "deliveries": dict(receiver.seen),
            "seconds": {name: [round(each, 1) for each in seconds] for name, seconds in took.items()},
            "keys": _said(found, "keys", "list"),
            "books": asdict(books),
        }


def _replace_encryption_key(found: Town) -> None:
    old = [line.split("\t")[0] for line in _said(found, "keys", "list").splitlines() if "\tseals\t" in line]
    new = _said(found, "keys", "new")
    _said(found, "keys", "promote", new)
    _said(found, "keys", "rotate")
    for each in old:
        _said(found, "keys", "retire", each)


def _said(found: Town, *words: str) -> str:
    """What a command prints; its last line is what a script would take."""
    done: subprocess.CompletedProcess[str] = found.house.command(*words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.strip()


def main() -> int:
    """1 where a request failed, a delivery was not believed, or something is left under a retired key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-second", type=float, default=40.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = rotation(Path(folder), rounds=options.rounds, per_second=options.per_second)
    print(json.dumps(found, indent=2))
    bad = set(found["customers"]["answers"]) - {"201"} or set(found["deliveries"]) - {"believed"}
    return 1 if bad or found["books"]["wrong"] or found["books"]["unsettled"] else 0


if __name__ == "__main__":
    sys.exit(main())
