"""What settlements teach of the fees: how far the schedule is off, by provider and by the kind of sale.

The schedule says what was agreed; a settlement, what was kept. The difference, as a share of the amount, goes onto
the schedule's fee wherever a decision weighs a provider (`router.appraisal`): interchange that is dearer than the
average of the schedule's line, a price that went up, a line that is missing. It is measured against the schedule *as
it is now*, priced anew for each sale, not against what decisions said: so what was learned is not learned a second
time, and a corrected file of fees takes the place of what was learned for want of it.

Each difference is drawn towards none by WEIGHT payments, and a kind's towards its currency's, so a few odd payments
move little. Whatever a file says, no fee moves by more than MOST of the amount, and none falls below nothing.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

import structlog

from providers.brands import brand_word
from providers.currencies import ISO_EXPONENTS
from providers.fees import FeeBook, Sale
from providers.regions import region_of
from router.clock import Clock
from router.ledger.actual_fees import ActualFees, SettledFee

log = structlog.get_logger("router.fee_learning")

INTERVAL_S = 60.0
"""A round without a new import is one short query a provider."""
READ = 2000
"""Settled payments of each provider: at a spread of 1% of the amount, they give the mean to 0.02%."""
SINCE = dt.timedelta(days=90)
"""What was imported before says little of today's prices."""
WEIGHT = 50
MOST = 0.05
"""A provider that keeps a twentieth of the amount more than was agreed is an error, of a file or a schedule."""

_word = functools.lru_cache(1024)(brand_word)  # asked for each provider of every payment; a brand can be any word

Kind = tuple[str, str, str | None, str | None, str | None]
"""Provider, currency, brand, funding, region: what a schedule's line can name."""


def learn(
    fees: Iterable[SettledFee], book: FeeBook, country_of: Callable[[str], str | None] = lambda _merchant: None
) -> Mapping[Kind, float]:
    """How much more than the schedule's fee, as a share of the amount, by kind; with all three None: of any other."""
    sums: dict[Kind, tuple[int, Decimal, Decimal]] = defaultdict(lambda: (0, Decimal(0), Decimal(0)))
    for each in fees:
        sale = _sale(each, country_of)
        quoted = book.quote(each.provider, sale)
        kept = _major(each.fee, each.currency)
        # The attempt's fee may be in it, or be billed apart (Adyen's monthly lines): neither is a difference.
        more = kept - min(max(kept, quoted.fee), quoted.fee + quoted.attempt)
        own = kind_of(each.provider, sale)
        for key in {own, _any(own)}:
            count, amount, so_far = sums[key]
            sums[key] = count + 1, amount + sale.amount, so_far + more
    found: dict[Kind, float] = {}
    # A currency's before its kinds', which are drawn towards it.
    for key in sorted(sums, key=lambda each: each != _any(each)):
        count, amount, more = sums[key]
        towards = 0.0 if key == _any(key) else found[_any(key)]
        share = towards + count / (count + WEIGHT) * (float(more / amount) - towards)
        found[key] = min(max(share, -MOST), MOST)
    return found


def kind_of(provider: str, sale: Sale) -> Kind:
    """What is told apart."""
    return provider, sale.currency, _word(sale.brand), sale.funding, sale.region


def _any(kind: Kind) -> Kind:
    return kind[0], kind[1], None, None, None


def _sale(fee: SettledFee, country_of: Callable[[str], str | None]) -> Sale:
    region = region_of(fee.card_country, country_of(fee.merchant) or fee.customer_country)
    return Sale(_major(fee.amount, fee.currency), fee.currency, fee.brand, fee.funding, region, fee.on)


def _major(amount: int, currency: str) -> Decimal:
    return Decimal(amount).scaleb(-ISO_EXPONENTS.get(currency, 0))


class FeeLessons:
    """What this process has learned; brought up to date by a loop. Thread-safe: its mapping is replaced whole."""

    def __init__(
        self,
        providers: Iterable[str],
        *,
        fees: ActualFees,
        book: FeeBook,
        clock: Clock,
        country_of: Callable[[str], str | None] = lambda _merchant: None,
    ) -> None:
        self._providers = tuple(providers)
        self._fees = fees
        self._book = book
        self._clock = clock
        self._country_of = country_of
        self._read: dict[str, str] = {}
        self._learned: dict[str, Mapping[Kind, float]] = {}
        self._shares: Mapping[Kind, float] = {}

    def more(self, provider: str, sale: Sale, fee: float) -> float:
        """What goes onto that fee of the schedule's, in major units to 4 decimals; waits for nothing."""
        shares = self._shares
        if not shares:
            return 0.0
        kind = kind_of(provider, sale)
        share = shares.get(kind)
        if share is None:
            share = shares.get(_any(kind), 0.0)
        return round(max(share * float(sale.amount), -fee), 4)

    def run_once(self) -> int:
        """Learn anew from each provider that a file was imported of; how many these were."""
        since, changed = self._clock.now() - SINCE, 0
        for provider in self._providers:
            newest = self._fees.newest_import(provider)
            if newest is None or newest == self._read.get(provider):
                continue
            found = learn(self._fees.settled(provider, since=since, limit=READ), self._book, self._country_of)
            self._learned[provider], self._read[provider] = found, newest
            changed += 1
            log.info("fees_learned", provider=provider, settlement=newest, kinds=len(found))
        if changed:
            self._shares = {kind: share for each in self._learned.values() for kind, share in each.items() if share}
        return changed
