"""The plan of one payment: its flags, the decision, and what each provider would be sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flags.contract import FlagContext, FlagSource, RoutingFlags
from providers.contract import ChargeRequest, Ineligible, Money, Params, Provider
from providers.fees import FeeSchedule
from router import policy, value
from router.clock import Ids
from router.health import ProviderHealth
from router.order import Order


@dataclass(frozen=True, slots=True)
class Plan:
    """Made once per payment and round; nothing in it changes afterwards."""

    flags: RoutingFlags
    decision: policy.Decision
    params: Mapping[str, Params]
    """Vendor parameters by provider, for those that could take the payment."""
    attempt_ids: Mapping[str, str]
    """The id that an attempt at each provider would have: it is part of the parameters."""


class Planner:
    """Asks flags, circuits and adapters, and lets the policy decide. Neither waits for a network."""

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        flags: FlagSource,
        health: ProviderHealth,
        fees: Mapping[str, FeeSchedule],
        ids: Ids,
    ) -> None:
        self._providers = providers
        self._flags = flags
        self._health = health
        self._fees = fees
        self._ids = ids

    def plan(self, payment_id: str, merchant: str, order: Order) -> Plan:
        """Read the flags once, ask every provider whether it could take this payment, and decide."""
        flags = self._flags.read(_context(payment_id, merchant, order))
        attempt_ids = {name: self._ids.new("att") for name in self._providers}
        offers = [
            self._offer(provider, payment_id, attempt_ids[name], order, flags)
            for name, provider in self._providers.items()
        ]
        params = {offer.provider: offer.params for offer in offers if offer.params is not None}
        return Plan(flags, policy.decide(offers, flags), params, attempt_ids)

    def _offer(
        self, provider: Provider, payment_id: str, attempt_id: str, order: Order, flags: RoutingFlags
    ) -> policy.Offer:
        params, obstacle = None, None
        token = order.payment_method.tokens.get(provider.name)
        if token is None:
            obstacle = "no token for this provider"
        else:
            try:
                params = provider.render(_request(payment_id, attempt_id, order, token))
            except Ineligible as refusal:
                obstacle = refusal.reason
        worth = value.by_fees(
            Money(order.amount, order.currency),
            self._fees.get(provider.name),
            margin=flags.tuning.margin,
            international=_is_international(order),
        )
        circuit = self._health.snapshot(provider.name).state
        return policy.Offer(provider.name, params, obstacle, circuit, worth)


def _is_international(order: Order) -> bool:
    # The merchant's own country is not known yet; a card from elsewhere than its owner is the nearest sign.
    card = order.payment_method.card
    return None not in (card and card.country, order.customer.country) and (
        card is not None and card.country != order.customer.country
    )


def _request(payment_id: str, attempt_id: str, order: Order, token: str | Mapping[str, str]) -> ChargeRequest:
    return ChargeRequest(
        attempt_id=attempt_id,
        payment_id=payment_id,
        reference=order.reference,
        money=Money(order.amount, order.currency),
        capture=order.capture,
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
