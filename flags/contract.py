"""What product teams can set, and the one frozen view of it that a payment is routed by.

A leaf: knows nothing of the router or the providers. A provider's name is just a word here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
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
    primary_pinned: bool = False
    """Whether a rule or a target chose the primary for this payment: a flip of the flag would not move it."""

    def to_json(self) -> dict[str, Any]:
        """As a payment keeps it: what `dataclasses.asdict` says, at a tenth of the cost."""
        found = {name: getattr(self, name) for name in self.__slots__}
        found["enabled"] = dict(self.enabled)
        found["tuning"] = {name: getattr(self.tuning, name) for name in self.tuning.__slots__}
        return found

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
    serves: Literal["current", "last known", "defaults"] = "current"
    """What `read` answers by: what the source told since the start, what the ledger knew, or nothing."""
    as_of: dt.datetime | None = None
    """While it is not valid: when what is served was last right, as far as is known."""


class FlagSource(Protocol):
    """Reads flags. Never raises and never waits on the network: a payment must not."""

    def read(self, context: FlagContext) -> RoutingFlags:
        """The flags for this payment, as last heard."""

    def status(self) -> SourceStatus:
        """Whether what `read` answers is up to date."""

    def close(self) -> None:
        """Stop the source's threads, within a bound."""


class FlagWriteError(Exception):
    """A flag could not be read or written; the message says why, in words fit for a person, without secrets."""


class FlagChangedError(FlagWriteError):
    """The flag is not as it was seen. Nothing was written: look again."""


class ApprovalNeededError(FlagWriteError):
    """The store lets nobody change this flag without another person's approval. Nothing was written."""


class FlagUnavailableError(FlagWriteError):
    """The store did not answer, or will not now. Whether a write was done is not known: look again."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds for which the store asked to be left alone."""


WHOLE = 100_000
"""The weights of a rollout, in thousandths of a per cent, add up to this."""


@dataclass(frozen=True, slots=True)
class Serves:
    """What a flag serves to everyone whom no rule or target catches: one value, or a percentage rollout."""

    value: Any = None
    """None: a rollout."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """Of a rollout: thousandths of a per cent, by value."""

    def share_of(self, value: Any) -> float:
        """Which part of everyone is served this value, 0 to 1."""
        if self.weights:
            return self.weights.get(value, 0) / WHOLE
        return 1.0 if self.value == value else 0.0

    def moved(self, source: str, target: str) -> Serves:
        """The same with `target` in the place of `source`: in a rollout only the weight of `source` moves."""
        if not self.weights:
            return Serves(target) if self.value == source else self
        weights: dict[str, int] = {}
        for value, weight in self.weights.items():
            # In its place: whom each of the others is served to goes by the order, too.
            name = target if value == source else value
            weights[name] = weights.get(name, 0) + weight
        return Serves(weights=weights)


@dataclass(frozen=True, slots=True)
class FlagState:
    """A flag as its store has it at one moment."""

    mark: str
    """Another one whenever anything of the flag has changed."""
    is_on: bool
    serves: Serves
    """While it is on."""
    off: Any
    """What it serves while it is off."""
    pins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By value: the rules and targets that serve it to some, whatever everyone else is served; in words."""


Approval = Literal["pending", "approved", "declined", "gone"]
"""Of a request: waits, or was answered; `approved` ones are applied, or will be. `gone`: somebody deleted it, or it
could not be applied."""


class FlagMover(Protocol):
    """Changes what a flag serves as a person at the dashboard would, and never over a change that was not seen.

    Calls wait for the store, some seconds at most: they are a worker's, not a payment's.
    """

    def look(self, key: str) -> FlagState:
        """The flag now. Raises FlagUnavailableError, FlagWriteError."""

    def move(
        self, key: str, to: Serves, *, seen: FlagState, comment: str, pins: tuple[str, str] | None = None
    ) -> FlagState:
        """Serve `to` to everyone, while the flag is as `seen`; answers the flag read back, which serves it.

        Whether it is on stays as it is. `pins` (source, target): rules and targets that serve the one are made to
        serve the other too. Raises FlagChangedError, ApprovalNeededError, FlagUnavailableError, and FlagWriteError
        where a repetition would not help.
        """

    def ask_approval(self, key: str, to: Serves, *, comment: str, pins: tuple[str, str] | None = None) -> str:
        """Ask the people who may to approve this change, and `pins`. Answers the request's id. Raises as `look`."""

    def approval(self, key: str, request: str) -> Approval:
        """What became of such a request. Raises as `look`."""

    def pending_approvals(self, key: str, *, comment: str) -> Sequence[str]:
        """Ids of requests with exactly this comment that nobody has answered yet. Raises as `look`."""

    def withdraw(self, key: str, request: str) -> None:
        """Take such a request back; one that is gone already is no error. Raises as `look`."""

    def close(self) -> None:
        """Let go of connections."""
