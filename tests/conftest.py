"""What every kind of test may use: the sandbox providers on real sockets, and what a process makes only once."""

from __future__ import annotations

import functools
import gc
import os
import re
import ssl
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.ledgers import BACKENDS

ON_BOTH = "ROUTER_TEST_BOTH"
"""Set: every test runs on every database it names, as `make test-both` does."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where a file is marked `either_database`, each of its tests runs on one of the two: on which, its name says.

    Such a file is about what the router does, not about queries; half of its tests meet each database all the same.
    """
    if os.environ.get(ON_BOTH):
        return
    found = {item: _database_of(item) for item in items if item.get_closest_marker("either_database")}
    pairs = Counter(name for name, _ in filter(None, found.values()))
    left = []
    for item, which in found.items():
        if which is not None and pairs[which[0]] == len(BACKENDS):
            name, database = which
            if BACKENDS[zlib.crc32(name.encode()) % len(BACKENDS)] != database:
                left.append(item)
    config.hook.pytest_deselected(items=left)
    away = set(left)
    items[:] = [item for item in items if item not in away]


def pytest_collection_finish() -> None:
    """Seven thousand tests and their modules are no garbage, and need not be looked through again and again."""
    gc.collect()
    gc.freeze()


def _database_of(item: pytest.Item) -> tuple[str, str] | None:
    """A test's name without its database, and that database; None: it has none, or several."""
    words = re.split(r"(?<=[\[-])|(?=[-\]])", item.nodeid)
    named = [word for word in words if word in BACKENDS]
    return ("".join(word for word in words if word not in BACKENDS), named[0]) if len(named) == 1 else None


@pytest.fixture(scope="session", autouse=True)
def _certificates_once() -> Iterator[None]:
    """The machine's certificates are read once in a test process, not by each of a thousand HTTP clients."""
    make = ssl.create_default_context
    usual = functools.cache(make)

    def context(*args: Any, **named: Any) -> ssl.SSLContext:
        return make(*args, **named) if args or named else usual()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", context)
        yield


@pytest.fixture(scope="session")
def sandbox_process() -> Iterator[Sandbox]:
    """Both stand-in providers and their control port, on free ports, for the whole test session."""
    sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0)
    sandbox.start()
    yield sandbox
    sandbox.stop()


@pytest.fixture
def sandbox(sandbox_process: Sandbox) -> Sandbox:
    """The sandbox, all well and with empty books."""
    sandbox_process.reset()
    return sandbox_process
