"""Two simulated providers with the semantics of Stripe and of Adyen, over their own books.

They answer what the real adapters would make of their vendor's answers. A key replays the first answer that was
given under it, stored errors too; whatever was in flight when its caller gave up still arrives.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from providers import declines, faults
from providers.contract import (
    AccountStanding,
    ChargeRequest,
    Health,
    ModificationKind,
    ModificationOutcome,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
    Params,
    ProbeResult,
    Timeouts,
)
from providers.faults import Fault
from tests.simulation.books import Books, Charge, Refund, Status
from tests.simulation.faults import AFTER, BEFORE, STORED, TIMED_OUT, Mode, Weather
from tests.simulation.scheduler import Scheduler

Answer = TypeVar("Answer")

DECLINES = {
    "soft": ("do_not_honor", "2"),
    "limit": ("insufficient_funds", "12"),
    "hard": ("lost_card", "5"),
    "fraud": ("fraudulent", "20"),
    "authentication": ("authentication_required", "38"),
    "invalid": ("incorrect_cvc", "24"),
}
"""What a token of that name is refused with, by Stripe and by Adyen."""
ACQUIRER = "acquirer"
"""A token that the acquirer cannot work on, most of the time."""
ACCEPTED = ModificationOutcome(ModificationKind.DONE, Health.OK)
RECEIVED = ModificationOutcome(ModificationKind.RECEIVED, Health.OK)
REFUSED = ModificationOutcome(ModificationKind.REFUSED, Health.OK, "unexpected_state")


class World(Protocol):
    """What a provider needs of the rest of the simulation."""

    scheduler: Scheduler
    books: Books
    weather: Weather
    quiet: bool
    under_way_s: float
    """How long ago the send that arrives at this moment was sent."""

    def number(self) -> int:
        """A number that nothing else has."""

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something at a provider after that time; nothing is settled before."""

    def deliver(self, provider: str, notice: Notice) -> None:
        """Send a notice off: late, doubled, out of order."""

    def sends(self, attempt: str) -> None:
        """The router is about to send an attempt."""

    def voids_blindly(self, attempt: str) -> None:
        """The router is about to void an attempt by its own id."""

    def sent(self, charge: Charge) -> None:
        """An authorization was made by a send that has just come in."""


