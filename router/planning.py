"""The plan of one payment: its flags, the decision, and what each provider would be sent."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flags.contract import FlagContext, FlagSource, RoutingFlags
from providers.contract import ChargeRequest, Ineligible, Money, Params, Provider
from router import policy, retry_budget, value
from router.appraisal import Appraiser, segment_of
from router.choices import NOBODY, Barred, Choices
from router.clock import Ids
from router.health import ProviderHealth
from router.ledger.records import Attempt
from router.ledger.unavailable import LedgerUnavailableError
from router.order import Order
from router.retry_budget import Occasion, Try

TriesOf = Callable[[str], Sequence[Try]]
"""The tries of a card that the ledger knows, by the card's digest."""
Override = Callable[[RoutingFlags], tuple[RoutingFlags, str | None]]
"""The flags with the override in force in them, and in words what it changed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Made once per payment and round; nothing in it changes afterwards."""

    flags: RoutingFlags
    decision: policy.Decision
    params: Mapping[str, Params]
    """Vendor parameters by provider, for those that could take the payment."""
    attempt_ids: Mapping[str, str]
    """The id that an attempt at each provider would have: it is part of the parameters."""
    at_once: bool
    """Whether an approval is captured with it; else the capture is a second call."""
    card: str | None = None
    """The digest by which the card's tries are counted; None: it is not known again."""
    occasion: Occasion | None = None
    earlier: Sequence[Try] = ()
    """The card's tries before this payment."""

    def is_spent(self, attempts: Iterable[Attempt], now: dt.datetime) -> bool:
        """Whether this plan's own attempts have used up what the card's network allows."""
        if self.card is None or self.occasion is None:
            return False
        amount, currency = self.occasion.amount, self.occasion.currency
        own = [
            Try(each.started_at, each.outcome or "", amount, currency, each.decline)
            for each in attempts
            if each.id in self.attempt_ids.values()
        ]
        return retry_budget.obstacle(self.occasion, [*self.earlier, *own], now) is not None

    @property
    def may_void(self) -> bool:
        """Whether an unknown attempt may be voided and the payment authorized elsewhere meanwhile."""
        return self.flags.unknown_outcome_policy == "void-and-fail-over"


