"""The control port: break a provider, read its books, steer its webhooks, let things go wrong, make all well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import parse_qsl

from providers.sandbox.books import Mishap
from providers.sandbox.faults import BadFault, Fault, read_fields
from providers.sandbox.http import Exchange, PortTaken, Reply, Request
from providers.sandbox.settlements import PLANTS
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
        except _NotJson:
            reply = _error(400, "body", "must be JSON")
        except _NotPossible as error:
            reply = _error(409, "type", str(error))
        except PortTaken as error:
            reply = _error(409, "mode", str(error))
        exchange.send(reply)

    async def _route(self, request: Request) -> Reply:  # noqa: PLR0912 - a case for each call
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
            case ["GET", "control", name, "settlement"]:
                return _settlement(self._providers[name], request)
            case ["GET" | "PUT" as method, "control", name, "account"]:
                account = self._providers[name].wire.account
                if method == "PUT":
                    account.configure(_body(request))
                return _json(200, {"provider": name, **account.as_json()})
            case ["POST", "control", name, "events"]:
                return _json(200, self._happen(self._providers[name], request))
            case ["GET", "control", name, "webhooks"]:
                return _webhooks(self._providers[name])
            case ["PUT", "control", name, "webhooks"]:
                self._providers[name].webhooks.configure(_body(request))
                return _webhooks(self._providers[name])
            case ["POST", "control", name, "webhooks", "release"]:
                released = self._providers[name].webhooks.release()
                return _webhooks(self._providers[name], released=released)
            case (
                [_, "control"]
                | [_, "control", _]
                | [_, "control", _, "account" | "charges" | "events" | "settlement" | "webhooks"]
                | [_, "control", _, "webhooks", "release"]
            ):
                return _error(405, "method", "this control call does not exist")
            case _:
                return _error(404, "path", "no such control call")

    async def _put(self, provider: StandIn, request: Request) -> Reply:
        fault = Fault.parse(_body(request))
        async with self._one_at_a_time:
            provider.faults.fault = fault
            await provider.apply()
        return _json(200, provider.state())

    @staticmethod
    def _happen(provider: StandIn, request: Request) -> dict[str, Any]:
        """The charge after what the body says has happened to it."""
        fields = read_fields(_body(request), {"charge": _text, "type": _mishap})
        for name in ("charge", "type"):
            if name not in fields:
                raise BadFault(name, "is required")
        charge = provider.wire.books.get(fields["charge"])
        if charge is None:
            raise BadFault("charge", "is not in the books")
        if not provider.wire.happen(fields["type"], charge):
            raise _NotPossible(f"{fields['type']} cannot happen to this charge as it stands ({charge.status})")
        return charge.as_json()

    @staticmethod
    def _charges(provider: StandIn, request: Request) -> list[dict[str, Any]]:
        filters = dict(parse_qsl(request.query, keep_blank_values=True))
        for name in filters:
            if name not in ("reference", "attempt"):
                raise BadFault(name, "unknown filter; known are reference, attempt")
        return [charge.as_json() for charge in provider.wire.books.find(**filters)]


class _NotJson(Exception):  # noqa: N818 - says what the body is
    """The body is no JSON."""


class _NotPossible(Exception):  # noqa: N818 - says what the order is
    """The charge's state does not allow it."""


def _body(request: Request) -> Any:
    try:
        return json.loads(request.body)
    except ValueError:
        raise _NotJson from None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadFault(name, "must be a string")
    return value


def _mishap(name: str, value: Any) -> str:
    if value not in get_args(Mishap):
        raise BadFault(name, f"unknown type; known are {', '.join(get_args(Mishap))}")
    return str(value)


def _settlement(provider: StandIn, request: Request) -> Reply:
    plants: dict[str, int] = {}
    for name, value in parse_qsl(request.query, keep_blank_values=True):
        if name not in PLANTS:
            raise BadFault(name, f"unknown difference; known are {', '.join(PLANTS)}")
        if not (value.isascii() and value.isdigit() and len(value) < 7):
            raise BadFault(name, "must be how many of them, at most 999999")
        plants[name] = int(value)
    return Reply(200, provider.wire.settlement(plants), content_type="text/csv; charset=utf-8")


def _webhooks(provider: StandIn, **more: int) -> Reply:
    return _json(200, {"provider": provider.name, **provider.webhooks.state(), **more})


def _json(status: int, body: Any) -> Reply:
    return Reply(status, json.dumps(body).encode())


def _error(status: int, field: str, message: str) -> Reply:
    return _json(status, {"error": {"field": field, "message": message}})
