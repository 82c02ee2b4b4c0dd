"""What every kind of test may use: the sandbox providers on real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from providers.sandbox.server import Sandbox


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