class Planner:
    """Asks flags, circuits, adapters and the card's budget, and lets the policy decide. None waits for a network."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        flags: FlagSource,
        health: ProviderHealth,
        appraiser: Appraiser,
        ids: Ids,
        tries_of: TriesOf = lambda _card: (),
        draw: Callable[[], float] = lambda: 0.0,
        override: Override = lambda flags: (flags, None),
        allowed: Callable[[str], Collection[str]] | None = None,
        timed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`timed` is told how long each plan took, in seconds."""
        self._timed = timed
        self._providers = providers
        self._flags = flags
        self._health = health
        self._appraiser = appraiser
        self._choices = Choices()
        self._ids = ids
        self._tries_of = tries_of
        self._draw = draw
        self._override = override
        self._allowed = allowed or (lambda _merchant: self._providers)
        """The providers that a merchant may use."""

    @property
    def names(self) -> Collection[str]:
        """Every provider that is decided about."""
        return self._providers.keys()

    def plan(self, payment_id: str, merchant: str, order: Order, now: dt.datetime) -> Plan:
        """Read the flags once, ask every provider whether it could take this payment, and decide.

        Reads the ledger only for a card that is known again. Raises LedgerUnavailableError.
        """
        begun = time.perf_counter()
        card = _card(merchant, order)
        occasion = _occasion(order)
        earlier = () if card is None else self._tries_of(card)
        spent = retry_budget.obstacle(occasion, earlier, now) if earlier else None
        flags, overridden = self.flags_of(payment_id, merchant, order)
        # An automatic capture cannot be voided: a policy that may void authorizes first, and captures afterwards.
        may_void = flags.unknown_outcome_policy == "void-and-fail-over"
        at_once = order.capture == "automatic" and not may_void
        attempt_ids = {name: self._ids.new("att") for name in self._providers}
        params: dict[str, Params] = {}
        obstacles: dict[str, str] = {}
        for name, provider in self._providers.items():
            obstacle = spent or self._not_allowed(merchant, name)
            if obstacle is None:
                try:
                    params[name] = _rendered(provider, payment_id, attempt_ids[name], order, at_once)
                except Ineligible as refusal:
                    obstacle = refusal.reason
            if obstacle is not None:
                obstacles[name] = obstacle
        decision = self.decide(merchant, order, obstacles, flags, overridden=overridden, now=now)
        self._timed(time.perf_counter() - begun)
        return Plan(flags, decision, params, attempt_ids, at_once, card, occasion, earlier)

    def flags_of(self, payment_id: str, merchant: str, order: Order) -> tuple[RoutingFlags, str | None]:
        """This payment's flags, read now, with the override in force in them, and in words what it changed."""
        return self._override(self._flags.read(_context(payment_id, merchant, order)))

    def consider(
        self, decision_id: str, merchant: str, order: Order, now: dt.datetime, *, ask_ledger: bool = True
    ) -> tuple[policy.Decision, bool]:
        """Decide as for a payment, of which nothing will be sent from here: its tokens may be left out altogether.

        Where none is given, none is asked for. Answers too whether the card's earlier tries were to be looked at and
        could not be: the ledger is away, or was not to be asked (`ask_ledger`). Then it is decided without them.
        """
        spent, blind = None, False
        card = _card(merchant, order)
        if card is not None:
            try:
                earlier = self._tries_of(card) if ask_ledger else ()
                blind = not ask_ledger
            except LedgerUnavailableError:
                earlier, blind = (), True
            spent = retry_budget.obstacle(_occasion(order), earlier, now) if earlier else None
        flags, overridden = self.flags_of(decision_id, merchant, order)
        obstacles: dict[str, str] = {}
        for name, provider in self._providers.items():
            obstacle = spent or self._not_allowed(merchant, name)
            if obstacle is None:
                try:
                    if order.payment_method.tokens:
                        _rendered(provider, decision_id, decision_id, order, True)
                    else:
                        provider.check(order.payment_method.type, Money(order.amount, order.currency))
                except Ineligible as refusal:
                    obstacle = refusal.reason
            if obstacle is not None:
                obstacles[name] = obstacle
        return self.decide(merchant, order, obstacles, flags, overridden=overridden, now=now), blind

    def decide(
        self,
        merchant: str,
        order: Order,
        obstacles: Mapping[str, str],
        flags: RoutingFlags,
        *,
        overridden: str | None,
        now: dt.datetime,
    ) -> policy.Decision:
        """Let the policy order the providers, of which those with an obstacle can never take this payment.

        Draws this payment's numbers: for the shares of providers that recover or are suspect, for exploration and
        for the holdout.
        """
        kind = segment_of(order)
        barred = _barred(self._providers, obstacles, flags)
        terms = self._appraiser.terms(order, kind, merchant, now)
        offers = []
        for name in self._providers:
            readiness = self._health.readiness(name)
            offers.append(
                policy.Offer(
                    name,
                    terms[name],
                    readiness.state,
                    obstacles.get(name),
                    readiness.share,
                    readiness.why,
                    readiness.busy,
                    readiness.withheld,
                )
            )
        decision = policy.decide(
            offers,
            flags,
            value.in_major_units(Money(order.amount, order.currency)),
            draws=policy.drawn(flags, self._draw),
            incumbent=self._choices.of(flags.primary, kind, barred),
            overridden=overridden,
        )
        self._choices.made(decision, kind, barred)
        return decision

    def _not_allowed(self, merchant: str, provider: str) -> str | None:
        return None if provider in self._allowed(merchant) else "not among the merchant's providers"


def _barred(providers: Iterable[str], obstacles: Mapping[str, str], flags: RoutingFlags) -> Barred:
    """Those whom this payment could not have gone to, however well they are."""
    if not obstacles and all(flags.enabled.values()):
        return NOBODY
    return frozenset(name for name in providers if name in obstacles or not flags.is_enabled(name))


def _card(merchant: str, order: Order) -> str | None:
    card = order.payment_method.card
    if card is None or card.fingerprint is None:
        return None
    return retry_budget.card_digest(merchant, card.fingerprint)


def _occasion(order: Order) -> Occasion:
    card = order.payment_method.card
    brand = None if card is None else card.brand
    return Occasion(brand, order.amount, order.currency, by_merchant=order.initiator == "merchant")


def _rendered(provider: Provider, payment_id: str, attempt_id: str, order: Order, at_once: bool) -> Params:
    """What the provider would be sent. Raises Ineligible where it can never take the payment."""
    token = order.payment_method.tokens.get(provider.name)
    if token is None:
        raise Ineligible("no token for this provider")
    return provider.render(
        ChargeRequest(
            attempt_id=attempt_id,
            payment_id=payment_id,
            reference=order.reference,
            money=Money(order.amount, order.currency),
            capture="automatic" if at_once else "manual",
            method=order.payment_method.type,
            token=token,
            initiator=order.initiator,
            return_url=order.return_url,
            customer_id=order.customer.id,
            customer_email=order.customer.email,
            customer_ip=order.customer.ip,
            customer_country=order.customer.country,
            browser=None if order.browser is None else order.browser.model_dump(exclude_none=True),
        )
    )


def _context(payment_id: str, merchant: str, order: Order) -> FlagContext:
    card = order.payment_method.card
    return FlagContext(
        payment_id=payment_id,
        merchant=merchant,
        customer=order.customer.id,
        amount=order.amount,
        currency=order.currency,
        method=order.payment_method.type,
        card_brand=card.brand if card else None,
        card_country=card.country if card else None,
        customer_country=order.customer.country,
    )
