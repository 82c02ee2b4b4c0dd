"""A worker's own `/metrics`, where it shares no directory with a web process that would tell of it."""

from __future__ import annotations

import socket
import threading
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from flask_openapi3.openapi import OpenAPI
from prometheus_client.exposition import ThreadingWSGIServer

from router.api import metrics, problems
from router.app.core import Core
from router.settings import PREFIX, SettingsError

SLOW_CLIENT_S = 10.0
"""A scraper asks at once; who does not, holds no thread for longer."""


class _Handler(WSGIRequestHandler):
    timeout = SLOW_CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape every 15 s is no news."""


def serve_figures(core: Core) -> WSGIServer | None:
    """Answer `/metrics` where `ROUTER_WORKER_METRICS_BIND` says, on a thread, until `shutdown`; None: nowhere.

    What only the ledger knows is left to the web processes, which tell it for all. Raises SettingsError.
    """
    bind, token = core.settings.worker_metrics_bind, core.settings.metrics_token
    if bind is None:
        return None

    def page() -> bytes:
        core.sampler.run_once()
        return core.measuring.page(lambda: iter(()))

    app = OpenAPI("router.worker", doc_ui=False, static_folder=None)
    problems.install(app)
    app.register_api(metrics.blueprint(page, token=None if token is None else token.get_secret_value()))
    host, _, port = bind.rpartition(":")

    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET

    try:
        server = make_server(host.strip("[]"), int(port), app, Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"setting {PREFIX}WORKER_METRICS_BIND: {bind}: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
