"""A checkout in front of a whole router: real application, real SDKs, real sockets, and the stand-in providers."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import urllib3
from flask import Flask
from werkzeug.test import TestResponse

from flags.filewriter import FileFlagWriter, complete_file
from providers.contract import Money, Outcome, Params, Provider, Timeouts
from providers.sandbox.server import Sandbox
from router import sending
from router.app import core as composition
from router.app.core import Core
from router.app.loops import build_parked
from router.app.web import create_app
from router.ledger.engine import Database
from router.ledger.keys import KeyLedger
from router.ledger.tables import (
    event_clock,
    flag_changes,
    flag_values,
    heartbeats,
    merchant_volumes,
    metadata,
    parked_ramp,
    provider_accounts,
    provider_counts,
    report_cells,
    report_facts,
    report_state,
    score_counts,
    sealing_keys,
    sealing_processes,
)
from router.parked import Parked
from router.settings import PREFIX, PROVIDER_NAMES, Settings
from tests.integration.postgres import URL_VARIABLE

API_KEY = "bootstrap-key-of-the-tests"
ENCRYPTION_KEY = "a-Fernet-key-that-only-these-tests-use-000A="
ABSENT: Any = object()
"""As an override: leave the field out."""
HANG_READ_TIMEOUT_S = 0.25
"""Long enough for the stand-ins on a busy machine, short enough to wait out."""

LOG = io.StringIO()
"""Everything that the router logged in this test process."""

_numbers = itertools.count(1)


def order(**overrides: Any) -> dict[str, Any]:
    """The design's example of a payment, with a reference and a card of its own, and these fields instead."""
    number = next(_numbers)
    body: dict[str, Any] = {
        "reference": f"ORD-{number}",
        "amount": 1999,
        "currency": "EUR",
        "capture": "automatic",
        "payment_method": {
            "type": "card",
            "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
            "card": {"brand": "visa", "country": "DE", "funding": "credit", "fingerprint": f"card-{number}"},
        },
        "customer": {"id": "cus_1", "country": "DE"},
        "return_url": "https://shop.example/return",
        "metadata": {"cart": "77"},
    } | overrides
    return {name: value for name, value in body.items() if value is not ABSENT}


def paying_with(**tokens: Any) -> dict[str, Any]:
    """A payment method with these tokens."""
    return {"type": "card", "tokens": tokens}


@functools.cache
def _outside(url: str) -> sa.Engine:
    """Connects anew each time, and keeps no connection."""
    return sa.create_engine(Database(url, pool_size=1).engine.url, poolclass=sa.NullPool)


