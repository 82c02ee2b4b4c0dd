"""A provider's own books: what was really authorized, captured, canceled and refunded. The truth of the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["authorized", "captured", "canceled", "refunded", "declined"]
EventKind = Literal["authorization", "capture", "cancellation", "technical_cancel", "refund"]


@dataclass(slots=True)
class Charge:
    """One authorization. Amounts are integers in the minor units that the vendor was sent; times are Unix seconds."""

    id: str
    """What the vendor calls it: `pi_…` at Stripe, a pspReference at Adyen."""
    reference: str | None
    """The payment's reference (Stripe: metadata; Adyen: merchantOrderReference, else metadata)."""
    attempt: str | None
    """The attempt's id (Stripe: metadata; Adyen: its reference)."""
    amount: int
    currency: str
    """Three capital letters, at both vendors."""
    status: Status
    idempotency_key: str | None
    created_at: float
    amount_captured: int = 0
    amount_refunded: int = 0

    def as_json(self) -> dict[str, Any]:
        """The row as the control port shows it; `created_at` in RFC 3339 with milliseconds, UTC."""
        row = asdict(self)
        moment = datetime.fromtimestamp(self.created_at, UTC)
        row["created_at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return row


@dataclass(frozen=True, slots=True)
class Event:
    """Something a provider would tell by webhook. Nothing is sent yet: the seam is `Books.on_event`."""

    provider: str
    kind: EventKind
    success: bool
    charge: Charge | None
    """The row it is about, live; None for a technical cancel that found nothing yet."""
    reference: str | None = None
    """The modification's own reference, or the attempt's that a technical cancel names."""
    modification_id: str | None = None


@dataclass(slots=True)
class Books:
    """The charges of one provider, oldest first. Used on the sandbox's own thread only."""

    provider: str
    clock: Callable[[], float]
    charges: list[Charge] = field(default_factory=list)
    changes: int = 0
    """How often the books changed; by it a request is known to have acted."""
    on_event: list[Callable[[Event], None]] = field(default_factory=list)
    _by_id: dict[str, Charge] = field(default_factory=dict)

    def open(
        self,
        *,
        id: str,
        reference: str | None,
        attempt: str | None,
        amount: int,
        currency: str,
        idempotency_key: str | None,
        status: Status,
    ) -> Charge:
        """Write a new authorization (or its refusal) down; captured at once where `status` says so."""
        charge = Charge(id, reference, attempt, amount, currency.upper(), status, idempotency_key, self.clock())
        if status == "captured":
            charge.amount_captured = amount
        self.charges.append(charge)
        self._by_id[id] = charge
        self.changes += 1
        self.tell("authorization", success=status != "declined", charge=charge)
        return charge

    def get(self, id: str) -> Charge | None:
        """The newest row with that vendor id."""
        return self._by_id.get(id)

    def find(self, *, reference: str | None = None, attempt: str | None = None) -> list[Charge]:
        """The rows that match every filter given, oldest first."""
        return [
            charge
            for charge in self.charges
            if (reference is None or charge.reference == reference) and (attempt is None or charge.attempt == attempt)
        ]

    def capture(self, charge: Charge, amount: int) -> bool:
        """Capture that much; False where the state or what is left of the authorization does not allow it."""
        allowed = charge.status in ("authorized", "captured") and charge.amount_refunded == 0
        if not allowed or not 0 < amount <= charge.amount - charge.amount_captured:
            return False
        charge.amount_captured += amount
        charge.status = "captured"
        self.changes += 1
        return True

    def cancel(self, charge: Charge) -> bool:
        """Release an authorization; False where it was captured, canceled or declined."""
        if charge.status != "authorized":
            return False
        charge.status = "canceled"
        self.changes += 1
        return True

    def refund(self, charge: Charge, amount: int) -> bool:
        """Pay that much back; False where it is more than is left of what was captured."""
        if not 0 < amount <= charge.amount_captured - charge.amount_refunded:
            return False
        charge.amount_refunded += amount
        if charge.amount_refunded == charge.amount_captured:
            charge.status = "refunded"
        self.changes += 1
        return True

    def tell(
        self,
        kind: EventKind,
        *,
        success: bool,
        charge: Charge | None,
        reference: str | None = None,
        modification_id: str | None = None,
    ) -> None:
        """Call everybody who listens for what a webhook would say."""
        if self.on_event:
            event = Event(self.provider, kind, success, charge, reference, modification_id)
            for listener in self.on_event:
                listener(event)

    def clear(self) -> None:
        """Empty books; the listeners stay."""
        self.charges.clear()
        self._by_id.clear()
        self.changes = 0
