"""What the router asks of a payment provider, and every answer it can get.

A leaf: knows nothing of the router or the flags. An adapter (`stripe.py`, `adyen.py`) renders a request into
its vendor's parameters, sends them through the vendor's SDK, and classifies what came back. The rules of that
classification are the heart of safe failover: `NOT_EXECUTED` is said only where it is *proved* that the
provider did nothing; everything doubtful is `UNKNOWN`.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

# ---------------------------------------------------------------- errors


class ProviderError(Exception):
    """Root of what an adapter raises by itself. A call to a provider never raises: it answers an outcome."""


class WebhookRefusedError(ProviderError):
    """A notification that is not the provider's: no signature, a wrong one, too old or from the future, or senseless.

    The message says which, and never repeats what was sent.
    """


class Ineligible(ProviderError):  # noqa: N818 - a refusal to render, not a failure
    """This provider can never take this payment, for the reason given.

    The reason is for people and names what is in the way (amount, currency, token, method), never a token.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in integer minor units by ISO 4217, and its currency (three capital letters)."""

    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one HTTP request may take, in seconds."""

    connect_s: float
    read_s: float
    """From the request's last byte to the answer's last."""


@dataclass(frozen=True, slots=True)
class ChargeRequest:
    """One attempt to be placed: what every provider is told, in the router's own terms."""

    attempt_id: str
    """Names this attempt at the provider, and is its idempotency key there."""
    payment_id: str
    reference: str
    money: Money
    capture: Literal["automatic", "manual"]
    method: str
    token: str | Mapping[str, str]
    """The provider's own token of the payment method; an object where the vendor needs more than one value."""
    initiator: Literal["customer", "merchant"] = "customer"
    return_url: str | None = None
    customer_id: str | None = None
    customer_email: str | None = None
    customer_ip: str | None = None
    customer_country: str | None = None
    browser: Mapping[str, Any] | None = None


# ---------------------------------------------------------------- what is answered


class OutcomeKind(enum.StrEnum):
    """How an attempt ended (design §2)."""

    APPROVED = "approved"
    DECLINED = "declined"
    REQUIRES_ACTION = "requires_action"
    NOT_EXECUTED = "not_executed"
    """Proved: the provider never acted on any send of this attempt."""
    UNKNOWN = "unknown"
    """The provider may have acted. Never failed over as if it had not."""
    CANCELED = "canceled"
    """Released under the provider's own id: confirmed void. Look-ups, webhooks and re-sends can say it."""


class Health(enum.StrEnum):
    """What one send says of the provider's health; a decline is a healthy provider."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    """Refused, no such name, connect timeout, certificate."""
    PROVIDER_ERROR = "provider_error"
    """5xx, 429, timeout, a cut or senseless answer, an acquirer's fault."""
    CREDENTIALS_REFUSED = "credentials_refused"
    """401 or 403: our key or account; several in a row make the provider ineligible."""
    IGNORED = "ignored"
    """Says nothing of the provider: our own fault, or our own pool was exhausted."""


class DeclineClass(enum.StrEnum):
    """Why an issuer (or the provider for it) said no, as far as what to do next goes."""

    SOFT = "soft"
    HARD = "hard"
    FRAUD = "fraud"
    AUTHENTICATION = "authentication"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Decline:
    """A decline, normalised, with the network's own code kept beside it."""

    decline_class: DeclineClass
    code: str
    """The vendor-neutral word for it, for example `do_not_honor`; the vendor's own where there is none."""
    message: str
    cascade: bool
    """Whether another provider may approve: only some soft declines."""
    network_code: str | None = None
    advice: str | None = None
    known: bool = True
    """False: the vendor sent a code that no table of ours names; it is reported."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one send of an attempt came to."""

    kind: OutcomeKind
    health: Health
    reason: str | None = None
    """A short machine-readable word (`connection_refused`, `rate_limited`, `http_503`, `read_timeout`, …)."""
    provider_reference: str | None = None
    captured: bool = False
    """Approved and already captured (automatic capture); else the approval is an authorization."""
    capture_pending: bool = False
    """The provider has *received* the capture; a webhook will confirm it."""
    decline: Decline | None = None
    next_action: Mapping[str, Any] | None = None
    """`{"type": "redirect", "url"}` or `{"type": "sdk", "provider", …}` for the customer's browser."""
    our_fault: bool = False
    """The provider rejected what we sent: an alert for us, not a mark against the provider."""
    fee: Money | None = None
    """What the provider charges for it, where its answer says so: in the currency in which it settles."""
    final_record: bool = False
    """The provider's own record of this attempt says that nothing was charged, and nothing will be.

    Only where the body carries that record: a resultCode, an intent with a status. It ends the doubt that an earlier
    send left. Never of a refusal that says nothing of that send: a connection refused, 401, 403, 429, a 5xx.
    """


class ModificationKind(enum.StrEnum):
    """How a capture, void or refund ended."""

    DONE = "done"
    RECEIVED = "received"
    """The provider took it up; a webhook will say how it ended."""
    REFUSED = "refused"
    """The provider says the payment's state does not allow it."""
    NOT_EXECUTED = "not_executed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ModificationOutcome:
    """What one send of a capture, void or refund came to."""

    kind: ModificationKind
    health: Health
    reason: str | None = None
    provider_reference: str | None = None
    """The provider's id of the modification itself, where it gives one."""
    our_fault: bool = False


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a synthetic probe, which moves no money, found."""

    health: Health
    reason: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether the provider did what was asked."""
        return self.health is Health.OK


class AccountState(enum.StrEnum):
    """Whether our account at a provider may take payments, whatever the provider's health."""

    ABLE = "able"
    AT_RISK = "at_risk"
    """It may now, and the provider asks for something without which it will not."""
    UNABLE = "unable"
    """The provider takes no payment for it, however well it is."""


