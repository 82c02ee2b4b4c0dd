"""What happens in one seed: payments, duplicates, captures, refunds, outages; then calm, until all is settled."""

from __future__ import annotations

from dataclasses import dataclass

from router.ledger.records import ReferenceInUseError
from router.modifications import StateConflictError
from router.order import Order
from router.payments import (
    Answer,
    IdempotencyKeyReusedError,
    PaymentRefusedError,
    ProvidersUnavailableError,
    RequestInProgressError,
)
from tests.simulation.ledger import SimDatabase
from tests.simulation.record import Totals
from tests.simulation.staff import MERCHANT, Staff

TOKENS = ("ok",) * 12 + (
    "soft",
    "soft",
    "limit",
    "hard",
    "fraud",
    "authentication",
    "invalid",
    "3ds",
    "3ds",
    "pending_good",
    "pending_bad",
    "acquirer",
)
LONG_S = 1000.0
"""Of a seed whose trouble lasts longer, some customers are so long without a word."""
_KINDS = ("capture", "cancel", "refund")


@dataclass(slots=True)
class Customer:
    """One payment as checkout sees it."""

    key: str
    order: Order
    patient: bool
    """Asks again until it has an answer."""
    payment: str | None = None
    accepted: bool = False
    refused: str | None = None
    status: str | None = None
    asked: int = 0
    moves: int = 0
    tries: int = 0


