"""How a process is put together, as far as its circuits go."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from providers.contract import Health
from router.app import loops as composition
from router.app import web
from router.app.core import Core, build
from router.app.loops import create_worker
from router.app.web import create_app
from router.clock import SystemClock
from router.ledger.circuits import CircuitLedger
from router.ledger.flips import Override
from router.ledger.unavailable import LedgerUnavailableError
from router.loops import Loop, Loops
from router.recovery import Recovery
from router.settings import PREFIX, Settings
from router.telemetry import logs
from router.transitions import State, following
from tests.fakes.house import teach


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a process whose loops never run: what is so at once is so before them."""
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setattr(logs, "configure", lambda *_args, **_named: None)
    monkeypatch.setattr(Loops, "start", lambda _self: None)
    return Settings(run_dir=tmp_path)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Core]:
    core = build(settings, role="worker")
    yield core
    core.close()


def core_of(app: Flask) -> Core:
    """The web process's parts, which are let go of at once."""
    core, stop = app.extensions["pointsman"]
    atexit.unregister(stop)
    stop()
    assert isinstance(core, Core)
    return core


def test_a_web_process_follows_the_circuits_before_its_first_request(settings: Settings, worker: Core) -> None:
    """One that joins during an outage must not call the broken provider."""
    opened = following(
        None, State.OPEN, provider="stripe", at=SystemClock().now(), actor="web:1", reason="10 of 10 calls failed"
    )
    assert CircuitLedger(worker.database).append(opened)
    assert not core_of(create_app(settings)).health.is_admitting("stripe")


def test_a_process_that_begins_knows_the_past_before_its_first_request(settings: Settings, worker: Core) -> None:
    """What was normal is told by those before it."""
    for _ in range(60):
        teach(worker.health, Health.OK, 5)
    worker.health.watch_once()
    worker.health.exchange_once()
    assert core_of(create_app(settings)).health._guarded["stripe"].warning.can_judge


def test_a_web_process_leaves_a_worker_twice_the_wait_to_probe(
    settings: Settings, worker: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's own patience is one wait."""
    found: list[float] = []

    class Noted(Recovery):
        def __init__(self, *args: Any, patience: float, **named: Any) -> None:
            super().__init__(*args, patience=patience, **named)
            found.append(patience)

    monkeypatch.setattr(composition, "Recovery", Noted)
    create_worker(worker)
    core_of(create_app(settings))
    assert found == [1.0, 2.0]


@pytest.mark.parametrize("role", ["web", "worker"])
def test_an_override_is_obeyed_while_the_circuits_cannot_be_written(
    settings: Settings, worker: Core, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Each is followed on a thread of its own: an override sends payments away from a provider that fails."""
    loops: list[Loop] = []
    monkeypatch.setattr(Loops, "add", lambda _self, loop: loops.append(loop))
    core = core_of(create_app(settings)) if role == "web" else worker
    if role == "worker":
        create_worker(worker)
    in_force = Override("flip_1", "stripe", "adyen", SystemClock().now())
    monkeypatch.setattr(core.override, "_ask", lambda: [in_force])

    def fails() -> None:
        raise LedgerUnavailableError("OperationalError")

    monkeypatch.setattr(core.health._store, "latest", lambda _providers: fails())
    for loop in loops:
        if loop.name in ("circuits", "override"):
            with contextlib.suppress(LedgerUnavailableError):
                loop.run_once()
    assert core.override.in_force == [in_force]


@pytest.mark.parametrize("role", ["web", "worker"])
def test_a_stop_waits_for_no_news(
    settings: Settings, worker: Core, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Of circuits and of probes: every loop is told, however long it would have waited."""
    for name in ("SYNC_INTERVAL_S", "RECOVERY_INTERVAL_S"):
        monkeypatch.setattr(composition, name, 60.0)
    loops = Loops()
    for module in (composition, web):
        monkeypatch.setattr(module, "Loops", lambda *_told: loops)
    app = create_app(settings) if role == "web" else None
    if app is None:
        create_worker(worker)
    for thread in loops._threads:
        thread.start()
    begun = time.monotonic()
    assert loops.stop(5)
    assert time.monotonic() - begun < 1
    if app is not None:
        core_of(app)
