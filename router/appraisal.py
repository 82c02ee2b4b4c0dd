"""What is known of each provider for one payment: scores as measured, fees by the schedule and as settled."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from providers.contract import Money
from providers.fees import FeeBook, Sale
from providers.regions import region_of
from router import value
from router.order import Order
from router.scores import Score
from router.segments import Segment, segment
from router.value import Terms

_new = tuple.__new__  # a third of what a call of a named tuple takes, for every provider of every payment
TYPICAL = Money(5_000, "EUR")
"""Where providers are compared for all payments together."""


class ScoreReader(Protocol):
    """Where approval and availability come from."""

    def read(self, segment: Segment, at: float) -> Mapping[str, Score]:
        """Each provider's for this kind of payment; `at` in seconds since 1970."""


class LearnedFees(Protocol):
    """What settlements have taught of the fees."""

    def more(self, provider: str, sale: Sale, fee: float) -> float:
        """How much more than the schedule's fee, or less, it is expected to be, in major units to 4 decimals."""


class _Nothing:
    def more(self, _provider: str, _sale: Sale, _fee: float) -> float:
        return 0.0


class Appraiser:
    """Puts both together. Thread-safe; waits for nothing."""

    def __init__(
        self,
        providers: Iterable[str],
        *,
        scores: ScoreReader,
        fees: FeeBook,
        country_of: Callable[[str], str | None] = lambda _merchant: None,
        learned: LearnedFees = _Nothing(),  # noqa: B008 (it has no state)
    ) -> None:
        self._providers = tuple(providers)
        self._scores = scores
        self._fees = fees
        self._country_of = country_of
        self._learned = learned

    def terms(self, order: Order, kind: Segment, merchant: str, now: dt.datetime) -> Mapping[str, Terms]:
        """Each provider's terms for this order, of this kind, rounded as they are printed."""
        card, money = order.payment_method.card, Money(order.amount, order.currency)
        sale = Sale(
            amount=value.major_units(money),
            currency=order.currency,
            brand=None if card is None else card.brand,
            funding=None if card is None else card.funding,
            # Where a merchant's country is not set, its customer's is the nearest sign of where the sale is made.
            region=region_of(
                None if card is None else card.country, self._country_of(merchant) or order.customer.country
            ),
            at=now.date(),
        )
        return self.terms_of(kind, sale, now)

    def typical(self, now: dt.datetime) -> Mapping[str, Terms]:
        """Each provider's terms for a payment of which nothing but the amount is known."""
        sale = Sale(
            value.major_units(TYPICAL), TYPICAL.currency, brand=None, funding=None, region=None, at=now.date()
        )
        return self.terms_of(segment(TYPICAL.amount, None, None, "card"), sale, now)

    def terms_of(self, kind: Segment, sale: Sale, now: dt.datetime) -> Mapping[str, Terms]:
        """Each provider's terms for a sale of this kind."""
        scores, quote, rate = self._scores.read(kind, now.timestamp()), self._fees.quote, value.rate
        found = {}
        for name in self._providers:
            approval, availability, _ = scores[name]
            quoted, attempt, scheduled = quote(name, sale)
            fee = float(quoted)
            if more := self._learned.more(name, sale, fee):
                fee = round(fee + more, value.FEE_DIGITS)
            found[name] = _new(Terms, (rate(approval), rate(availability), fee, float(attempt), scheduled, more))
        return found


def segment_of(order: Order) -> Segment:
    """The kind of payment that an order is."""
    card = order.payment_method.card
    brand, country = (None, None) if card is None else (card.brand, card.country)
    return segment(order.amount, brand, country, order.payment_method.type)
