"""A desk before one primary provider whose circuit stays closed, and payments at every stage: for the operations."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import urllib3
from werkzeug.test import TestResponse

from providers.sandbox.server import Sandbox
from tests.integration.desk import OTHER, SECRETS, Desk
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import Shop, open_shop, paying_with

SETTINGS = [(backend, name) for backend in BACKENDS for name in OTHER]
"""Each ledger, with each provider as the primary."""
AMOUNT = 1999
ANSWERED = {"stripe": "done", "adyen": "received"}
"""What an operation is when its provider has taken it; Adyen tells the rest by webhook."""
THREE_D_SECURE = paying_with(
    stripe="pm_card_threeDSecure2Required",
    adyen={
        "stored_payment_method_id": "8415718415172204",
        "shopper_reference": "shopper_1",
        "holder_name": "REDIRECT_SHOPPER",
    },
)

_keys = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Till(Desk):
    """A desk that knows its primary provider."""

    primary: str

    def paid(self, **changed: Any) -> dict[str, Any]:
        """The example payment, with these fields changed; as it was answered, at the primary."""
        answer = self.shop.pay(**changed)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json or {}
        assert body["provider"] == self.primary
        return body

    def authorized(self, **changed: Any) -> dict[str, Any]:
        """A payment whose capture is checkout's."""
        body = self.paid(capture="manual", **changed)
        assert body["status"] == "authorized"
        return body

    def waiting(self, **changed: Any) -> dict[str, Any]:
        """A payment that waits for its customer's 3-D Secure step."""
        body = self.paid(payment_method=THREE_D_SECURE, **changed)
        assert body["status"] == "requires_action"
        return body

    def do(
        self, body: dict[str, Any], what: str, asked: Any = None, *, key: str | None = None, **more: Any
    ) -> TestResponse:
        """Ask for something to be done to this payment, under a key of its own unless one is given."""
        return self.ask(body["id"], what, asked, key=key or f"operation-{next(_keys)}", **more)

    def done(self, body: dict[str, Any], what: str, asked: Any = None, **more: Any) -> dict[str, Any]:
        """The same, where it must succeed at once; the payment as it was answered."""
        answer = self.do(body, what, asked, **more)
        assert answer.status_code == 200, answer.text
        return dict(answer.json or {})

    def book(self, body: dict[str, Any]) -> tuple[str, int, int]:
        """Status, captured and refunded of the one charge that all the books have of this payment."""
        (charge,) = self.books(body["reference"])
        assert charge["provider"] == self.primary
        return charge["status"], charge["amount_captured"], charge["amount_refunded"]

    def totals(self, body: dict[str, Any]) -> tuple[str, int, int]:
        """The same as the router has it."""
        now = self.shop.read(body["id"])
        return now["status"], now["amount_captured"], now["amount_refunded"]

    def settled(self, body: dict[str, Any]) -> bool:
        """Whether nobody has to find anything out about it any more."""
        row = self.row(body["id"])
        return row["resolve_at"] is None and row["lease_holder"] is None

    def trace(self) -> tuple[Any, ...]:
        """Everything that a refused request must leave alone: rows, books, and what the providers were asked."""
        asked = self.shop.control("GET", "/control")
        requests = {name: state["requests"] for name, state in asked.items()}
        counts = {table: rows for table, rows in self.shop.counts().items() if not table.startswith("api_key")}
        return counts, self.shop.charges("stripe"), self.shop.charges("adyen"), requests


def problem(answer: TestResponse, status: int, kind: str) -> dict[str, Any]:
    """The problem document of that kind."""
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), answer.text
    found: dict[str, Any] = answer.get_json(force=True)
    assert found["type"] == f"urn:pointsman:problem:{kind}", answer.text
    return found


def conflict(answer: TestResponse, status: str) -> None:
    """409, naming the payment's status, for people and for programs."""
    found = problem(answer, 409, "state-conflict")
    assert found["payment_status"] == status
    assert f"is {status}" in found["detail"]


def pass_step(body: dict[str, Any], *, result: str = "success") -> dict[str, str]:
    """The customer takes the 3-D Secure step, or fails it; what the browser brings back to the shop."""
    page = urllib3.request("GET", f"{body['next_action']['url']}?result={result}", redirect=False)
    assert page.status == 302, page.data
    return dict(parse_qsl(urlsplit(page.headers["Location"]).query))


@contextlib.contextmanager
def till_shop(
    request: pytest.FixtureRequest, sandbox: Sandbox, folder: Path, **settings: Any
) -> Iterator[tuple[Shop, str]]:
    """A router for one of SETTINGS, and the name of its primary."""
    backend, primary = request.param
    chosen: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        **SECRETS,
    }
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox, folder, **chosen | settings) as shop:
        yield shop, primary