@dataclass(frozen=True, slots=True)
class AccountStanding:
    """What a provider says of our account."""

    state: AccountState
    reasons: Sequence[str] = ()
    """The vendor's own words, ten at most."""
    until: dt.datetime | None = None
    """At risk: when it stops taking payments, where the provider says so."""


class LookUpKind(enum.StrEnum):
    """What came of looking an attempt up in the provider's own records."""

    FOUND = "found"
    NOT_FOUND = "not_found"
    """The provider answered, and has nothing. Proves nothing of a request that may still be on its way."""
    UNAVAILABLE = "unavailable"
    """The provider could not be asked now."""
    UNSUPPORTED = "unsupported"
    """The provider has no look-up by our own reference."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """What the provider's own record says of an attempt."""

    kind: LookUpKind
    outcome: Outcome | None = None
    """Where found: how the attempt stands at the provider now, CANCELED included."""
    reason: str | None = None


class NoticeKind(enum.StrEnum):
    """What a webhook tells, in the router's words."""

    ATTEMPT = "attempt"
    """How an authorization ended: `outcome` says it (approved, declined, requires_action, canceled)."""
    CAPTURED = "captured"
    CAPTURE_FAILED = "capture_failed"
    VOID_FAILED = "void_failed"
    """A cancel that did nothing: not found, or too late. (A cancel that worked is an ATTEMPT with CANCELED.)"""
    REFUNDED = "refunded"
    REFUND_FAILED = "refund_failed"
    """Failed, or reversed afterwards: the money is the merchant's again."""
    DISPUTE = "dispute"
    """A dispute or chargeback was opened, won or lost: recorded, `reason` says which."""
    OTHER = "other"
    """Nothing that moves a payment."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that a provider tells by webhook. A delivery can carry several."""

    id: str
    """The same for every delivery of one thing, and for nothing else of this provider (at most 200 characters)."""
    kind: NoticeKind
    name: str
    """The vendor's own word, for example `payment_intent.succeeded` or `CAPTURE_FAILED`."""
    attempt_id: str | None = None
    """Ours, where the vendor carries it along."""
    provider_reference: str | None = None
    """The vendor's id of the payment."""
    operation_key: str | None = None
    """Our idempotency key of the capture, void or refund that this is about, where the vendor carries it along."""
    modification_reference: str | None = None
    """The vendor's id of that capture, void or refund."""
    money: Money | None = None
    outcome: Outcome | None = None
    reason: str | None = None


Params = Mapping[str, Any]
"""A vendor's parameters as JSON values: written to the ledger before the call, sent, and sent again, unchanged."""


class Provider(Protocol):
    """One payment provider. Thread-safe. No call raises; each takes as long as its timeouts allow, at most."""

    @property
    def name(self) -> str:
        """`stripe`, `adyen`, …: the word used in flags, routes and records."""

    def is_reference(self, reference: str) -> bool:
        """Whether this can be the vendor's id of a payment, by its shape: a person may have mistyped it."""

    def check(self, method: str, money: Money) -> None:
        """Whether such a payment can be expressed here at all, whatever its token. Pure. Raises Ineligible."""

    def render(self, request: ChargeRequest) -> Params:
        """The exact vendor parameters of this attempt. Pure. Raises Ineligible where it cannot be expressed."""

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        """Send what `render` made, once. A second call with the same key is a re-send, not a second attempt."""

    def capture(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        """Capture that much of an authorization."""

    def void(self, provider_reference: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        """Release an authorization that has not been captured."""

    def refund(
        self, provider_reference: str, money: Money, *, idempotency_key: str, timeouts: Timeouts
    ) -> ModificationOutcome:
        """Pay that much of a captured payment back."""

    def look_up(
        self,
        attempt_id: str,
        *,
        provider_reference: str | None,
        sent_from: dt.datetime,
        sent_until: dt.datetime,
        timeouts: Timeouts,
    ) -> LookUp:
        """Read how an attempt stands, by the provider's id where it is known, else among what was made in between.

        `sent_from` is the first send, `sent_until` the last. What they can have made is read to its end, in several
        calls where that is much: until then the answer is UNAVAILABLE, and NOT_FOUND is said of all of it only.
        """

    def void_attempt(self, attempt_id: str, *, idempotency_key: str, timeouts: Timeouts) -> ModificationOutcome:
        """Release whatever this attempt authorized, without knowing the provider's id of it.

        DONE or RECEIVED where the provider took it up, REFUSED where it has no such call or found nothing.
        """

    def complete(
        self,
        provider_reference: str | None,
        details: Mapping[str, Any],
        *,
        capture: Literal["automatic", "manual"],
        idempotency_key: str,
        timeouts: Timeouts,
        attempt_id: str | None = None,
    ) -> Outcome:
        """Finish an attempt after the customer's 3-D Secure step, with what the customer's browser brought back.

        NOT_EXECUTED is said only of the payment, by the provider (its acquirer could not); a send that failed or
        was never made is UNKNOWN, because an earlier one may have finished the attempt. With `attempt_id` given, a
        result that the provider has under any other name is not believed: a customer can bring back the details of
        another, cheaper payment. Always give it.
        """

    def read_webhook(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        """What a delivery tells, each item verified. Raises WebhookRefusedError: then none of it is believed."""

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        """Ask for something that moves no money, with our credentials, to learn whether the provider works."""

    def account(self, *, timeouts: Timeouts) -> AccountStanding | None:
        """What the provider says of our account; None where it could not be learned now, or there is no such call."""

    def close(self) -> None:
        """Drop pooled connections."""
