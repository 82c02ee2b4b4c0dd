"""A process over fakes together with its worker's loops, each of them a round at a time."""

from __future__ import annotations

from flags.contract import RoutingFlags
from providers.contract import Health, ModificationKind, ModificationOutcome, Outcome
from router.housekeeping import Housekeeping
from router.ledger.engine import Database
from router.ledger.inbox import Inbox
from router.ledger.journal import Journals
from router.ledger.operations import Operation
from router.ledger.records import Attempt, Payment
from router.ledger.upkeep import Upkeep
from router.notices import Notices
from router.resolver import Resolver, ResolverSettings
from router.sending import Sender
from tests.fakes.house import DEADLINE_S, TIMES, House, build_house
from tests.fakes.providers import ACTION, FakeProvider

HOUR_S = 3600.0
"""After so long a customer who was sent away has abandoned the payment, in a `Home`."""
VOIDING = RoutingFlags(unknown_outcome_policy="void-and-fail-over")
"""The policy that authorizes only, and fails over on unknown."""


class Provider(FakeProvider):
    """One whose voids answer as told, too, and that remembers them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.answer = ModificationOutcome(ModificationKind.DONE, Health.OK)
        self.voided: list[str] = []

    def void(self, provider_reference: str, **_named: object) -> ModificationOutcome:
        self.voided.append(provider_reference)
        return self.answer

    def void_attempt(self, attempt_id: str, **_named: object) -> ModificationOutcome:
        self.voided.append(attempt_id)
        return self.answer


class Home:
    """A house with its worker's loops."""

    def __init__(self, database: Database, flags: RoutingFlags | None = None) -> None:
        self.stripe, self.adyen = Provider("stripe"), Provider("adyen")
        self.house: House = build_house(database, [self.stripe, self.adyen], flags=flags)
        self.clock, self.ledger = self.house.clock, self.house.ledger
        ids = self.house.payments._ids
        self.journals = Journals(self.ledger, deadline_s=DEADLINE_S, clock=self.clock, ids=ids)
        leave = self.house.health.finding_out
        sender = Sender(
            self.house.providers,
            TIMES,
            clock=self.clock,
            random=lambda: 0.5,
            operating=leave,
            params_of=self.ledger.params_of,
        )
        self.inbox = Inbox(database)
        self.notices = Notices(inbox=self.inbox, ledger=self.ledger, journals=self.journals, clock=self.clock)
        self.stopping = False
        self.housekeeping = Housekeeping(
            upkeep=Upkeep(database),
            ledger=self.ledger,
            journals=self.journals,
            sender=sender,
            providers=self.house.providers,
            action_expires_s=HOUR_S,
            deadline_s=DEADLINE_S,
            clock=self.clock,
            stopping=lambda: self.stopping,
        )
        self.resolver = Resolver(
            ledger=self.ledger,
            journals=self.journals,
            sender=sender,
            providers=self.house.providers,
            settings=ResolverSettings(DEADLINE_S, 900.0),
            clock=self.clock,
            held_back=self.house.health.held_back,
            run_all=lambda task, due: [task(each) for each in due],
        )

    def awaiting(self, outcome: Outcome = ACTION) -> Payment:
        """A payment whose customer was asked to act."""
        self.stripe.outcomes.append(outcome)
        payment = self.house.pay().payment
        assert payment.status == "requires_action"
        return payment

    def now(self, payment: Payment) -> tuple[Payment, list[Attempt], list[Operation]]:
        found = self.ledger.load(payment.id)
        assert found is not None
        assert found[0].lease_holder is None
        return found[0], list(found[1]), list(found[2])

    def status(self, payment: Payment) -> str:
        return self.now(payment)[0].status
