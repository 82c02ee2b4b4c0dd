"""The simulated providers' books: the truth that the ledger is compared with, checked at every change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pending", "requires_action", "authorized", "captured", "canceled", "declined"]
LIVE = ("pending", "requires_action", "authorized")
"""Statuses in which an authorization exists, or may yet: not void."""


@dataclass(slots=True)
class Refund:
    """Money paid back; `failed` undoes it."""

    key: str
    amount: int
    id: str
    failed: bool = False


@dataclass(slots=True)
class Charge:
    """What a provider has under one of its own ids."""

    provider: str
    id: str
    payment: str
    attempt: str
    amount: int
    at_once: bool
    status: Status
    captured: int = 0
    refunds: list[Refund] = field(default_factory=list)
    decline: str | None = None
    capture_key: str | None = None
    capture_failed: bool = False

    @property
    def refunded(self) -> int:
        """What was paid back and stayed so."""
        return sum(each.amount for each in self.refunds if not each.failed)

    @property
    def holds(self) -> bool:
        """Whether there is an authorization, or may be without a call of ours: at Adyen a step takes one."""
        return self.status in LIVE and not (self.status == "requires_action" and self.provider == "adyen")

    @property
    def net(self) -> int:
        """What the customer has paid."""
        return self.captured - self.refunded


class Books:
    """Every charge of every provider."""

    def __init__(self, violated: Callable[[str], None], note: Callable[[str], None]) -> None:
        self.charges: list[Charge] = []
        self.by_payment: dict[str, list[Charge]] = defaultdict(list)
        self.by_attempt: dict[str, list[Charge]] = defaultdict(list)
        self._violated = violated
        self._note = note

    def open(self, charge: Charge) -> None:
        """A new charge."""
        self.charges.append(charge)
        self.by_payment[charge.payment].append(charge)
        self.by_attempt[charge.attempt].append(charge)
        if len(self.by_attempt[charge.attempt]) > 1:
            self._violated(f"attempt {charge.attempt} was charged twice at {charge.provider}")
        self.changed(charge)

    def did(self, operation: Mapping[str, Any]) -> bool:
        """Whether a capture, void or refund of the ledger's was done."""
        key = operation["idempotency_key"]
        return any(
            charge.capture_key == key
            or any(refund.key == key for refund in charge.refunds)
            or (operation["kind"] == "void" and charge.status == "canceled" and not charge.capture_failed)
            for charge in self.by_attempt[operation["attempt_id"]]
        )

    def expire(self, charge: Charge) -> None:
        """A step that no customer has taken for so long can be taken no more."""
        charge.status = "canceled"
        self.changed(charge)

    def changed(self, charge: Charge) -> None:
        """Hold what must be true at every instant."""
        self._note(
            f"BOOKS {charge.payment} {charge.attempt} {charge.id}: {charge.status}, {charge.captured} captured,"
            f" {charge.refunded} refunded of {charge.amount}"
        )
        if charge.refunded > charge.captured and not charge.capture_failed:
            self._violated(f"{charge.payment}: refunded {charge.refunded} of {charge.captured} at {charge.provider}")
        if charge.captured > charge.amount:
            self._violated(f"{charge.payment}: captured {charge.captured} of {charge.amount} at {charge.provider}")
        others = self.by_payment[charge.payment]
        if len(others) == 1:
            return
        paid = [each for each in others if each.net > 0]
        if len(paid) > 1:
            self._violated(f"{charge.payment}: captured twice, {' and '.join(each.attempt for each in paid)}")
        elif paid and any(each.holds for each in others if each is not paid[0]):
            self._violated(f"{charge.payment}: captured while another authorization is not void")
