"""A router whose flags are at LaunchDarkly, and its two workers by hand: what the tests of flips stand on.

Everything is as the composition root puts it together (real SDKs, the real mover, SQLite), but for the threads: each
loop runs when a test says so, by a clock that a test moves. Only the SDK's stream has a thread, and is waited for.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from ldclient.impl import retry
from pydantic import SecretStr

from flags import reading
from flags.contract import PRIMARY_PROVIDER, FlagContext
from flags.definitions import definitions
from flags.document import new_document
from flags.file import FileFlags
from flags.launchdarkly import LaunchDarklyFlags
from flags.reading import SdkFlags, to_sdk_context
from flags.rest import LaunchDarklyMover
from providers.contract import Health
from providers.sandbox.server import Sandbox
from router import sending
from router.app import core as composition
from router.app import loops as loop_building
from router.app.core import Core
from router.app.loops import create_worker
from router.app.web import web_app
from router.clock import ManualClock, TimeOrderedIds
from router.ledger.alerts import Alert, AlertLedger
from router.ledger.engine import Database
from router.ledger.flips import Flip, FlipLedger
from router.ledger.migrate import migrate
from router.loops import Loop, Loops
from router.order import Order
from router.parked import Parked
from router.settings import PREFIX, PROVIDER_NAMES, Settings
from router.transitions import State
from tests.fakes.house import move, teach
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.fakes.launchdarkly.server import TOKEN, Patch
from tests.integration.shop import API_KEY, Shop, order
from tests.unit.webhook_receiver import until

FLIP_AFTER_S = 60.0
START_WAIT_S = 0.05
"""So long does a start wait for LaunchDarkly, where it is two seconds in earnest."""
ANSWER_WITHIN_S = 0.3
"""So long does the mover wait for an answer, where it is five seconds in earnest."""
CALLS = 4
"""Failures that open a circuit."""
PAYMENTS_AT_MOST = 60
"""A rollout may send the failing provider a part of the customers only."""
ANYONE = FlagContext()
_numbers = itertools.count(1)


class WebLater:
    """The web's routes, put together when they are first asked: their documents take as long as a whole test."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @functools.cached_property
    def _app(self) -> Flask:
        return web_app(self._core)

    def test_client(self) -> FlaskClient:
        return self._app.test_client()


