"""One seed's world: the router's real code in several processes, two providers, a ledger, and trouble."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

from flags.contract import FlagContext, RoutingFlags, SourceStatus
from providers.contract import Notice, NoticeKind, Provider, Timeouts
from router.app.core import SLOW_MINIMUM_CALLS
from router.breaker import BreakerSettings
from router.clock import SequentialIds
from router.fleet import FleetCounts
from router.housekeeping import Housekeeping
from router.ledger.circuits import CircuitLedger
from router.ledger.counts import CountLedger
from router.ledger.inbox import Inbox
from router.ledger.journal import Journals
from router.ledger.operations import Operation
from router.ledger.parked import ParkedLedger
from router.ledger.payments import PaymentLedger
from router.ledger.probes import ProbeLedger
from router.ledger.records import Payment
from router.ledger.unavailable import LedgerUnavailableError
from router.ledger.upkeep import Upkeep
from router.modifications import Modifications
from router.notices import Notices
from router.parked import Parked
from router.payments import Payments, PaymentSettings
from router.planning import Planner
from router.recovery import Recovery
from router.resolver import Resolver, ResolverSettings
from router.sending import Sender, SendTimes
from tests.fakes.house import an_appraiser
from tests.simulation.adyen import SimAdyen
from tests.simulation.books import Books, Charge
from tests.simulation.faults import Weather
from tests.simulation.health import SimHealth
from tests.simulation.ledger import SimDatabase
from tests.simulation.record import Totals
from tests.simulation.scheduler import START, Killed, Scheduler, SimProcess, Task
from tests.simulation.stripe import SimStripe

DEADLINE_S = 25.0
RESEND_MAX_AGE_S = 900.0
ACTION_EXPIRES_S = 600.0
GIVEN_UP_AFTER_S = RESEND_MAX_AGE_S + 60.0 + 15.0
"""Contact is noted once a minute, and a call that was begun in time may take its deadline."""


OPERATION = "an operation is committed and not yet sent"
_CALLS = ("authorize", "capture", "void", "refund", "complete", "probe")
CALLS = (
    *(f"{call} at {provider}" for call in _CALLS for provider in ("stripe", "adyen")),
    "look_up at stripe",
    "void_attempt at adyen",
)
"""What is asked of a provider that may be lost."""
RARE_CALLS = ("void", "refund", "complete")
AT_A_CALL = frozenset({OPERATION, *(f"{when} {call}" for when in ("before", "after") for call in CALLS)})
CRASH_POINTS = ("before commit", "after commit", "before read", "sleep", *sorted(AT_A_CALL))
"""Where a process may be killed."""
AUTHORIZATIONS = ("authorize at stripe", "authorize at adyen")
KILLED_AT_AN_AUTHORIZATION = 15
"""So many times likelier than elsewhere is a process killed there: what nobody was told of is what is given up."""
KILLED_WHERE_IT_IS_LOST = 40
"""The same while nobody hears what became of authorizations."""
NOTICES_LOST_S = (600.0, 1800.0)
"""So late is then most news of them."""
EMPTY_ROUNDS = 0.05
"""Share of the rounds that are made though nothing is due."""
ROUNDS = 0.3
"""Of a web process's requests so many are followed by a round of its circuits, once one has moved."""
KILLED_AT_A_CALL = 8
"""The same before and after any other call of a provider, and between an operation's commit and its send."""
KILLED_AT_A_RARE_CALL = 40
PAUSED_BEFORE_AN_OPERATION = 20
"""So many times likelier than elsewhere is a process paused between the commit of an operation and its send."""


class SimPayments(PaymentLedger):
    """The payments' queries, with a point of its own after the commit of a capture, void or refund."""

    def change(self, *args: Any, asked: Operation | None = None, **named: Any) -> Payment:
        changed = super().change(*args, asked=asked, **named)
        scheduler = self._database.scheduler if isinstance(self._database, SimDatabase) else None
        if asked is not None and asked.state == "started" and scheduler is not None:
            scheduler.step(OPERATION)
        return changed


class SimFlags:
    """Satisfies `FlagSource`: the flags of each payment are drawn by the seed."""

    def __init__(self, rng: random.Random, void_share: float) -> None:
        self._rng = rng
        self._void_share = void_share

    def read(self, context: FlagContext) -> RoutingFlags:
        rng = self._rng
        return RoutingFlags(
            primary=rng.choice(["stripe", "adyen"]),
            cascade_on_soft_decline=rng.random() < 0.9,
            unknown_outcome_policy="void-and-fail-over" if rng.random() < self._void_share else "hold",
        )

    def status(self) -> SourceStatus:
        return SourceStatus("valid", START)

    def close(self) -> None:
        """Nothing to stop."""


