"""What product teams can set, and the one frozen view of it that a payment is routed by.

A leaf: knows nothing of the router or the providers. A provider's name is just a word here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

PRIMARY_PROVIDER = "payments-primary-provider"
ROUTING_STRATEGY = "payments-routing-strategy"
ROUTING_TUNING = "payments-routing-tuning"
CASCADE_ON_SOFT_DECLINE = "payments-cascade-on-soft-decline"
UNKNOWN_OUTCOME_POLICY = "payments-unknown-outcome-policy"
AUTO_FLIP_ENABLED = "payments-auto-flip-enabled"
MAINTENANCE_NOTICE = "payments-maintenance-notice"

Strategy = Literal["primary-first", "best-value"]
UnknownOutcomePolicy = Literal["hold", "void-and-fail-over"]


def provider_enabled_key(provider: str) -> str:
    """The key of a provider's kill switch, for example `payments-provider-stripe-enabled`."""
    return f"payments-provider-{provider}-enabled"


@dataclass(frozen=True, slots=True)
class RoutingTuning:
    """The numbers of `payments-routing-tuning`, each within its bounds (design §7)."""

    margin: float = 0.10
    """The merchant's margin as a share of the amount, 0 to 1: what an approval is worth."""
    explore: float | None = None
    """Share of payments sent elsewhere to learn, 0 to 0.1; None means the strategy's own default."""
    switch_advantage_pp: float = 0.5
    """Percentage points by which another provider must lead before traffic moves, 0 to 100."""
    approval_half_life_h: float = 6.0
    """Hours after which an issuer's answer counts half, 0.1 to 720."""
    holdout: float = 0.0
    """Share of payments kept on the primary to prove the uplift, 0 to 0.2."""


@dataclass(frozen=True, slots=True)
class RoutingFlags:
    """One payment's frozen view of every flag; each value has been checked, a wrong one replaced by its default."""

    primary: str = "stripe"
    enabled: Mapping[str, bool] = field(default_factory=dict)
    """Provider name to whether its kill switch is on; a provider that is not named is enabled."""
    strategy: Strategy = "primary-first"
    tuning: RoutingTuning = RoutingTuning()
    cascade_on_soft_decline: bool = True
    unknown_outcome_policy: UnknownOutcomePolicy = "hold"
    auto_flip_enabled: bool = True
    maintenance_notice: str = ""

    def is_enabled(self, provider: str) -> bool:
        """Whether the provider's kill switch lets it take new payments."""
        return self.enabled.get(provider, True)


@dataclass(frozen=True, slots=True)
class FlagContext:
    """Whom the flags are read for; attributes that a targeting rule may use. None: the attribute is absent.

    `payment_id` None is the router itself asking (health pages, the flipper), not a payment.
    """

    payment_id: str | None = None
    merchant: str | None = None
    customer: str | None = None
    amount: int | None = None
    currency: str | None = None
    method: str | None = None
    card_brand: str | None = None
    card_country: str | None = None
    customer_country: str | None = None


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How fresh the flags are."""

    state: Literal["initializing", "valid", "interrupted", "off"]
    since: dt.datetime
    detail: str | None = None
    """Why it is not valid, in words fit for a page; never a flag's value."""


class FlagSource(Protocol):
    """Reads flags. Never raises and never waits on the network: a payment must not."""

    def read(self, context: FlagContext) -> RoutingFlags:
        """The flags for this payment, as last heard."""

    def status(self) -> SourceStatus:
        """Whether what `read` answers is up to date."""

    def close(self) -> None:
        """Stop the source's threads, within a bound."""


class FlagWriteError(Exception):
    """The flag could not be written; the message says why, in words fit for a person."""


class FlagWriter(Protocol):
    """Changes what a flag serves to everyone whom no rule or target catches."""

    def current(self, key: str) -> Any:
        """The value served now. Raises FlagWriteError where it cannot be read."""

    def set(self, key: str, value: Any, *, expected: Any | None, comment: str) -> bool:
        """Serve `value` from now on.

        With `expected` (not None), only while the flag still serves that value, so that a person's change
        is never overwritten: False says that it did not, and nothing was changed.
        Raises FlagWriteError for an unknown key, a value of the wrong kind, or a store that cannot be written.
        """
