"""The router's core over fakes: one process, with its own view of circuits, over a ledger that others may share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flags.contract import RoutingFlags
from providers.contract import Health, Provider
from router.breaker import BreakerSettings, Permit, State, following
from router.clock import ManualClock, SequentialIds
from router.health import ProviderHealth, TransitionStore
from router.ledger.cards import CardLedger
from router.ledger.engine import Database
from router.ledger.journal import Journals
from router.ledger.payments import PaymentLedger
from router.order import Order
from router.payments import Answer, Payments, PaymentSettings
from router.planning import Planner
from router.sending import Sender, SendTimes
from tests.fakes.flags import FakeFlags
from tests.fakes.ledger import MemoryStore
from tests.fakes.providers import FakeProvider

DEADLINE_S = 25.0
SETTINGS = PaymentSettings(deadline_s=DEADLINE_S, parked_retry_s=15.0)
TIMES = SendTimes(connect_s=1.0, read_s=10.0)
_numbers = itertools.count(1)


def an_order(**changes: Any) -> Order:
    """An order for 19.99 EUR with a reference of its own and a token at every provider."""
    body: dict[str, Any] = {
        "reference": f"ORD-{next(_numbers)}",
        "amount": 1999,
        "currency": "EUR",
        "payment_method": {"type": "card", "tokens": {"stripe": "tok_s", "adyen": "tok_a", "third": "tok_t"}},
    }
    return Order.model_validate(body | changes)


class RecordingHealth(ProviderHealth):
    """Remembers what it was taught."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.learned: list[tuple[str, Health]] = []

    def learn(self, permit: Permit, signal: Health) -> None:
        self.learned.append((permit.provider, signal))
        super().learn(permit, signal)


def move(health: ProviderHealth, provider: str, state: State, clock: ManualClock, *, reason: str = "told to") -> None:
    """Write and follow a transition of that circuit, as a worker does."""
    last = health.snapshot(provider).last
    rounds = 0 if last is None else last.failed_rounds
    transition = following(
        last, state, provider=provider, at=clock.now(), actor="test", reason=reason, failed_rounds=rounds
    )
    assert health.propose(transition)


@dataclass(frozen=True, slots=True)
class House:
    """One process."""

    payments: Payments
    ledger: PaymentLedger
    health: RecordingHealth
    flags: FakeFlags
    providers: Mapping[str, FakeProvider]
    clock: ManualClock

    def pay(self, order: Order | None = None, *, key: str | None = None) -> Answer:
        """Take a payment for merchant `m`, under a key of its own unless one is given."""
        return self.payments.create(order or an_order(), merchant="m", key=key or f"key-{next(_numbers)}")


def build_house(
    database: Database,
    providers: Iterable[FakeProvider],
    *,
    flags: RoutingFlags | None = None,
    ledger: PaymentLedger | None = None,
    clock: ManualClock | None = None,
    ids: SequentialIds | None = None,
    store: TransitionStore | None = None,
) -> House:
    """Put a process together."""
    clock, ids, ledger = clock or ManualClock(), ids or SequentialIds(), ledger or PaymentLedger(database)
    by_name = {provider.name: provider for provider in providers}
    contracts: Mapping[str, Provider] = by_name
    source = FakeFlags(flags)
    health = RecordingHealth(by_name, BreakerSettings(), store=store or MemoryStore(), clock=clock, actor="test")
    journals = Journals(ledger, deadline_s=DEADLINE_S, clock=clock, ids=ids)
    sender = Sender(contracts, TIMES, clock=clock, random=lambda: 0.5)
    payments = Payments(
        ledger=ledger,
        planner=Planner(
            providers=contracts, flags=source, health=health, fees={}, ids=ids, tries_of=CardLedger(database).tries
        ),
        sender=sender,
        health=health,
        journals=journals,
        settings=SETTINGS,
        clock=clock,
        ids=ids,
    )
    return House(payments, ledger, health, source, by_name, clock)
