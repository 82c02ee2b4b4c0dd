"""An application for each process, whoever forks, and when."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import pytest

from router.ledger.unavailable import LedgerUnavailableError
from router.preforked import PerProcess, is_gunicorn_master


class Builder:
    """Builds applications that answer with the process that built them."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> Callable[..., Iterable[bytes]]:
        self.built += 1
        pid = os.getpid()
        return lambda _environ, _start: [str(pid).encode()]


def ask(app: PerProcess) -> int:
    [answer] = app({}, None)
    return int(answer)


def ask_in_a_child(app: PerProcess) -> tuple[int, int]:
    """The child, and who answered there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, str(ask(app)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return pid, int(pipe.read())


@pytest.mark.parametrize("now", [True, False])
def test_every_process_has_its_own(now: bool) -> None:
    """Built at once or with the first request; a child never uses its parent's, nor its own twice."""
    build = Builder()
    app = PerProcess(build, now=now)
    assert build.built == int(now)
    assert {ask(app) for _ in range(3)} == {os.getpid()}
    assert build.built == 1
    pid, answered = ask_in_a_child(app)
    assert (answered, build.built) == (pid, 1)


def test_first_requests_at_the_same_time_build_one() -> None:
    """The second waits for the first's."""
    barrier = threading.Barrier(8)
    build = Builder()

    def slow() -> Callable[..., Iterable[bytes]]:
        threading.Event().wait(0.05)
        return build()

    app = PerProcess(slow, now=False)
    answers: list[int] = []

    def request() -> None:
        barrier.wait()
        answers.append(ask(app))

    threads = [threading.Thread(target=request) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (build.built, answers) == (1, [os.getpid()] * 8)


def test_while_the_ledger_is_away_a_first_request_is_told_so_and_the_next_tries_again() -> None:
    """503 with a time to come back, as a payment is told by an application that stands."""
    build = Builder()
    faults = [LedgerUnavailableError("OperationalError")]

    def moody() -> Callable[..., Iterable[bytes]]:
        if faults:
            raise faults.pop()
        return build()

    app = PerProcess(moody, now=False)
    told: list[Any] = []
    [body] = app({}, lambda status, headers: told.append((status, dict(headers))))
    assert json.loads(body)["type"] == "urn:pointsman:problem:ledger-unavailable"
    [(status, headers)] = told
    assert (status[:3], headers["Retry-After"]) == ("503", "5")
    assert ask(app) == os.getpid()


def _module(name: str) -> Any:
    """A module with a function that calls what it is given: a frame of that module on the stack."""
    module = ModuleType(name)
    exec("def call(function): return function()", module.__dict__)
    return module


def test_only_gunicorns_main_process_waits() -> None:
    """A worker imports under the arbiter as well, that forked it, and granian under neither."""
    arbiter, worker = _module("gunicorn.arbiter"), _module("gunicorn.workers.base")
    assert not is_gunicorn_master()
    assert arbiter.call(is_gunicorn_master)
    assert not arbiter.call(lambda: worker.call(is_gunicorn_master))
    assert "gunicorn.arbiter" not in sys.modules