class SimProvider:
    """What both have in common: faults, keys, and what is in flight."""

    compares = True
    """Whether a key sent again with other parameters is refused."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.scheduler = world.scheduler
        self.books = world.books
        self._answers: dict[str, tuple[Any, Any]] = {}
        """Key to the parameters and the answer of its first send."""

    def is_reference(self, reference: str) -> bool:
        return bool(reference)

    def check(self, method: str, money: Money) -> None:
        pass

    def render(self, request: ChargeRequest) -> Params:
        return {
            "payment": request.payment_id,
            "attempt": request.attempt_id,
            "reference": request.reference,
            "amount": request.money.amount,
            "capture": request.capture,
            "token": request.token,
        }

    def authorize(self, params: Params, *, idempotency_key: str, timeouts: Timeouts) -> Outcome:
        self.world.sends(str(params["attempt"]))
        return self._send(
            "authorize", idempotency_key, params, timeouts, lambda: self._place(params), Fault.as_outcome
        )

    def probe(self, *, timeouts: Timeouts) -> ProbeResult:
        return self._send("probe", None, None, timeouts, lambda: ProbeResult(Health.OK), Fault.as_probe)

    def account(self, *, timeouts: Timeouts) -> AccountStanding | None:
        return None

    def read_webhook(self, headers: Mapping[str, str], body: bytes, *, now: dt.datetime) -> Sequence[Notice]:
        raise AssertionError("the simulation delivers notices as they are read")

    def close(self) -> None:
        """Nothing to drop."""

    # ------------------------------------------------------------ one send

    def _send(
        self,
        call: str,
        key: str | None,
        params: Any,
        timeouts: Timeouts,
        act: Callable[[], Answer],
        failed: Callable[[Fault], Answer],
    ) -> Answer:
        scheduler, rng = self.scheduler, self.scheduler.rng
        scheduler.step(f"before {call} at {self.name}")
        scheduler.current.calls += 1
        mode = self.world.weather.draw(self.name, call)
        if mode is not Mode.OK:
            scheduler.note(f"{mode.value}: {call} at {self.name}")
            scheduler.current.troubled = True
        scheduler.sleep(rng.uniform(2.0, 12.0) if mode is Mode.SLOW else rng.uniform(0.05, 0.6))
        told = self._judge(mode, key, params, timeouts, act, failed)
        scheduler.step(f"after {call} at {self.name}")
        return told

    def _judge(
        self,
        mode: Mode,
        key: str | None,
        params: Any,
        timeouts: Timeouts,
        act: Callable[[], Answer],
        failed: Callable[[Fault], Answer],
    ) -> Answer:
        if mode in (Mode.HANG, Mode.HANG_FOREVER):
            if mode is Mode.HANG:
                # It gets there when it gets there: while its caller waits, or minutes after it gave up.
                wait_s = self.scheduler.rng.choice([0.5, 5.0, 20.0, 60.0, 400.0])
                self.world.later(wait_s, lambda: self._arrive_late(wait_s, key, params, act))
            self.scheduler.sleep(timeouts.read_s)
            return failed(TIMED_OUT)
        if mode in BEFORE:
            fault = BEFORE[mode]
            if mode in STORED and key is not None and key not in self._answers:
                self._answers[key] = (params, failed(fault))
            return failed(fault)
        answer = self._arrive(key, params, act)
        if answer is None:
            return failed(faults.KEY_REUSED)
        if mode in AFTER:
            if mode in STORED and key is not None:
                self._answers[key] = (params, failed(AFTER[mode]))
            return failed(AFTER[mode])
        return answer

    def _arrive_late(self, wait_s: float, key: str | None, params: Any, act: Callable[[], Answer]) -> None:
        """So long after it was sent."""
        self.world.under_way_s = wait_s
        try:
            self._arrive(key, params, act)
        finally:
            self.world.under_way_s = 0.0

    def _arrive(self, key: str | None, params: Any, act: Callable[[], Answer]) -> Answer | None:
        """A request reaches the provider. None: its key was used with other parameters."""
        if key is None:
            return act()
        if key in self._answers:
            known, answer = self._answers[key]
            same: Answer | None = answer if known == params or not self.compares else None
            return same
        told = act()
        self._answers[key] = (params, told)
        return told

    # ------------------------------------------------------------ authorizations

    def _place(self, params: Params) -> Outcome:
        token = str(params["token"])
        charge = Charge(
            self.name,
            f"{self.name}{self.world.number()}",
            str(params["payment"]),
            str(params["attempt"]),
            int(params["amount"]),
            params["capture"] == "automatic",
            "pending",
        )
        if token == ACQUIRER and self.scheduler.rng.random() < 0.7:
            charge.status, charge.decline = "declined", ACQUIRER
        elif token in DECLINES:
            charge.status, charge.decline = "declined", token
        elif token == "3ds":
            charge.status = "requires_action"
        elif token.startswith("pending"):
            wait_s = self.scheduler.rng.choice([2.0, 30.0, 300.0])
            self.world.later(wait_s, lambda: self._conclude(charge, good=token == "pending_good"))
        else:
            self._approve(charge)
        self._open(charge)
        return self.outcome(charge)

    def _open(self, charge: Charge) -> None:
        self.books.open(charge)
        if charge.status in ("authorized", "captured"):
            self.world.sent(charge)
        self.told_of(charge)

    def _approve(self, charge: Charge) -> None:
        charge.status = "captured" if charge.at_once else "authorized"
        charge.captured = charge.amount if charge.at_once else 0

    def _conclude(self, charge: Charge, *, good: bool) -> None:
        """What was pending, or waited for the customer, ends."""
        if charge.status not in ("pending", "requires_action"):
            return
        if good:
            self._approve(charge)
        else:
            charge.status, charge.decline = "declined", "soft"
        self.books.changed(charge)
        self.told_of(charge)

    def customer(self, charge: Charge, *, passes: bool) -> None:
        """The customer finishes the 3-D Secure step, or fails it."""
        raise NotImplementedError

    def refund_by_hand(self, charge: Charge, amount: int) -> None:
        """Somebody pays back a part in the provider's dashboard."""
        refund = Refund(f"by hand {self.world.number()}", amount, f"re_{self.world.number()}")
        charge.refunds.append(refund)
        self.books.changed(charge)
        self._tell(
            NoticeKind.REFUNDED,
            "refund",
            provider_reference=charge.id,
            # At Adyen it carries what the payment was sent with.
            operation_key=charge.attempt if self.name == "adyen" else None,
            modification_reference=refund.id,
            money=Money(amount, "EUR"),
        )

    def outcome(self, charge: Charge) -> Outcome:
        """How a charge stands, as an adapter would say it."""
        match charge.status:
            case "authorized" | "captured":
                paid = charge.status == "captured"
                return Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=charge.id, captured=paid)
            case "canceled":
                return Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference=charge.id)
            case "declined":
                return self._declined(charge)
            case "requires_action":
                action = {"type": "redirect", "url": f"https://issuer.example/{charge.id}"}
                return Outcome(
                    OutcomeKind.REQUIRES_ACTION, Health.OK, provider_reference=charge.id, next_action=action
                )
            case "pending":
                return Outcome(OutcomeKind.UNKNOWN, Health.OK, "pending", provider_reference=charge.id)

    def _declined(self, charge: Charge) -> Outcome:
        if charge.decline == ACQUIRER:
            # Whether it is answered, looked up or told: the provider's own record of a payment that was not made.
            nothing = faults.ACQUIRER_FAULT.as_outcome()
            return dataclasses.replace(nothing, provider_reference=charge.id, final_record=True)
        stripe, adyen = DECLINES[charge.decline or "soft"]
        if self.name == "stripe":
            decline = declines.of_stripe({"code": "card_declined", "decline_code": stripe})
        else:
            decline = declines.of_adyen(adyen, {})
        return Outcome(OutcomeKind.DECLINED, Health.OK, decline.code, provider_reference=charge.id, decline=decline)

    # ------------------------------------------------------------ telling

    def told_of(self, charge: Charge) -> None:
        """Tell by webhook how an authorization ended."""
        raise NotImplementedError

    def _tell(self, kind: NoticeKind, name: str, **more: Any) -> None:
        self.world.deliver(self.name, Notice(f"evt_{self.world.number()}", kind, name, **more))

    def _charge(self, reference: str | None) -> Charge | None:
        return next((each for each in self.books.charges if each.id == reference), None)

    def _cancel(self, charge: Charge, live: Sequence[Status]) -> bool:
        if charge.status not in live:
            return False
        charge.status = "canceled"
        self.books.changed(charge)
        return True


Capture = Literal["automatic", "manual"]