class Process(SimProcess):
    """A web or worker process, with its own view of the circuits, as `router.app` puts it together."""

    def __init__(self, name: str, world: SimWorld, *, patience: float) -> None:
        super().__init__(name)
        clock, ids, database, providers = world.scheduler, world.ids, world.database, world.contracts
        self.health = SimHealth(
            providers,
            world.breaker,
            store=CircuitLedger(database),
            fleet=FleetCounts(providers, store=CountLedger(database), process=name, clock=clock),
            at_once=world.payments_at_once,
            clock=clock,
            actor=name,
            operations=world.operations_at_once,
            counts=world.totals.counts,
        )
        ledger = SimPayments(database)
        journals = Journals(ledger, deadline_s=DEADLINE_S, clock=clock, ids=ids)
        sender, inquirer = (
            Sender(providers, SendTimes(1.0, 10.0), clock=clock, random=world.rng.random, operating=leave)
            for leave in (self.health.operating, self.health.finding_out)
        )
        self.payments = Payments(
            ledger=ledger,
            planner=Planner(
                providers=providers,
                flags=world.flags,
                health=self.health,
                appraiser=an_appraiser(providers),
                ids=ids,
                draw=world.rng.random,
            ),
            sender=sender,
            health=self.health,
            journals=journals,
            settings=PaymentSettings(DEADLINE_S, parked_retry_s=15.0),
            clock=clock,
            ids=ids,
        )
        self.modifications = Modifications(
            ledger=ledger, journals=journals, sender=sender, deadline_s=DEADLINE_S, clock=clock
        )
        self.inbox = Inbox(database)
        self.notices = Notices(inbox=self.inbox, ledger=ledger, journals=journals, clock=clock)
        self.resolver = Resolver(
            ledger=ledger,
            journals=journals,
            sender=inquirer,
            providers=providers,
            settings=ResolverSettings(DEADLINE_S, RESEND_MAX_AGE_S),
            clock=clock,
            held_back=self.health.held_back,
            run_all=lambda task, due: [task(each) for each in due],
        )
        self.parked = Parked(
            providers=tuple(providers),
            ledger=ParkedLedger(database),
            payments=self.payments,
            health=self.health,
            clock=clock,
            ids=ids,
            # In the task's own time: the seed decides where it is interrupted.
            start=lambda task: task(),
        )
        self.housekeeping = Housekeeping(
            upkeep=Upkeep(database),
            ledger=ledger,
            journals=journals,
            sender=inquirer,
            providers=providers,
            action_expires_s=ACTION_EXPIRES_S,
            deadline_s=DEADLINE_S,
            clock=clock,
        )
        self.recovery = Recovery(
            providers,
            self.health,
            probes=ProbeLedger(database),
            timeouts=Timeouts(1.0, 5.0),
            clock=clock,
            patience=patience,
            # In the task's own time: the seed decides where it is interrupted.
            start=lambda task: task(),
        )
        self._world = world
        self._syncing = False

    def begin(self) -> None:
        """What a web process does before its first request."""
        for each in (self.health.sync_once, self.health.restore):
            with contextlib.suppress(LedgerUnavailableError):
                each()

    def watch(self) -> None:
        """One round of the thread that needs no ledger; of a process that runs."""
        if not self.dead and self.paused_until <= self._world.scheduler.elapsed:
            self.health.watch_once()

    def circuits(self) -> None:
        """One round of each of the threads that keep the circuits right."""
        if self._syncing:
            return
        self._syncing = True
        for each in (self.health.sync_once, self.health.exchange_once, self.recovery.run_once):
            with contextlib.suppress(LedgerUnavailableError):
                each()
        self._syncing = False

    def receive(self, provider: str, notice: Notice) -> bool:
        """The webhook route: stored, then acknowledged. Whether it was acknowledged."""
        self.inbox.store(provider, [notice], now=self._world.scheduler.now())
        return True