@dataclass(frozen=True, slots=True)
class Shop:
    """What a test does with the router, and what it may look at behind it."""

    app: Flask
    core: Core
    sandbox: Sandbox
    url: str

    # ------------------------------------------------------------ checkout's side

    def send(
        self, method: str, path: str, *, key: str | None = None, api_key: str | None = API_KEY, **kwargs: Any
    ) -> TestResponse:
        """Any request; `key` is the Idempotency-Key, `api_key` None sends none."""
        headers = dict(kwargs.pop("headers", {}))
        if key is not None:
            headers["Idempotency-Key"] = key
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        return self.app.test_client().open(path, method=method, headers=headers, **kwargs)

    def pay(
        self, body: Mapping[str, Any] | None = None, *, key: str | None = None, api_key: str = API_KEY, **changed: Any
    ) -> TestResponse:
        """Ask for the example payment, with these fields changed, under a key of its own unless one is given."""
        key = f"key-{next(_numbers)}" if key is None else key
        return self.send("POST", "/v1/payments", key=key, api_key=api_key, json=body or order(**changed))

    def read(self, payment_id: str) -> dict[str, Any]:
        """The payment as checkout reads it now."""
        answer = self.send("GET", f"/v1/payments/{payment_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json or {})

    def add_key(self, key: str, *, merchant: str, scopes: tuple[str, ...] = ("payments",)) -> str:
        """One more API key."""
        ledger = KeyLedger(self.core.database)
        ledger.add(key, merchant=merchant, scopes=scopes, label="test", now=self.core.clock.now())
        return key

    # ------------------------------------------------------------ the providers' side

    def fault(self, provider: str, mode: str, **more: Any) -> None:
        """Break a provider, or mend it (`ok`)."""
        self.control("PUT", f"/control/{provider}", json={"mode": mode, **more})

    def charges(self, provider: str, reference: str | None = None) -> list[dict[str, Any]]:
        """A provider's own books."""
        filters = {} if reference is None else {"reference": reference}
        found: list[dict[str, Any]] = self.control("GET", f"/control/{provider}/charges", fields=filters)["charges"]
        return found

    def charged(self, reference: str) -> list[tuple[str, str, int]]:
        """Provider, status and amount of every charge with this reference, anywhere, that is not a decline."""
        return [
            (provider, each["status"], each["amount"])
            for provider in PROVIDER_NAMES
            for each in self.charges(provider, reference)
            if each["status"] != "declined"
        ]

    def control(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        """A control call of the sandbox."""
        answer = urllib3.request(method, self.sandbox.control_url + path, **kwargs)
        assert answer.status == 200, answer.data
        body: dict[str, Any] = answer.json()
        return body

    # ------------------------------------------------------------ the ledger's side

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """What a connection that is not the router's own finds in the ledger: only what was committed."""
        with _outside(self.url).connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]

    def counts(self) -> dict[str, int]:
        """How many rows each table has, but for what a process writes by itself: heartbeats, counts, flags, sums."""
        by_itself = [heartbeats, provider_counts, score_counts, flag_values, flag_changes, parked_ramp, event_clock]
        by_itself += [report_facts, report_cells, report_state, sealing_keys, sealing_processes, provider_accounts]
        by_itself += [merchant_volumes]
        names = sorted(set(metadata.tables) - {each.name for each in by_itself})
        query = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS n FROM {name}" for name in names)
        return {row["name"]: row["n"] for row in self.rows(query)}

    def parked(self) -> Parked:
        """The worker's loop over parked payments."""
        return build_parked(self.core, start=lambda task: task())


@dataclass(frozen=True, slots=True)
class Spy:
    """A provider that tells of each authorization just before and just after it is sent."""

    inner: Provider
    before: list[Callable[[str, Params], None]] = field(default_factory=list)
    after: list[Callable[[str, Outcome], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    def is_reference(self, reference: str) -> bool:
        return self.inner.is_reference(reference)

    def check(self, method: str, money: Money) -> None:
        self.inner.check(method, money)

    def render(self, request: Any) -> Params:
        return self.inner.render(request)

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        for look in self.before:
            look(idempotency_key, params)
        outcome = self.inner.authorize(params, idempotency_key=idempotency_key, timeouts=timeouts)
        for tell in self.after:
            tell(idempotency_key, outcome)
        return outcome

    def capture(self, provider_reference: str, money: Money, **rest: Any) -> Any:
        return self.inner.capture(provider_reference, money, **rest)

    def void(self, provider_reference: str, **rest: Any) -> Any:
        return self.inner.void(provider_reference, **rest)

    def refund(self, provider_reference: str, money: Money, **rest: Any) -> Any:
        return self.inner.refund(provider_reference, money, **rest)

    def look_up(self, attempt_id: str, **rest: Any) -> Any:
        return self.inner.look_up(attempt_id, **rest)

    def void_attempt(self, attempt_id: str, **rest: Any) -> Any:
        return self.inner.void_attempt(attempt_id, **rest)

    def complete(self, provider_reference: str | None, details: Mapping[str, Any], **rest: Any) -> Any:
        return self.inner.complete(provider_reference, details, **rest)

    def read_webhook(self, headers: Mapping[str, str], body: bytes, **rest: Any) -> Any:
        return self.inner.read_webhook(headers, body, **rest)

    def probe(self, **rest: Any) -> Any:
        return self.inner.probe(**rest)

    def account(self, **rest: Any) -> Any:
        return self.inner.account(**rest)

    def close(self) -> None:
        self.inner.close()


@contextlib.contextmanager
def open_shop(
    url: str,
    sandbox: Sandbox,
    run_dir: Path,
    *,
    flags: Mapping[str, Any] | None = None,
    spies: Mapping[str, list[Spy]] | None = None,
    **settings: Any,
) -> Iterator[Shop]:
    """A router over that ledger and those providers, stopped at the end.

    `flags` are written to the flags file first; a list in `spies` gets the spy that is put before that provider.
    """
    chosen: dict[str, Any] = {
        "run_dir": run_dir,
        "database_url": url,
        "api_key": API_KEY,
        "encryption_keys": ENCRYPTION_KEY,
        "stripe_base_url": sandbox.stripe_url,
        "adyen_base_url": sandbox.adyen_url,
        "connect_timeout_seconds": 0.5,
        "read_timeout_seconds": 5.0,
        "deadline_seconds": 10.0,
        "web_threads": 4,
    } | settings
    build_providers = composition.build_providers

    def build_with_spies(built_from: Settings) -> Mapping[str, Provider]:
        providers = dict(build_providers(built_from))
        for name, found in (spies or {}).items():
            spy = Spy(providers[name])
            found.append(spy)
            providers[name] = spy
        return providers

    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(PREFIX) and name != URL_VARIABLE:
                patch.delenv(name)
        patch.setattr(composition, "build_providers", build_with_spies)
        patch.setattr(sending, "RESEND_WAIT_S", (0.001, 0.01))
        made = Settings(**chosen)
        if flags:
            complete_file(made.flags_path, PROVIDER_NAMES)
            for key, value in flags.items():
                FileFlagWriter(made.flags_path, PROVIDER_NAMES).set(key, value, expected=None, comment="a test")
        with contextlib.redirect_stderr(LOG):  # where the router's logs go is settled when it is built
            app = create_app(made)
        core, stop = app.extensions["pointsman"]
        atexit.unregister(stop)
        try:
            yield Shop(app, core, sandbox, url)
        finally:
            stop()