class Scenario(Staff):
    """One seed, from its first payment to its last notice."""

    def __init__(self, seed: int, database: SimDatabase, totals: Totals) -> None:
        super().__init__(seed, database, totals)
        self.customers: list[Customer] = []

    def run(self) -> None:
        """All of it; the world's violations say whether it went well."""
        world, rng = self.world, self.rng
        for _ in range(rng.randint(18, 25)):
            self._later(rng.uniform(0.0, min(self.active_s, 60.0)), self._new_customer)
        if not world.calm:
            for _ in range(rng.randint(0, 4)):
                self._outage()
            for _ in range(rng.choice([0, 0, 2, 6])):
                self._later(rng.uniform(0.0, self.active_s), self._operator)
            if self.active_s > LONG_S and rng.random() < 0.5:
                at = rng.uniform(0.0, 40.0)
                world.scheduler.after(at, lambda: world.weather.lose_authorizations(rng.choice(["stripe", "adyen"])))
        for number in range(rng.choice([1, 1, 2])):
            self._worker(number)
        world.scheduler.after(self.active_s, self._calm_down)
        world.scheduler.run()
        if world.scheduler.endless:
            world.violations.append("it goes round in circles")

    def _outage(self) -> None:
        world, rng = self.world, self.rng
        name, at = rng.choice(["stripe", "adyen"]), rng.uniform(0.0, self.active_s * 0.6)
        world.scheduler.after(at, lambda: world.scheduler.note(world.weather.break_down(name)))
        if rng.random() < 0.6:
            world.scheduler.after(at + rng.uniform(5.0, self.active_s), lambda: world.weather.mend(name))

    def _calm_down(self) -> None:
        world = self.world
        world.scheduler.note("ALL FAULTS END")
        world.quiet = world.weather.over = True

    # ------------------------------------------------------------ checkout

    def _new_customer(self) -> None:
        rng, number = self.rng, next(self._numbers)
        losing = any(self.world.weather.is_losing(each) for each in ("stripe", "adyen"))
        customer = Customer(f"key-{number}", self._order(number), patient=rng.random() < (0.3 if losing else 0.8))
        self.customers.append(customer)
        self._pay(customer)
        if self.active_s > LONG_S and rng.random() < 0.3:  # whoever was not answered asks again when it is given up
            self._later(rng.uniform(LONG_S, self.active_s + 100.0), lambda: self._pay(customer))
        drawn = rng.random()
        if drawn < 0.25:  # a double click, or a client that did not wait
            self._later(rng.choice([0.0, 0.3, 5.0, 45.0]), lambda: self._pay(customer))
        elif drawn < 0.31:  # the same key for another order
            other = customer.order.model_copy(update={"amount": customer.order.amount + 1})
            wrong = Customer(customer.key, other, patient=False)
            self._later(rng.choice([0.0, 1.0, 20.0]), lambda: self._pay(wrong))
        elif drawn < 0.40:  # the same order under another key
            twin = Customer(f"key-{number}-twin", customer.order, patient=True)
            self.customers.append(twin)
            self._later(rng.choice([0.0, 1.0, 20.0]), lambda: self._pay(twin))

    def _order(self, number: int) -> Order:
        rng = self.rng
        tokens = {name: rng.choice(TOKENS) for name in ("stripe", "adyen") if rng.random() < 0.95}
        return Order.model_validate(
            {
                "reference": f"ORD-{number}",
                "amount": rng.randint(1, 9999),
                "currency": "EUR",
                "capture": "automatic" if rng.random() < 0.7 else "manual",
                "payment_method": {"type": "card", "tokens": tokens or {"stripe": "ok"}},
                "when_unavailable": "fail" if rng.random() < 0.15 else "park",
            }
        )

    def _pay(self, customer: Customer) -> None:
        web = self.world.web()
        customer.tries += 1
        name = f"pay.{customer.key}.{customer.tries}"
        if customer.payment is not None:
            self.world.contacts[customer.payment] = self.world.scheduler.elapsed
        begun = self.world.scheduler.elapsed

        def call() -> Answer:
            task = self.world.scheduler.current
            answer = web.payments.create(customer.order, merchant=MERCHANT, key=customer.key)
            self._two_commits(answer, task.writes, task.calls, task.troubled)
            return answer

        self._ask(name, web, call, lambda result: self._paid(customer, result, begun))

    def _two_commits(self, answer: Answer, writes: int, calls: int, troubled: bool) -> None:
        usual = not troubled and calls == 1 and not answer.replayed and len(answer.attempts) == 1
        if usual and answer.payment.status in ("captured", "authorized", "declined") and writes != 2:
            self.world.violated(f"{answer.payment.id} took {writes} commits")

    def _paid(self, customer: Customer, result: object, begun: float) -> None:
        rng, world = self.rng, self.world
        if isinstance(result, Answer):
            customer.payment, customer.accepted = result.payment.id, True
            customer.status = result.payment.status
            self._says_what_to_do(result)
            world.contacts[result.payment.id] = begun
            if result.payment.amount != customer.order.amount:
                world.violated(f"{customer.key} was answered another order's payment")
            self._go_on(customer)
            return
        if isinstance(result, IdempotencyKeyReusedError | ReferenceInUseError | ProvidersUnavailableError):
            customer.refused = type(result).__name__
            return
        if isinstance(result, PaymentRefusedError) and not isinstance(result, RequestInProgressError):
            customer.refused = type(result).__name__
            return
        # The connection broke, the ledger was away, or another request is working on it: ask again, or walk away.
        if customer.tries < 6 and (customer.patient or rng.random() < 0.3):
            wait_s = rng.choice([0.5, 3.0, 20.0, 50.0])
            self._later(wait_s, lambda: self._pay(customer))

    def _says_what_to_do(self, answer: Answer) -> None:
        payment = answer.payment
        if (payment.next_action is not None) != (payment.status == "requires_action"):
            self.world.violated(f"{payment.id} is {payment.status}, its next action {payment.next_action}")

    # ------------------------------------------------------------ after the answer

    def _go_on(self, customer: Customer) -> None:
        if customer.moves < 5 and self.rng.random() < 0.6:
            customer.moves += 1
            self._later(self.rng.choice([0.2, 2.0, 10.0, 40.0]), lambda: self._look(customer))

    def _look(self, customer: Customer) -> None:
        web, payment = self.world.web(), customer.payment
        assert payment is not None
        self.world.contacts[payment] = self.world.scheduler.elapsed
        self._ask(
            f"get.{payment}",
            web,
            lambda: web.payments.get(MERCHANT, payment),
            lambda found: self._seen(customer, found),
        )

    def _seen(self, customer: Customer, found: object) -> None:
        if not isinstance(found, Answer):
            self._go_on(customer)
            return
        payment, rng = found.payment, self.rng
        customer.status = payment.status
        self._says_what_to_do(found)
        match payment.status:
            case "authorized":
                self._modify(customer, rng.choice(["capture", "capture", "cancel"]), payment.amount)
            case "captured":
                self._modify(customer, rng.choice(["refund", "refund", "cancel"]), payment.amount_captured)
            case "requires_action":
                if rng.random() < 0.7:
                    self._customer_acts(payment.id)
                else:
                    self._modify(customer, "cancel", payment.amount)
                self._go_on(customer)
            case "parked" if rng.random() < 0.3:
                self._modify(customer, "cancel", payment.amount)
            case "processing" | "parked":
                self._go_on(customer)
            case _:
                self._modify(customer, rng.choice(_KINDS), payment.amount)

    def _modify(self, customer: Customer, kind: str, most: int) -> None:
        """Ask for a change, now and then twice under the same key, now and then for too much."""
        rng, payment = self.rng, customer.payment
        assert payment is not None
        amount = rng.choice([None, None, max(1, most // 2), max(1, most // 3), most, most + 1])
        key = f"{kind}-{payment}-{next(self._numbers)}"
        for _ in range(2 if rng.random() < 0.2 else 1):
            self._send_change(customer, payment, kind, amount, key, 3)
        if kind == "capture" and rng.random() < 0.15:
            self._send_change(customer, payment, "cancel", None, f"{key}-race", 1)
        self._maybe_mishap(payment)

    def _send_change(
        self, customer: Customer, payment: str, kind: str, amount: int | None, key: str, tries: int
    ) -> None:
        web = self.world.web()

        def call() -> Answer:
            match kind:
                case "capture":
                    return web.modifications.capture(MERCHANT, payment, amount, key=key)
                case "refund":
                    return web.modifications.refund(MERCHANT, payment, amount, key=key)
                case _:
                    return web.modifications.cancel(MERCHANT, payment, key=key)

        def told(result: object) -> None:
            self.world.totals.counts[f"{kind}s asked"] += 1
            if isinstance(result, Answer):
                self._go_on(customer)
            elif not isinstance(result, StateConflictError) and tries > 1:
                self._later(
                    self.rng.choice([1.0, 20.0, 50.0]),
                    lambda: self._send_change(customer, payment, kind, amount, key, tries - 1),
                )

        self._ask(f"{kind}.{payment}", web, call, told)

    def _maybe_mishap(self, payment: str) -> None:
        """Later the provider tells that a capture or a refund has failed after all."""
        if self.rng.random() < 0.25:
            self._later(self.rng.choice([5.0, 60.0]), lambda: self._mishap(payment))

    def _mishap(self, payment: str) -> None:
        world = self.world
        for charge in world.books.by_payment[payment]:
            provider = world.stripe if charge.provider == "stripe" else world.adyen
            standing = [each for each in charge.refunds if not each.failed]
            if standing:
                provider.fail_refund(charge, standing[-1])
                world.totals.counts["refunds that failed afterwards"] += 1
            elif charge.status == "captured" and not charge.refunds:
                provider.fail_capture(charge)
                world.totals.counts["captures that failed afterwards"] += 1