class SimWorld:
    """Everything of one seed. Satisfies `providers.World`."""

    def __init__(self, seed: int, database: SimDatabase, totals: Totals) -> None:
        random.seed(seed)  # tenacity's jitter between commits has no other source
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.totals = totals
        self.database = database
        self.violations: list[str] = []
        self.quiet = False
        self.scheduler = Scheduler(rng, keep=rng.choice([0.0, 0.3, 0.6]))
        self.scheduler.chaos = self._chaos
        self.scheduler.on_open_transaction = lambda label: self.violated(f"a transaction is open: {label}")
        self.calm = rng.random() < 0.25
        self._kill = 0.0 if self.calm else rng.choice([0.0, 0.001, 0.004])
        self._pause = 0.0 if self.calm else rng.choice([0.0, 0.0015, 0.005])
        self._away = 0.0 if self.calm else rng.choice([0.0, 0.002, 0.01])
        self._away_until = 0.0
        self.weather = Weather(rng, totals.faults, rate=0.02 if self.calm else rng.choice([0.05, 0.15, 0.35]))
        self.books = Books(self.violated, self.scheduler.note)
        self.ids = SequentialIds()
        self.breaker = dataclasses.replace(
            BreakerSettings(),
            slow_minimum_calls=SLOW_MINIMUM_CALLS,
            minimum_calls=rng.choice([4, 10, 10]),
            consecutive_failures=rng.choice([None, None, None, 3]),
        )
        self.payments_at_once, self.operations_at_once = rng.choice([2, 6, 24]), rng.choice([0, 1, 4])
        """Of operations 0: what hangs has taken every place."""
        self.flags = SimFlags(rng, rng.choice([0.0, 0.5, 1.0]))
        self._numbers = 0
        self.stripe = SimStripe("stripe", self)
        self.adyen = SimAdyen("adyen", self)
        self.contracts: Mapping[str, Provider] = {"stripe": self.stripe, "adyen": self.adyen}
        self.contacts: dict[str, float] = {}
        """Payment id to when checkout last asked for it."""
        self.undelivered = 0
        self._voided_blindly: set[str] = set()
        self.under_way_s = 0.0
        """How long ago the send that arrives at this moment was sent."""
        self._webs: list[Process] = []
        self._started = 0
        database.scheduler = self.scheduler
        database.fault = self._ledger_fault

    # ------------------------------------------------------------ processes

    def web(self) -> Process:
        """A web process that lives; one that died is started again."""
        rng = self.rng
        if len(self._webs) < 2:
            self._webs = [self.start("web"), self.start("web")]
        number = rng.randrange(2)
        if self._webs[number].dead:
            self._webs[number] = began = self.start("web")
            self.run_task(f"{began.name}.begins", began, began.begin, lambda _lived: None)
        web = self._webs[number]
        web.watch()
        drawn = rng.random()
        if drawn < EMPTY_ROUNDS or (drawn < ROUNDS and self.circuits_move(web)):
            self.run_task(f"{web.name}.circuits", web, web.circuits, lambda _lived: None)
        return web

    def circuits_move(self, process: Process) -> bool:
        """Whether a circuit ever moved, as far as this process or the ledger knows."""
        return process.health.has_news or bool(self.database.rows("SELECT 1 FROM circuit_transitions LIMIT 1"))

    def start(self, role: str) -> Process:
        """A new process."""
        self._started += 1
        return Process(f"{role}{self._started}", self, patience=2.0 if role == "web" else 1.0)

    def run_task(self, name: str, process: Process, body: Callable[[], None], ended: Callable[[bool], None]) -> None:
        """Run something in a process; `ended` is told whether the process lived to the end of it."""

        def guarded() -> None:
            lived = False
            try:
                body()
                lived = True
            except Killed:
                pass
            except Exception as error:  # noqa: BLE001 - whatever escapes would be a 500, or a dead loop
                self.violated(f"{name} raised {error!r}")
            if not self.scheduler.aborting:
                ended(lived)

        self.scheduler.spawn(name, process, guarded)

    # ------------------------------------------------------------ trouble

    def _chaos(self, task: Task, label: str) -> None:
        if self.quiet:
            return
        drawn = self.rng.random()
        kill = self._kill
        if label in AT_A_CALL:
            kill *= KILLED_AT_A_RARE_CALL if label.split()[1] in RARE_CALLS else KILLED_AT_A_CALL
        if label.endswith(AUTHORIZATIONS):
            lost = label.startswith("after") and self.weather.is_losing(label.rpartition(" ")[2])
            kill = self._kill * (KILLED_WHERE_IT_IS_LOST if lost else KILLED_AT_AN_AUTHORIZATION)
        if drawn < kill:
            self.totals.crashes[label] += 1
            self.scheduler.note("KILLED " + task.process.name)
            self.scheduler.kill(task.process)
            raise Killed
        pause = self._pause * PAUSED_BEFORE_AN_OPERATION if label == OPERATION else self._pause
        if drawn < kill + pause:
            if label == OPERATION:
                self.totals.counts["processes paused with an operation committed and not sent"] += 1
            self.totals.counts["processes paused past their leases"] += 1
            seconds = self.rng.uniform(45.0, 120.0)
            self.scheduler.note(f"PAUSED {task.process.name} for {seconds:.0f} s")
            self.scheduler.pause(task.process, seconds)

    def _ledger_fault(self, how: str) -> bool:
        if self.quiet or not self._away:
            return False
        if self.scheduler.elapsed < self._away_until:
            away = how != "commit forgotten"
        else:
            away = self.rng.random() < self._away
            if away and how == "commit refused" and self.rng.random() < 0.2:
                self._away_until = self.scheduler.elapsed + self.rng.uniform(1.0, 12.0)
        if away:
            self.totals.counts[how] += 1
            self.scheduler.current.troubled = True
        return away

    def violated(self, what: str) -> None:
        """An invariant does not hold: the seed has failed."""
        if not self.scheduler.aborting:
            self.violations.append(what)
            self.scheduler.note("VIOLATED " + what)
            self.scheduler.aborting = True

    # ------------------------------------------------------------ what the providers need

    def number(self) -> int:
        """A number that nothing else has."""
        self._numbers += 1
        return self._numbers

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something at a provider after that time; nothing is settled before."""
        self.undelivered += 1

        def act() -> None:
            self.undelivered -= 1
            action()

        self.scheduler.after(seconds, act)

    def deliver(self, provider: str, notice: Notice) -> None:
        """Send a notice off, now or late, once or twice."""
        rng = self.rng
        for _ in range(2 if rng.random() < 0.15 else 1):
            late = (0.0, 1.0) if self.quiet else (0.0, 0.0, 0.0, 1.0, 10.0, 60.0, 300.0, 1800.0)
            self.undelivered += 1
            seconds = rng.choice(late) * rng.random()
            if not self.quiet and notice.kind is NoticeKind.ATTEMPT and self.weather.is_losing(provider):
                seconds = rng.uniform(*NOTICES_LOST_S) if rng.random() < 0.7 else seconds
            self.scheduler.after(seconds, lambda: self._delivery(provider, notice))

    def _delivery(self, provider: str, notice: Notice) -> None:
        web = self.web()
        acknowledged = False

        def body() -> None:
            nonlocal acknowledged
            try:
                acknowledged = web.receive(provider, notice)
            except LedgerUnavailableError:
                acknowledged = False

        def ended(_lived: bool) -> None:
            if acknowledged:
                self.undelivered -= 1
                self.totals.counts["notices"] += 1
            else:
                self.totals.counts["notices delivered again"] += 1
                self.scheduler.after(5.0, lambda: self._delivery(provider, notice))

        self.run_task(f"{notice.name}#{notice.id}", web, body, ended)

    def voids_blindly(self, attempt: str) -> None:
        """The router is about to void an attempt by its own id."""
        # That of the payment's own attempt: an orphan in doubt is voided, and sent again to learn how it stands.
        if self.database.rows("SELECT 1 FROM payments WHERE attempt_id = ? AND NOT told", attempt):
            self._voided_blindly.add(attempt)

    def sends(self, attempt: str) -> None:
        """The router is about to send an attempt: none that it voids because checkout expects it no more."""
        if attempt in self._voided_blindly:
            self.violated(f"{attempt} is sent again while its void is on its way")

    def _by_hand(self, charge: Charge) -> None:
        """Somebody sees a charge that no payment shows as its own, and pays back a part of it in the dashboard."""
        rows = self.database.rows("SELECT status, attempt_id FROM payments WHERE id = ?", charge.payment)
        own = any(each["attempt_id"] == charge.attempt and each["status"] == "captured" for each in rows)
        if charge.status == "captured" and charge.net > 1 and not own:
            provider = self.stripe if charge.provider == "stripe" else self.adyen
            provider.refund_by_hand(charge, self.rng.choice([1, charge.net // 2, charge.net // 2, charge.net]))
            self.totals.counts["refunded in part by hand"] += 1

    def sent(self, charge: Charge) -> None:
        """A send has made an authorization: when it was sent, checkout must still have expected the payment."""
        if not self.calm and self.rng.random() < (0.7 if self.weather.is_losing(charge.provider) else 0.3):
            self.later(self.rng.choice([0.5, 2.0, 10.0, 60.0]), lambda: self._by_hand(charge))
        rows = self.database.rows("SELECT told, status, created_at FROM payments WHERE id = ?", charge.payment)
        if not rows or rows[0]["told"] or rows[0]["status"] == "parked":
            return
        created = rows[0]["created_at"] / 1e6 - START.timestamp()
        silent_s = self.scheduler.elapsed - self.under_way_s - max(created, self.contacts.get(charge.payment, 0.0))
        if silent_s > GIVEN_UP_AFTER_S:
            self.violated(f"{charge.payment} was charged after checkout had given it up")
