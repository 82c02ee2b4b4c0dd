"""What every kind of test may use: the sandbox providers on real sockets, and what a process makes only once."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox


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
