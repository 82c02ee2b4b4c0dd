"""The control port: break a provider, read its books, make all well again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from providers.sandbox.faults import BadFault, Fault
from providers.sandbox.http import Exchange, PortTaken, Reply, Request
from providers.sandbox.standin import StandIn


class Control:
    """Answers the control calls of design §9. An error is `{"error": {"field", "message"}}`, 400 to 422."""

    def __init__(self, providers: Mapping[str, StandIn]) -> None:
        self._providers = providers
        self._tasks: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()  # two orders to one port must not overtake each other

    def handle(self, exchange: Exchange) -> None:
        """Take one control call; answered when its effect is complete."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reset(self) -> None:
        """All well, books empty, counters zero, at every provider."""
        async with self._one_at_a_time:
            for provider in self._providers.values():
                await provider.reset()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            reply = await self._route(exchange.request)
        except BadFault as error:
            reply = _error(422, error.field, str(error))
        except PortTaken as error:
            reply = _error(409, "mode", str(error))
        exchange.send(reply)

    async def _route(self, request: Request) -> Reply:
        match [request.method, *request.path.strip("/").split("/")]:
            case ["GET", "control"]:
                return _json(200, {name: provider.state() for name, provider in self._providers.items()})
            case ["DELETE", "control"]:
                await self.reset()
                return _json(200, {name: provider.state() for name, provider in self._providers.items()})
            case [method, "control", name, *rest] if name not in self._providers:
                del method, rest
                return _error(404, "provider", f"unknown provider; known are {', '.join(self._providers)}")
            case ["GET", "control", name]:
                return _json(200, self._providers[name].state())
            case ["PUT", "control", name]:
                return await self._put(self._providers[name], request)
            case ["GET", "control", name, "charges"]:
                return _json(200, {"charges": self._charges(self._providers[name], request)})
            case [_, "control"] | [_, "control", _] | [_, "control", _, "charges"]:
                return _error(405, "method", "this control call does not exist")
            case _:
                return _error(404, "path", "no such control call")

    async def _put(self, provider: StandIn, request: Request) -> Reply:
        try:
            body = json.loads(request.body)
        except ValueError:
            return _error(400, "body", "must be JSON")
        fault = Fault.parse(body)
        async with self._one_at_a_time:
            provider.faults.fault = fault
            await provider.apply()
        return _json(200, provider.state())

    @staticmethod
    def _charges(provider: StandIn, request: Request) -> list[dict[str, Any]]:
        filters = dict(parse_qsl(request.query, keep_blank_values=True))
        for name in filters:
            if name not in ("reference", "attempt"):
                raise BadFault(name, "unknown filter; known are reference, attempt")
        return [charge.as_json() for charge in provider.wire.books.find(**filters)]


def _json(status: int, body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode())


def _error(status: int, field: str, message: str) -> Reply:
    return _json(status, {"error": {"field": field, "message": message}})
