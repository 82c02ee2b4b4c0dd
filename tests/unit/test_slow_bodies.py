"""Bodies that are late hold so many threads and no more; honest ones never notice, whatever the load."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.exceptions import ServiceUnavailable

from router.clock import ManualClock
from router.slow_bodies import LATE_S, WHOSE, SlowBodies


class Late:
    """A body during whose read something else happens."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    def read(self, size: int = -1) -> bytes:
        self._meanwhile()
        return b"late"


def answer(environ: dict[str, Any], _start: Any) -> Iterable[bytes]:
    """As the gate does: behind `/v1/` nothing is read before it is known whose it is."""
    if environ["PATH_INFO"].startswith("/v1/"):
        environ[WHOSE] = environ["HTTP_AUTHORIZATION"].split()[-1]
    return [environ["wsgi.input"].read()]


def ask(app: SlowBodies, body: Any, path: str = "/webhooks/stripe", key: str = "") -> bytes:
    environ = {"CONTENT_LENGTH": "4", "PATH_INFO": path, "HTTP_AUTHORIZATION": key, "wsgi.input": body}
    return b"".join(app(environ, lambda *_args: None))


def nested(app: SlowBodies, clock: ManualClock, depth: int, late_s: float, inside: Any, **whose: str) -> None:
    """`depth` bodies that are all late by so much when `inside` happens."""
    if depth == 0:
        clock.advance(late_s)
        inside()
        return
    assert ask(app, Late(lambda: nested(app, clock, depth - 1, late_s, inside, **whose)), **whose) == b"late"


def test_late_bodies_of_just_anybody_hold_a_thread_in_four() -> None:
    clock = ManualClock()
    app = SlowBodies(answer, threads=16, monotonic=clock.monotonic)
    seen = []

    def inside() -> None:
        with pytest.raises(ServiceUnavailable) as refused:
            ask(app, io.BytesIO(b"next"))
        assert dict(refused.value.get_headers())["Retry-After"] == "2"
        seen.append(ask(app, io.BytesIO(b"paid"), "/v1/payments", "Bearer k"))

    nested(app, clock, 4, LATE_S * 1.1, inside)
    assert seen == [b"paid"]
    assert ask(app, io.BytesIO(b"next")) == b"next"


def test_one_merchants_late_bodies_hold_a_thread_in_two_and_hold_up_no_other() -> None:
    clock = ManualClock()
    app = SlowBodies(answer, threads=8, monotonic=clock.monotonic)
    mine = {"path": "/v1/payments", "key": "Bearer mine"}

    def inside() -> None:
        for key in ("Bearer mine", "bearer mine", "Bearer  mine "):
            with pytest.raises(ServiceUnavailable):
                ask(app, io.BytesIO(b"next"), "/v1/payments", key)
        assert ask(app, io.BytesIO(b"other"), "/v1/payments", "Bearer other") == b"other"
        assert ask(app, io.BytesIO(b"hook")) == b"hook"

    nested(app, clock, 4, LATE_S * 1.1, inside, **mine)


def test_twice_as_many_that_are_not_late_are_read_and_not_more() -> None:
    """A hundred that come within a moment are none of them late yet."""
    clock, seen = ManualClock(), []
    app = SlowBodies(answer, threads=16, monotonic=clock.monotonic)
    nested(app, clock, 7, LATE_S * 0.9, lambda: seen.append(ask(app, io.BytesIO(b"next"))))
    assert seen == [b"next"]

    def inside() -> None:
        with pytest.raises(ServiceUnavailable):
            ask(app, io.BytesIO(b"next"))

    nested(app, clock, 8, 0.0, inside)


def test_a_read_that_fails_is_over() -> None:
    clock = ManualClock()
    app = SlowBodies(answer, threads=4, monotonic=clock.monotonic)

    def fail() -> None:
        raise OSError

    for _ in range(3):
        with pytest.raises(OSError):  # noqa: PT011 - whatever the server's read raises passes
            ask(app, Late(fail))
        clock.advance(2 * LATE_S)
    assert ask(app, io.BytesIO(b"next")) == b"next"


def test_nobody_says_himself_whose_his_body_is() -> None:
    """The server passes headers on as `HTTP_…`; and a name of ours that is there all the same is not believed."""
    clock = ManualClock()
    app = SlowBodies(lambda environ, _start: [environ["wsgi.input"].read()], threads=4, monotonic=clock.monotonic)
    environ = {"CONTENT_LENGTH": "4", "PATH_INFO": "/webhooks/stripe", WHOSE: "mine", "wsgi.input": io.BytesIO(b"a")}

    def inside() -> None:
        with pytest.raises(ServiceUnavailable):
            app(environ, lambda *_args: None)

    nested(app, clock, 1, LATE_S * 1.1, inside)


def test_a_thread_in_eight_waits_for_no_body_whoever_the_others_are() -> None:
    """Many merchants, each within its own bounds."""
    clock, merchants = ManualClock(), iter(range(100))
    app = SlowBodies(answer, threads=16, monotonic=clock.monotonic)

    def more(depth: int) -> None:
        if depth:
            key = f"Bearer {next(merchants)}"
            assert ask(app, Late(lambda: more(depth - 1)), "/v1/payments", key) == b"late"
        else:
            with pytest.raises(ServiceUnavailable):
                ask(app, io.BytesIO(b"next"), "/v1/payments", "Bearer next")

    more(14)
    assert ask(app, io.BytesIO(b"next"), "/v1/payments", "Bearer next") == b"next"
