"""The way of one request through a stand-in provider: judged, delayed, acted on (or not), answered (or not)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from providers.sandbox.accounts import Account
from providers.sandbox.books import Books, Charge, Mishap
from providers.sandbox.faults import CallKind, Faults, Mode, Verdict
from providers.sandbox.http import Exchange, ListeningPort, Reply, Request
from providers.sandbox.webhooks import Webhooks

GARBAGE = Reply(
    200,
    b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>",
    content_type="text/html; charset=utf-8",
)


class Work(Protocol):
    """A request that was let in, with its idempotency key claimed. Exactly one of the two is called, once."""

    def perform(self, *, decline_code: str | None, decline: bool, answer_instead: Reply | None) -> Reply:
        """Act, and keep the result for the key (`answer_instead`, where given, is kept in its place)."""

    def keep(self, reply: Reply) -> None:
        """Act on nothing, and keep this answer for the key."""


class Wire(Protocol):
    """A vendor's wire format and rules."""

    books: Books
    account: Account

    def kind(self, request: Request) -> CallKind:
        """What the request asks for, before it is known to be valid."""

    def admit(self, request: Request) -> Work | Reply:
        """Check credentials and the idempotency key; an answer where it goes no further (refusal, replay)."""

    def unavailable(self) -> Reply:
        """The vendor's 503."""

    def rate_limited(self) -> Reply:
        """The vendor's 429."""

    def happen(self, kind: Mishap, charge: Charge) -> bool:
        """Something nobody asked for, in the books and told; False where the charge's state does not allow it."""

    def settlement(self, plants: Mapping[str, int]) -> bytes:
        """The books as the vendor's settlement file, with so many differences of each kind planted."""

    def clear(self) -> None:
        """Forget everything, books included."""


@dataclass(slots=True)
class Counters:
    """What reached the port; nothing can be counted while it is down."""

    requests: int = 0
    acted: int = 0
    """Requests that changed the books."""
    cut: int = 0
    """Requests whose connection was cut, before or after acting."""
    authorizations: int = 0
    """Requests that asked for an authorization, whatever became of them."""


class StandIn:
    """One stand-in provider: its port, wire, faults and counters. Used on the sandbox's own thread only.

    A delayed request acts at the *end* of its delay, as a provider's acquirer would: until then a look-up does not
    find it, and it acts even if the client has hung up or the port went down in between.
    """

    def __init__(self, name: str, port: ListeningPort, wire: Wire, faults: Faults, webhooks: Webhooks) -> None:
        self.name = name
        self.webhooks = webhooks
        self.port = port
        self.wire = wire
        self.faults = faults
        self.counters = Counters()
        self._timers: set[asyncio.TimerHandle] = set()

    def handle(self, exchange: Exchange) -> None:
        """Take one request in."""
        counters, wire = self.counters, self.wire
        counters.requests += 1
        kind = wire.kind(exchange.request)
        if kind is CallKind.AUTHORIZE:
            counters.authorizations += 1
        verdict = self.faults.judge(kind)
        admitted = wire.admit(exchange.request) if _reaches_the_wire(verdict) else None
        if verdict.latency_s:
            self._later(verdict.latency_s, lambda: self._carry_out(exchange, verdict, admitted))
        else:
            self._carry_out(exchange, verdict, admitted)

    def _carry_out(self, exchange: Exchange, verdict: Verdict, admitted: Work | Reply | None) -> None:
        match verdict.mode:
            case Mode.OK | Mode.SLOW:
                exchange.send(self._perform(admitted))
            case Mode.DECLINE:
                exchange.send(self._perform(admitted, decline=True, decline_code=verdict.fault.decline_code))
            case Mode.HANG:
                self._perform(admitted)
            case Mode.LOSE_REPLY:
                self._perform(admitted)
                self._cut(exchange)
            case Mode.DROP_REQUEST:
                self._cut(exchange)
            case Mode.RATE_LIMITED:
                exchange.send(self.wire.rate_limited())
            case Mode.GARBAGE:
                if verdict.fault.acts:
                    self._perform(admitted)
                exchange.send(GARBAGE)
            case Mode.ERRORS:
                exchange.send(self._fail(verdict, admitted))
            case Mode.DOWN:
                self._cut(exchange)  # judged while the port was going down

    def _perform(
        self,
        admitted: Work | Reply | None,
        *,
        decline: bool = False,
        decline_code: str | None = None,
        answer_instead: Reply | None = None,
    ) -> Reply:
        assert admitted is not None
        if isinstance(admitted, Reply):
            return admitted
        before = self.wire.books.changes
        reply = admitted.perform(decline_code=decline_code, decline=decline, answer_instead=answer_instead)
        if self.wire.books.changes != before:
            self.counters.acted += 1
        return reply

    def _fail(self, verdict: Verdict, admitted: Work | Reply | None) -> Reply:
        error = self.wire.unavailable()
        if verdict.fault.acts:
            self._perform(admitted, answer_instead=error if verdict.fault.stored else None)
        elif verdict.fault.stored and admitted is not None and not isinstance(admitted, Reply):
            admitted.keep(error)
        return error

    def _cut(self, exchange: Exchange) -> None:
        if exchange.open:
            self.counters.cut += 1
            exchange.cut()

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)

    async def apply(self) -> None:
        """Bring the port into line with the mode in force; effective when it returns."""
        if self.faults.fault.mode is Mode.DOWN:
            self.counters.cut += self.port.go_down()
            # asyncio closes sockets in its next round: a client that hears of this order must find them closed.
            await asyncio.sleep(0)
        else:
            await self.port.listen(self.handle)
        self.webhooks.pause(self.faults.fault.mode is Mode.DOWN)

    async def reset(self) -> None:
        """All well, books empty, counters zero, nothing in flight; idle connections stay."""
        await self.webhooks.reset()  # first: from here on nothing is awaited before all is clear
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.port.abort_unanswered()
        self.faults.reset()
        self.wire.clear()
        self.counters = Counters()
        await asyncio.sleep(0)  # aborted connections are closed in the loop's next round
        await self.apply()

    def state(self) -> dict[str, Any]:
        """The mode in force and the counters, as the control port shows them."""
        return {"provider": self.name, "url": self.port.url, **self.faults.fault.as_json(), **asdict(self.counters)}


def _reaches_the_wire(verdict: Verdict) -> bool:
    """Whether the call gets as far as the vendor's own checks: what never acts must not claim an idempotency key."""
    match verdict.mode:
        case Mode.OK | Mode.SLOW | Mode.DECLINE | Mode.HANG | Mode.LOSE_REPLY:
            return True
        case Mode.ERRORS:
            return verdict.fault.acts or verdict.fault.stored
        case Mode.GARBAGE:
            return verdict.fault.acts
        case _:
            return False
