"""The plan of one payment: its flags, the decision, and what each provider would be sent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from flags.contract import FlagContext, FlagSource, RoutingFlags
from providers.contract import ChargeRequest, Ineligible, Money, Params, Provider
from providers.fees import FeeSchedule
from router import policy, retry_budget, value
from router.clock import Ids
from router.health import ProviderHealth
from router.ledger.records import Attempt
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


@dataclass(frozen=True, slots=True)
class _Ask:
    payment_id: str
    attempt_id: str
    order: Order
    at_once: bool
    spent: str | None
    """Why the card must not be tried at any provider now."""


class Planner:
    """Asks flags, circuits, adapters and the card's budget, and lets the policy decide. None waits for a network."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        flags: FlagSource,
        health: ProviderHealth,
        fees: Mapping[str, FeeSchedule],
        ids: Ids,
        tries_of: TriesOf = lambda _card: (),
        draw: Callable[[], float] = lambda: 0.0,
        override: Override = lambda flags: (flags, None),
    ) -> None:
        self._providers = providers
        self._flags = flags
        self._health = health
        self._fees = fees
        self._ids = ids
        self._tries_of = tries_of
        self._draw = draw
        self._override = override

    def plan(self, payment_id: str, merchant: str, order: Order, now: dt.datetime) -> Plan:
        """Read the flags once, ask every provider whether it could take this payment, and decide.

        Draws one number per payment, for the shares of providers that recover or are suspect.

        Reads the ledger only for a card that is known again. Raises LedgerUnavailableError.
        """
        card = _card(merchant, order)
        occasion = _occasion(order)
        earlier = () if card is None else self._tries_of(card)
        spent = retry_budget.obstacle(occasion, earlier, now) if earlier else None
        flags, overridden = self._override(self._flags.read(_context(payment_id, merchant, order)))
        # An automatic capture cannot be voided: a policy that may void authorizes first, and captures afterwards.
        may_void = flags.unknown_outcome_policy == "void-and-fail-over"
        at_once = order.capture == "automatic" and not may_void
        attempt_ids = {name: self._ids.new("att") for name in self._providers}
        offers = [
            self._offer(provider, _Ask(payment_id, attempt_ids[name], order, at_once, spent), flags)
            for name, provider in self._providers.items()
        ]
        decision = policy.decide(offers, flags, draw=self._draw(), overridden=overridden)
        params = {offer.provider: offer.params for offer in offers if offer.params is not None}
        return Plan(flags, decision, params, attempt_ids, at_once, card, occasion, earlier)

    def _offer(self, provider: Provider, ask: _Ask, flags: RoutingFlags) -> policy.Offer:
        params, obstacle, order = None, ask.spent, ask.order
        token = order.payment_method.tokens.get(provider.name)
        if obstacle is not None:
            pass  # whatever the provider is, the card is not to be tried
        elif token is None:
            obstacle = "no token for this provider"
        else:
            try:
                params = provider.render(_request(ask, token))
            except Ineligible as refusal:
                obstacle = refusal.reason
        worth = value.by_fees(
            Money(order.amount, order.currency),
            self._fees.get(provider.name),
            margin=flags.tuning.margin,
            international=_is_international(order),
        )
        readiness = self._health.readiness(provider.name)
        return policy.Offer(
            provider.name,
            params,
            obstacle,
            readiness.state,
            worth,
            share=readiness.share,
            held_back=readiness.why,
            busy=readiness.busy,
        )


def _card(merchant: str, order: Order) -> str | None:
    card = order.payment_method.card
    if card is None or card.fingerprint is None:
        return None
    return retry_budget.card_digest(merchant, card.fingerprint)


def _occasion(order: Order) -> Occasion:
    card = order.payment_method.card
    brand = None if card is None else card.brand
    return Occasion(brand, order.amount, order.currency, by_merchant=order.initiator == "merchant")


def _is_international(order: Order) -> bool:
    # The merchant's own country is not known yet; a card from elsewhere than its owner is the nearest sign.
    card = order.payment_method.card
    return None not in (card and card.country, order.customer.country) and (
        card is not None and card.country != order.customer.country
    )


def _request(ask: _Ask, token: str | Mapping[str, str]) -> ChargeRequest:
    order = ask.order
    return ChargeRequest(
        attempt_id=ask.attempt_id,
        payment_id=ask.payment_id,
        reference=order.reference,
        money=Money(order.amount, order.currency),
        capture="automatic" if ask.at_once else "manual",
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
