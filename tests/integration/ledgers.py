"""An empty ledger of each kind, for a test or a whole module of them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.postgres import Databases

BACKENDS = ("sqlite", "postgres")


@contextlib.contextmanager
def ledger_on(backend: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a new and empty database."""
    if backend == "sqlite":
        yield f"sqlite:///{folder / f'ledger-{uuid.uuid4().hex}.db'}"
        return
    server: Databases = request.getfixturevalue("postgres")
    url = server.create()
    try:
        yield url
    finally:
        server.drop(url)
