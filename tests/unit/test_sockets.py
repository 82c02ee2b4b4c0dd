"""A connection at rest is asked without a word whether it is still one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from providers import sockets
from providers.sockets import has_something_to_say


@pytest.fixture(params=["by the library", "by the standard library"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "by the standard library":
        monkeypatch.setattr(sockets, "_poll", None)
    elif sockets._poll is None:
        pytest.skip("only on Linux")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_well_one_is_silent(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    assert not has_something_to_say(ours.fileno())


def test_last_words_are_heard_and_stay_to_be_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"going")
    assert has_something_to_say(ours.fileno())
    assert ours.recv(10) == b"going"
    assert not has_something_to_say(ours.fileno())


def test_the_end_is_heard(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert has_something_to_say(ours.fileno())


def test_one_that_is_closed_here_is_no_well_one(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = pair
    ours.close()
    assert has_something_to_say(ours.fileno())


def test_a_descriptor_that_is_none_is_no_well_one() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    assert has_something_to_say(reader)