class ByHand(Loops):
    """Loops that run when they are told to."""

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self.loops: dict[str, Callable[[], object]] = {}

    def add(self, loop: Loop) -> None:
        self.loops[loop.name] = loop.run_once


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process."""

    core: Core
    loops: Mapping[str, Callable[[], object]]

    def round(self) -> None:
        """One round of what flips need, as the loops would run it within a quarter of a second."""
        for name in ("circuits", "flag-watch", "flips", "flip-writing"):
            self.loops[name]()


@dataclass(frozen=True, slots=True)
class Paid:
    """One payment, as checkout was answered."""

    id: str
    reference: str
    first: str
    """The provider that the decision put first."""
    primary: str
    """By the flag and the override."""
    why: Sequence[str]
    """What the decision says of the primary."""


@dataclass
class FlipHouse:
    """One web process and two workers, and a customer who pays after every round."""

    shop: Shop
    workers: Sequence[Worker]
    clock: ManualClock
    flips: FlipLedger
    ld: FakeLaunchDarkly | None
    paid: list[Paid] = field(default_factory=list)
    opened_by: set[str] = field(default_factory=set)
    """The payments that an outage met while the circuit was closed."""

    # ------------------------------------------------------------ time

    def after(self, seconds: float = 0.0, *, rounds: int = 1) -> None:
        """That many seconds later one round of every process, and a payment; so many times."""
        for _ in range(rounds):
            self.clock.advance(seconds)
            self.follow()
            for worker in self.workers:
                worker.round()
            self.follow()
            self.pay()

    def follow(self) -> None:
        """What the web process does by itself: it follows circuits, overrides and flags."""
        core = self.shop.core
        core.health.sync_once()
        core.override.refresh()
        core.flag_watch.run_once()

    def outage(self, *, provider: str = "stripe", by_payments: bool = True) -> None:
        """The provider breaks, and its circuit opens by payments that it fails, or by other calls."""
        self.clock.advance(1)
        self.shop.fault(provider, "down")
        health = self.shop.core.health
        if not by_payments:
            teach(health, Health.UNREACHABLE, CALLS, provider)
        for _ in range(PAYMENTS_AT_MOST):
            if health.snapshot(provider).state is State.OPEN:
                break
            self.opened_by.add(self.pay().id)
        assert health.snapshot(provider).state is State.OPEN
        self.after()

    def recovered(self, *, provider: str = "stripe") -> None:
        """The provider is well again, and its circuit closed."""
        self.clock.advance(1)
        self.shop.fault(provider, "ok")
        move(self.workers[0].core.health, provider, State.CLOSED, self.clock)
        self.after()

    def incident_over(self, *, provider: str = "stripe") -> None:
        """It has been closed for long enough."""
        self.recovered(provider=provider)
        self.after(300)

    def caught_up(self, key: str = PRIMARY_PROVIDER) -> None:
        """Every process has heard what LaunchDarkly last said of the flag, and one has written it down."""
        assert self.ld is not None
        wanted = self.ld.flag(key)["version"]
        sources = [cast("SdkFlags", core.flags) for core in self.cores]
        until(lambda: all(each.status().state == "valid" and _version(each, key) == wanted for each in sources))
        self.follow()

    @property
    def cores(self) -> Sequence[Core]:
        """Of every process, the web's first."""
        return [self.shop.core, *(worker.core for worker in self.workers)]

    # ------------------------------------------------------------ checkout

    def pay(self, **changed: Any) -> Paid:
        """A customer pays."""
        number = next(_numbers)
        wanted = Order.model_validate(order(customer={"id": f"cus_{number}", "country": "DE"}, **changed))
        payment = self.shop.core.payments.create(wanted, merchant="default", key=f"key-{number}").payment
        decision = payment.decision or {}
        candidates = decision["candidates"]
        (why,) = [each["reasons"] for each in candidates if each["provider"] == decision["primary"]]
        found = Paid(payment.id, payment.reference, candidates[0]["provider"], decision["primary"], why)
        self.paid.append(found)
        return found

    @property
    def last(self) -> Paid:
        """The last payment."""
        return self.paid[-1]

    @property
    def obeyed(self) -> bool:
        """Whether the last payment went by the override of the only flip, as its decision says."""
        says_so = f"primary in place of stripe ({self.flip.id})" in self.last.why
        return self.overriding and says_so and (self.last.primary, self.last.first) == ("adyen", "adyen")

    def take_parked(self) -> None:
        """The worker takes up what nobody could take."""
        self.clock.advance(self.shop.core.settings.parked_retry_seconds)
        while self.shop.rows("SELECT 1 FROM payments WHERE status = 'parked'"):
            self.workers[0].loops["parked"]()  # one at a time, so slowly does it begin
            self.clock.advance(0.25)

    def check_payments(self) -> None:
        """Each was captured once, and none was sent to the failing provider after its circuit had opened."""
        books = [each for name in PROVIDER_NAMES for each in self.shop.charges(name)]
        captured = sorted(each["reference"] for each in books if each["status"] == "captured")
        assert captured == sorted(each.reference for each in self.paid)
        assert {each["status"] for each in books} <= {"captured", "declined"}
        late = (
            "SELECT a.payment_id FROM attempts a JOIN circuit_transitions t ON t.provider = a.provider"
            " WHERE t.state = 'open' AND a.started_at >= t.at AND a.started_at < COALESCE((SELECT min(n.at)"
            " FROM circuit_transitions n WHERE n.provider = t.provider AND n.version > t.version"
            " AND n.state = 'closed'), 1e18)"
        )
        assert {row["payment_id"] for row in self.shop.rows(late)} <= self.opened_by
        assert self.shop.rows("SELECT id FROM payments WHERE status != 'captured'") == []

    # ------------------------------------------------------------ what is on record

    @property
    def flip(self) -> Flip:
        """The only one."""
        (flip,) = self.flips.newest(limit=10)
        return flip

    @property
    def alerts(self) -> Sequence[Alert]:
        """Oldest first."""
        return AlertLedger(self.shop.core.database).all()

    @property
    def told(self) -> list[str]:
        """Their kinds."""
        return [each.kind for each in self.alerts]

    @property
    def overriding(self) -> bool:
        """Whether an override is in force."""
        return bool(self.flips.overrides())

    # ------------------------------------------------------------ what LaunchDarkly holds

    @property
    def served(self) -> Any:
        """What the primary flag serves to everyone."""
        assert self.ld is not None
        return self.ld.serves(PRIMARY_PROVIDER)

    @property
    def patches(self) -> Sequence[Patch]:
        """Those of the primary flag that arrived."""
        assert self.ld is not None
        return [each for each in self.ld.patches if each.key == PRIMARY_PROVIDER]

    @property
    def answered(self) -> Sequence[int | None]:
        """The statuses of those."""
        return [each.status for each in self.patches]

    @property
    def writes(self) -> int:
        """How often the router changed the primary flag."""
        assert self.ld is not None
        return sum(each.key == PRIMARY_PROVIDER and each.who == TOKEN for each in self.ld.audit)


