"""Who keeps things going: the workers, an operator, and customers who finish what waits for them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

from router.ledger.records import ReferenceInUseError
from router.ledger.tables import to_micros
from router.ledger.unavailable import LedgerUnavailableError
from router.modifications import Verdict
from router.payments import Answer, PaymentRefusedError
from router.resolver import NOT_UNDONE
from tests.simulation.ledger import SimDatabase
from tests.simulation.record import Totals
from tests.simulation.world import ACTION_EXPIRES_S, EMPTY_ROUNDS, Process, SimWorld

MERCHANT = "m"
ACTIVE_S = (20.0, 60.0, 60.0, 1500.0)
"""How long a seed's trouble lasts; the longest outlives checkout's patience."""
QUIET_ROUNDS = 150
"""Rounds of a worker in calm weather until all must be settled."""
_VERDICTS: dict[str, Verdict] = {
    "captured": "approved",
    "authorized": "approved",
    "canceled": "canceled",
    "declined": "declined",
}
"""What an operator makes of the provider's dashboard."""


class Staff:
    """One seed's world, and everybody in it but checkout."""

    def __init__(self, seed: int, database: SimDatabase, totals: Totals) -> None:
        self.world = SimWorld(seed, database, totals)
        self.rng = self.world.rng
        self.pending = 0
        """Things that checkout still means to do."""
        self.active_s = self.rng.choice(ACTIVE_S)
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------ the worker

    def _worker(self, number: int) -> None:
        """A worker process: its loops, and another process when it dies."""
        world = self.world
        worker = world.start("worker")
        loops: list[tuple[str, Callable[[], object]]] = [
            ("notices", worker.notices.run_once),
            ("resolver", worker.resolver.run_once),
            ("circuits", worker.circuits),
            ("parked", worker.parked.run_once),
            ("housekeeping", worker.housekeeping.run_once),
        ]
        alive = len(loops)

        def ended(_lived: bool) -> None:
            nonlocal alive
            alive -= 1
            if alive == 0 and worker.dead:
                world.scheduler.after(2.0, lambda: self._worker(number))

        for name, run_once in loops:
            self._start_loop(name, worker, run_once, number, ended)

    def _start_loop(
        self, name: str, worker: Process, run_once: Callable[[], object], number: int, ended: Callable[[bool], None]
    ) -> None:
        def body() -> None:
            self._loop(name, worker, run_once, number)

        self.world.run_task(f"{worker.name}.{name}", worker, body, ended)

    def _loop(self, name: str, worker: Process, run_once: Callable[[], object], number: int) -> None:
        world, rng = self.world, self.rng
        calm_rounds = 0
        while True:
            if name == "circuits":
                worker.watch()
            # Rounds that would find nothing are skipped, most of them: they prove nothing, and cost most of the time.
            if rng.random() < EMPTY_ROUNDS or self._is_due(name, worker):
                with contextlib.suppress(LedgerUnavailableError):
                    run_once()
            if world.quiet:
                if self._settled():
                    return
                calm_rounds += 1
                if calm_rounds > QUIET_ROUNDS:
                    world.violated(f"not settled: {self.unsettled()}")
                    return
                if name == "notices" and calm_rounds % 5 == 0 and number == 0:
                    self._tidy_up()
                world.scheduler.sleep(rng.uniform(0.5, 2.0) if calm_rounds < 40 else 120.0)
            else:
                world.scheduler.sleep(rng.uniform(0.5, 4.0) * (1.0 if self.active_s < 100 else 4.0))

    def _is_due(self, name: str, worker: Process) -> bool:
        rows, now = self.world.database.rows, to_micros(self.world.scheduler.now())
        match name:
            case "notices":
                return bool(rows("SELECT 1 FROM webhooks WHERE applied_at IS NULL AND next_try_at <= ? LIMIT 1", now))
            case "resolver":
                due = "SELECT 1 FROM payments WHERE resolve_at <= ?1 OR lease_until <= ?1 LIMIT 1"
                return bool(rows(due, now))
            case "circuits":
                return self.world.circuits_move(worker)
            case "parked":
                return bool(rows("SELECT 1 FROM payments WHERE status = 'parked' LIMIT 1"))
            case _:
                old = now - int(ACTION_EXPIRES_S * 1e6)
                waits = "SELECT 1 FROM payments WHERE status = 'requires_action' AND updated_at <= ? LIMIT 1"
                return bool(rows(waits, old))

    def _settled(self) -> bool:
        return not self.pending and not self.world.undelivered and not self.unsettled()

    def unsettled(self) -> list[dict[str, Any]]:
        """What the ledger has not brought to an end."""
        return self.world.database.rows(
            "SELECT id, status FROM payments WHERE lease_until IS NOT NULL OR resolve_at IS NOT NULL"
            " OR status IN ('processing', 'parked', 'requires_action') OR capture_pending"
            " UNION ALL SELECT payment_id, kind || ' ' || state FROM operations"
            " WHERE state IN ('started', 'unknown', 'received')"
            " UNION ALL SELECT notice_id, name FROM webhooks WHERE applied_at IS NULL LIMIT 5"
        )

    # ------------------------------------------------------------ what a person does when all is calm

    def _tidy_up(self) -> None:
        """The operator answers what asks for attention, customers finish what waits for them."""
        for row in self.world.database.rows(
            "SELECT id, status FROM payments WHERE attention IS NOT NULL OR status = 'requires_action'"
        ):
            if row["status"] == "requires_action":
                if self.rng.random() < 0.1:  # the others never come back, or late
                    self._customer_acts(row["id"])
            else:
                self._operate(row["id"])

    def _operator(self) -> None:
        """In the middle of it all somebody answers a payment in doubt, where the provider's dashboard shows it."""
        doubtful = self.world.database.rows("SELECT id FROM payments WHERE resolve_at IS NOT NULL ORDER BY id")
        if doubtful:
            self._operate(self.rng.choice(doubtful)["id"], sure=True)

    def _operate(self, payment: str, *, sure: bool = False) -> None:
        """`sure`: only what is in the books; what is not may be on its way."""
        world = self.world
        doubtful = world.database.rows(
            "SELECT id FROM attempts WHERE payment_id = ?1 AND (outcome IS NULL OR outcome = 'unknown' OR"
            " (outcome = 'requires_action' AND id IS NOT (SELECT attempt_id FROM payments WHERE id = ?1)))"
            " ORDER BY outcome IS 'requires_action', number DESC LIMIT 1",
            payment,
        )
        operations = world.database.rows(
            "SELECT * FROM operations WHERE payment_id = ? AND state IN ('started', 'unknown')"
            " AND asked_by <> 'router: unseen'"
            " ORDER BY started_at DESC, id DESC LIMIT 1",
            payment,
        )
        unseen = world.database.rows(
            "SELECT operations.id, attempt_id FROM operations JOIN attempts ON attempts.id = attempt_id"
            " WHERE operations.payment_id = ? AND asked_by = 'router: unseen'"
            " AND state IN ('started', 'unknown', 'received') AND outcome = 'approved' LIMIT 1",
            payment,
        )
        reference, about = None, (doubtful or operations or unseen or [{"id": None}])[0]["id"]
        if doubtful:
            found = world.books.by_attempt.get(doubtful[0]["id"], [])
            if (found and found[0].status == "pending") or (sure and not (found and found[0].status in _VERDICTS)):
                return
            if found and found[0].status == "requires_action":
                world.books.expire(found[0])
            verdict = _VERDICTS[found[0].status] if found else "not_executed"
            reference = found[0].id if found else None
        elif operations:
            done = world.books.did(operations[0])
            if sure and not done:
                return
            verdict = "approved" if done else "not_executed"
        elif unseen and not sure:
            # It may still be on its way to the provider in the middle of it all, but not when all is calm.
            found = world.books.by_attempt.get(unseen[0]["attempt_id"], [])
            verdict = "canceled" if found and found[0].status == "canceled" else "not_executed"
        else:
            if not sure:
                self._pay_back(payment)
            return
        web, key = world.web(), f"operator-{payment}-{next(self._numbers)}"
        world.totals.counts["resolved by an operator"] += 1
        self._ask(
            f"operator.{payment}",
            web,
            lambda: web.modifications.resolve(
                MERCHANT, payment, verdict, "the books", reference, key=key, about=about
            ),
            lambda _result: None,
        )

    def _pay_back(self, payment: str) -> None:
        """What the router has tried often enough to pay back, and could not, a person pays back in the dashboard."""
        world = self.world
        rows = world.database.rows("SELECT attempt_id, attention FROM payments WHERE id = ?", payment)
        for charge in world.books.by_payment[payment]:
            if rows[0]["attention"] == NOT_UNDONE and charge.attempt != rows[0]["attempt_id"] and charge.net > 0:
                (world.stripe if charge.provider == "stripe" else world.adyen).refund_by_hand(charge, charge.net)

    def _customer_acts(self, payment: str) -> None:
        world = self.world
        waiting = [each for each in world.books.by_payment[payment] if each.status == "requires_action"]
        passes = self.rng.random() < 0.7
        charges = waiting or world.books.by_payment[payment][-1:]
        if not charges:
            return
        charge = charges[-1]
        (world.stripe if charge.provider == "stripe" else world.adyen).customer(charge, passes=passes)
        web, key = world.web(), f"complete-{payment}-{next(self._numbers)}"
        details = {"redirectResult": f"{charge.id}!{'success' if passes else 'fail'}"}
        self._ask(
            f"complete.{payment}",
            web,
            lambda: web.modifications.complete(MERCHANT, payment, details, key=key),
            lambda _result: None,
        )

    # ------------------------------------------------------------ requests

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.pending += 1

        def act() -> None:
            self.pending -= 1
            action()

        self.world.scheduler.after(seconds, act)

    def _ask(
        self, name: str, web: Process, call: Callable[[], Answer | None], told: Callable[[object], None]
    ) -> None:
        """One HTTP request: `told` gets the answer, the refusal, or None when the connection broke."""
        result: object = None

        def body() -> None:
            nonlocal result
            try:
                result = call()
            except (PaymentRefusedError, ReferenceInUseError, LedgerUnavailableError) as refusal:
                result = refusal

        def ended(_lived: bool) -> None:
            self.pending -= 1
            told(result)

        self.pending += 1
        self.world.run_task(name, web, body, ended)
