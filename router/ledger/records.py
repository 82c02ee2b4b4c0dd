"""Payments and their attempts as the ledger has them, and why it refuses to change them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.ledger.tables import from_micros, to_micros

OPEN_STATUSES = frozenset({"processing", "requires_action", "authorized", "parked"})
HOLDING_STATUSES = OPEN_STATUSES | {"captured"}
"""While a payment is open or paid, its reference is taken."""


class StaleError(Exception):
    """Another process changed this payment, or holds its lease."""


class KeyTakenError(Exception):
    """This idempotency key already made a payment."""


class ReferenceInUseError(Exception):
    """An open or paid payment of this merchant has this reference."""

    def __init__(self, payment_id: str) -> None:
        super().__init__("the reference belongs to an open or paid payment")
        self.payment_id = payment_id


@dataclass(frozen=True, slots=True)
class NewKey:
    """An idempotency key to be consumed by what is about to be written."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one provider, as the ledger has it; `outcome` None: started, no answer known."""

    id: str
    payment_id: str
    number: int
    provider: str
    idempotency_key: str
    params: Mapping[str, Any]
    started_at: dt.datetime
    card: str | None = None
    """A digest by which the card's tries are counted."""
    outcome: str | None = None
    reason: str | None = None
    health: str | None = None
    provider_reference: str | None = None
    decline: Mapping[str, Any] | None = None
    next_action: Mapping[str, Any] | None = None
    at_once: bool = False
    """Sent to be captured with its approval."""
    capture: str | None = None
    """What became of that: `done`, `pending` or `failed`."""
    final_record: bool = False
    """Of one that is `not_executed`: its provider's own record says so."""
    was_approved: bool = False
    was_canceled: bool = False
    """What its provider has said of it, ever: `router.standing` knows what follows."""
    fee_actual: int | None = None
    """What its provider says that it charges, in minor units of `fee_currency`, which need not be the payment's."""
    fee_currency: str | None = None
    sends: int = 1
    latency_us: int | None = None
    last_sent_at: dt.datetime | None = None
    """When its last send ended; of a re-send under way, or cut short, when it began. None: of its first send, which
    began with the attempt, nobody has seen the end."""
    finished_at: dt.datetime | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the provider's answer is known."""
        return self.outcome not in (None, "unknown")


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as the ledger has it."""

    id: str
    merchant: str
    reference: str
    status: str
    amount: int
    currency: str
    order: Mapping[str, Any]
    flags: Mapping[str, Any]
    decision: Mapping[str, Any]
    created_at: dt.datetime
    updated_at: dt.datetime
    expires_at: dt.datetime
    version: int
    amount_captured: int = 0
    amount_refunded: int = 0
    capture_pending: bool = False
    provider: str | None = None
    decline: Mapping[str, Any] | None = None
    next_action: Mapping[str, Any] | None = None
    holds_reference: bool = True
    lease_holder: str | None = None
    lease_until: dt.datetime | None = None
    attempt_id: str | None = None
    contact_at: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    told: bool = False
    given_up_at: dt.datetime | None = None
    attention: str | None = None
    dispute: Mapping[str, Any] | None = None
    resolve_at: dt.datetime | None = None
    resolve_tries: int = 0
    tries: int = 0
    next_try_at: dt.datetime | None = None
    claimed_until: dt.datetime | None = None
    """Parked: a worker is about to try it; a hint for the others, and no lease."""
    faults: int = 0
    """Parked: errors of ours in a row."""
    dead_at: dt.datetime | None = None
    """Parked: since when it waits for a person, because of them."""
    failure: str | None = None
    """Of one that is `failed`: why."""

    @property
    def capture_mode(self) -> str:
        """What checkout asked for: `automatic` or `manual`."""
        return str(self.order.get("capture", "automatic"))

    def in_progress(self, now: dt.datetime) -> bool:
        """Whether a process is working on it at this moment."""
        return self.lease_until is not None and self.lease_until > now


_ENDS_OF_MOMENTS = ("_at", "_until")
"""How the names end of columns that hold moments, in microseconds; a row's number does not say so by itself."""


def to_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """A record's values as its row has them: moments in microseconds, all else as it is."""
    return {name: to_micros(value) if isinstance(value, dt.datetime) else value for name, value in values.items()}


def from_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row's values as its record has them."""
    return {
        name: from_micros(value) if value is not None and name.endswith(_ENDS_OF_MOMENTS) else value
        for name, value in row.items()
    }