def _version(source: SdkFlags, key: str) -> int:
    state = source.client.all_flags_state(to_sdk_context(ANYONE)).to_json_dict()
    version: int = state["$flagsState"].get(key, {}).get("version", 0)
    return version


def all_flags() -> dict[str, dict[str, Any]]:
    """Every flag at its default, as a new project has them."""
    flags: dict[str, dict[str, Any]] = new_document(definitions(PROVIDER_NAMES).values())["flags"]
    return flags


@contextlib.contextmanager
def open_house(
    folder: Path, sandbox: Sandbox, *, ld: FakeLaunchDarkly | None, clock: ManualClock | None = None, **settings: Any
) -> Iterator[FlipHouse]:
    """The processes over the ledger in that folder; `ld` None: their flags are in a file."""
    clock = clock or ManualClock()
    chosen: dict[str, Any] = {
        "run_dir": folder,
        "api_key": API_KEY,
        "stripe_base_url": sandbox.stripe_url,
        "adyen_base_url": sandbox.adyen_url,
        "connect_timeout_seconds": 0.5,
        "read_timeout_seconds": 5.0,
        "deadline_seconds": 10.0,
        "web_threads": 8,
        "breaker_minimum_calls": CALLS,
        "flip_after_seconds": FLIP_AFTER_S,
    }
    if ld is not None:
        chosen |= {
            "launchdarkly_sdk_key": SecretStr("sdk-key"),
            "launchdarkly_base_uri": ld.uri,
            "launchdarkly_stream_uri": ld.uri,
            "launchdarkly_events_uri": ld.uri,
            "launchdarkly_api_uri": ld.uri,
            "launchdarkly_api_token": SecretStr(ld.token),
            "launchdarkly_project": ld.project,
            "launchdarkly_environment": ld.environment,
        }
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        _hasten(patch)
        made = Settings(**(chosen | settings))
        ledger = folder / "ledger.db"
        if not ledger.exists():
            ledger.write_bytes(_empty_ledger())

        def process(role: str) -> Core:
            assert clock is not None
            core = composition.build(made, role=role, clock=clock, ids=TimeOrderedIds(clock))
            stack.callback(core.close)
            return core

        web = process("web")
        shop = Shop(cast("Flask", WebLater(web)), web, sandbox, made.ledger_url)
        workers = []
        for _ in range(2):
            core = process("worker")
            workers.append(Worker(core, cast("ByHand", create_worker(core)).loops))
        house = FlipHouse(shop, workers, clock, FlipLedger(web.database), ld)
        house.follow()
        yield house


@functools.cache
def _empty_ledger() -> bytes:
    """An empty ledger with this version's tables: to copy it is sooner done than the migrations."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/ledger.db", pool_size=1)
        migrate(database)
        database.close()
        return (Path(folder) / "ledger.db").read_bytes()


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all: each reads the machine's certificates, and nothing here speaks TLS."""
    return ssl.create_default_context()


def _hasten(patch: pytest.MonkeyPatch) -> None:
    """Loops by hand, and waits for sockets that fit a test."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            patch.delenv(name)
    tls = _tls()
    patch.setattr(ssl, "create_default_context", lambda *_args, **_named: tls)
    patch.setattr(composition, "migrate", lambda _database: None)  # it is a copy of one that was
    patch.setattr(loop_building, "Loops", ByHand)
    patch.setattr(loop_building, "Parked", functools.partial(Parked, start=lambda task: task()))
    patch.setattr(
        composition,
        "LaunchDarklyFlags",
        functools.partial(LaunchDarklyFlags, start_wait_s=START_WAIT_S, initial_reconnect_delay_s=0.01),
    )
    patch.setattr(composition, "FileFlags", functools.partial(FileFlags, poll_interval_s=0.01))
    patch.setattr(
        composition,
        "LaunchDarklyMover",
        functools.partial(LaunchDarklyMover, connect_s=ANSWER_WITHIN_S, read_s=ANSWER_WITHIN_S),
    )
    patch.setattr(retry, "NORMAL_STREAMING_CEILING_DELAY", 0.05)
    patch.setattr(reading, "CLOSE_WAIT_S", 0.1)
    patch.setattr(sending, "RESEND_WAIT_S", (0.001, 0.01))


def version(mark: str | None) -> str:
    """The environment's version in a mark of LaunchDarkly's flags."""
    return (mark or "").partition(".")[0]
