"""The router's core over fakes: one process, with its own view of circuits, over a ledger that others may share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from flags.contract import RoutingFlags
from providers.contract import Health, Provider
from providers.fees import FeeBook
from router.appraisal import Appraiser
from router.breaker import BreakerSettings
from router.clock import Clock, ManualClock, SequentialIds
from router.fleet import CountStore, FleetCounts
from router.health import Call, ProviderHealth, TransitionStore
from router.ledger.cards import CardLedger
from router.ledger.engine import Database
from router.ledger.journal import Journals
from router.ledger.parked import ParkedLedger
from router.ledger.payments import PaymentLedger
from router.order import Order
from router.parked import Parked
from router.payments import Answer, Payments, PaymentSettings
from router.planning import Planner
from router.scores import Scores
from router.sending import Sender, SendTimes
from router.transitions import State, following
from tests.fakes.flags import FakeFlags
from tests.fakes.ledger import MemoryStore
from tests.fakes.providers import FakeProvider

DEADLINE_S = 25.0
BREAKERS = BreakerSettings()
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


def an_appraiser(providers: Iterable[str]) -> Appraiser:
    """Knows of every provider as little as of the others: the flag's primary leads, the rest follow by name."""
    return Appraiser(providers, scores=Scores(providers), fees=FeeBook(()))


class _Recorded:
    """Leave to call a provider, which remembers what each send said."""

    def __init__(self, call: Call, provider: str, learned: list[tuple[str, Health]]) -> None:
        self._call = call
        self._provider = provider
        self._learned = learned
        self.begin = call.begin
        self.may_go_again = call.may_go_again

    def end(self, signal: Health) -> None:
        self._learned.append((self._provider, signal))
        self._call.end(signal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._call.__exit__(*error)


class RecordingHealth(ProviderHealth):
    """Remembers what it was taught."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.learned: list[tuple[str, Health]] = []

    def admit(self, provider: str, merchant: str = "", **named: Any) -> Call | None:
        call = super().admit(provider, merchant, **named)
        return None if call is None else cast("Call", _Recorded(call, provider, self.learned))


def a_health(
    names: Iterable[str],
    *,
    store: TransitionStore,
    clock: Clock,
    actor: str = "test",
    settings: BreakerSettings = BREAKERS,
    counts: CountStore | None = None,
    kind: type[ProviderHealth] = ProviderHealth,
    at_once: int = 1000,
) -> Any:
    """One process's view of the circuits; it shares counts where it is given a store for them."""
    names = tuple(names)
    fleet = FleetCounts(names, store=counts, process=actor, clock=clock)
    return kind(names, settings, store=store, fleet=fleet, at_once=at_once, clock=clock, actor=actor)


def teach(health: ProviderHealth, signal: Health, times: int = 10, provider: str = "stripe") -> None:
    """That many calls, all under way before the first is answered."""
    calls = [health.admit(provider) for _ in range(times)]
    for call in calls:
        assert call is not None
        assert call.begin()
    for call in calls:
        assert call is not None
        call.end(signal)
        call.__exit__(None, None, None)


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
    health = a_health(by_name, store=store or MemoryStore(), clock=clock, kind=RecordingHealth)
    journals = Journals(ledger, deadline_s=DEADLINE_S, clock=clock, ids=ids)
    sender = Sender(contracts, TIMES, clock=clock, random=lambda: 0.5, params_of=ledger.params_of)
    payments = Payments(
        ledger=ledger,
        planner=Planner(
            providers=contracts,
            flags=source,
            health=health,
            appraiser=an_appraiser(contracts),
            ids=ids,
            tries_of=CardLedger(database).tries,
        ),
        sender=sender,
        health=health,
        journals=journals,
        settings=SETTINGS,
        clock=clock,
        ids=ids,
    )
    return House(payments, ledger, health, source, by_name, clock)


def parked_loop(house: House, **more: Any) -> Parked:
    """The worker's loop over its parked payments, as of one that has just begun; each try is over when it returns."""
    return Parked(
        providers=tuple(house.providers),
        ledger=ParkedLedger(house.ledger._database),
        payments=house.payments,
        health=house.health,
        clock=house.clock,
        ids=house.payments._ids,
        retry_s=SETTINGS.parked_retry_s,
        **({"start": lambda task: task()} | more),
    )


def drain(house: House, parked: Parked, *, within_s: float = 10.0) -> int:
    """Rounds a twentieth of a second apart, for so long on the clock. Answers how many left the parking."""
    settled = 0
    for _ in range(round(within_s * 20)):
        settled += parked.run_once()
        house.clock.advance(0.05)
    return settled
