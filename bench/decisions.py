"""What a decision costs: requests a second beside an empty Flask endpoint in one run, and where the time goes.

    make bench-decisions

The application is the real one, over SQLite, with the flags file and its own threads, and is called as a server calls
it (WSGI), with no server in between: a server would add the same to both. Beside it: a Flask application whose one
view answers a constant JSON object. Runs take turns, so that whatever else the machine does hits all; the median run
counts. Time is the thread's own processor time; with it, the processor's in all, that is with the thread that writes
the decisions.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import logging
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import structlog
from flask import Flask, Response, jsonify

from router.app.web import create_app
from router.decisions import DecisionOrder
from router.settings import Settings

KEY = "bench-key"
BODY = {
    "reference": "ORD-1",
    "amount": 1999,
    "currency": "EUR",
    "payment_method": {"type": "card", "card": {"brand": "visa", "country": "DE", "funding": "credit"}},
    "customer": {"id": "cus_1", "country": "DE"},
}
WITH_TOKENS = BODY | {
    "payment_method": BODY["payment_method"] | {"tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"}}
}
LEAST_SHARE = 0.40
"""Of an empty endpoint's requests: what issue 9 asks."""


def request(app: Any, path: str, body: bytes) -> Callable[[], None]:
    """One POST, as a server makes it."""

    def call() -> None:
        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "127.0.0.1:8080",
            "HTTP_AUTHORIZATION": f"Bearer {KEY}",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        told: list[str] = []
        answer = b"".join(app(environ, lambda status, _headers, _error=None: told.append(status)))
        if not told[0].startswith("200"):
            raise SystemExit(f"{path}: {told[0]} {answer.decode()}")

    return call


def empty_endpoint() -> Flask:
    """Flask, one view, a constant."""
    app = Flask("empty")

    @app.post("/empty")
    def empty() -> Response:
        return jsonify({"ok": True})

    return app


def measure(work: Callable[[], object], times: int) -> tuple[float, float]:
    """Microseconds of one call: the thread's own, and the whole process's."""
    began, all_began = time.thread_time(), time.process_time()
    for _ in range(times):
        work()
    return (time.thread_time() - began) / times * 1e6, (time.process_time() - all_began) / times * 1e6


def profile(work: Callable[[], object], times: int = 2000) -> str:
    """Where the time goes, by function."""
    profiler = cProfile.Profile(time.thread_time)
    profiler.enable()
    for _ in range(times):
        work()
    profiler.disable()
    out = io.StringIO()
    pstats.Stats(profiler, stream=out).sort_stats("tottime").print_stats(60)
    return out.getvalue()


def main() -> int:
    """Measure and print; 1 when the share is missed and `--check` asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times", type=int, default=200, help="requests in a run")
    parser.add_argument("--check", action="store_true", help="fail when the share that issue 9 asks is missed")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(run_dir=Path(folder), api_key=KEY))
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        service, _ = app.extensions["pointsman_decisions"]
        order = DecisionOrder.model_validate(BODY)
        body = json.dumps(BODY).encode()
        core, stop = app.extensions["pointsman"]
        works: dict[str, Callable[[], object]] = {
            "an empty endpoint": request(empty_endpoint(), "/empty", body),
            "a decision": request(app, "/v1/decisions", body),
            "a decision, with tokens": request(app, "/v1/decisions", json.dumps(WITH_TOKENS).encode()),
            "… of which the service": lambda: service.decide(order, merchant="default"),
            "… of which the flags": lambda: core.planner.flags_of("dec_1", "default", order),
            "… of which validation": lambda: DecisionOrder.model_validate(BODY),
        }
        if options.profile:
            print(profile(works["a decision"]))  # noqa: T201
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(options.rounds):
            names = list(works)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                taken[name].append(measure(works[name], options.times))
        stop()
    median = {name: statistics.median(each[0] for each in runs) for name, runs in taken.items()}
    in_all = {name: statistics.median(each[1] for each in runs) for name, runs in taken.items()}
    for name in works:
        print(f"{name:26} {median[name]:7.1f} µs   {1e6 / median[name]:7.0f}/s   in all {in_all[name]:7.1f} µs")  # noqa: T201
    share = median["an empty endpoint"] / median["a decision"]
    print(f"a decision endpoint answers {share:.0%} of what an empty one does (at least {LEAST_SHARE:.0%})")  # noqa: T201
    return int(options.check and share < LEAST_SHARE)


if __name__ == "__main__":
    sys.exit(main())
