"""Chaos on real processes: every fault in turn, SIGKILL, processes paused past their leases, doubled requests.

`make chaos` runs it whole, on SQLite and on PostgreSQL; the suite has a short version. What is true in the end is
what the providers' own books say.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flags.contract import PRIMARY_PROVIDER, UNKNOWN_OUTCOME_POLICY
from flags.filewriter import FileFlagWriter
from tests.e2e.house import House, eventually
from tests.e2e.reckoning import Books, Ledger, disagreements, history
from tests.e2e.shoppers import Shoppers, Shopping, shopping_list, turns

PROVIDERS = ("stripe", "adyen")
POLICIES = ("hold", "void-and-fail-over")
WEBHOOKS = ("ok", "duplicate", "reorder", "hold")
FAULTS: tuple[Mapping[str, Any], ...] = (
    {"mode": "lose_reply"},
    {"mode": "down"},
    {"mode": "errors", "acts": True},
    {"mode": "decline"},
    {"mode": "errors"},
    {"mode": "drop_request"},
    {"mode": "errors", "acts": True, "stored": True},
    {"mode": "slow"},
    {"mode": "garbage", "acts": True},
    {"mode": "rate_limited"},
    {"mode": "garbage"},
    {"mode": "hang"},
)
"""Every mode of the sandbox. Not among them: an error that is stored for its key while nothing was charged. No
record of the provider's will ever say of it that nothing happened, so it ends before an operator."""


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    payments: int
    kills: int
    pauses: int
    rounds: Sequence[Sequence[str]]
    """The policies under which each fault is tried, provider by provider: one pair for each round of faults."""
    deadline_s: float
    read_s: float
    margin_s: float
    connections: int = 8
    doubled: float = 0.2
    final_within_s: float = 60.0
    seed: int = 20261121

    @property
    def lease_s(self) -> float:
        """How long a process holds a payment."""
        return self.deadline_s + self.margin_s


FULL = Scale(500, 10, 5, (POLICIES, POLICIES[::-1]), deadline_s=4, read_s=1.2, margin_s=1)
SHORT = Scale(60, 2, 1, (POLICIES,), deadline_s=3, read_s=0.4, margin_s=0.4, final_within_s=15)


@dataclass
class Report:
    """What happened, and what is wrong with it."""

    database: str
    wanted: Sequence[Shopping]
    kills: Counter[str] = field(default_factory=Counter)
    pauses: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    chaos_s: float = 0.0
    final_s: float | None = None
    ledger: Ledger | None = None
    webhooks: Counter[str] = field(default_factory=Counter)
    tracebacks: int = 0
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The table."""
        answers = Counter(
            "cut" if each.status is None else f"{each.status} {each.problem or ''}".strip()
            for shopping in self.wanted
            for each in shopping.answers
        )
        yield f"{'database':<22}{self.database}"
        yield f"{'payments asked for':<22}{len(self.wanted)} in {self.chaos_s:.0f} s of chaos"
        yield f"{'answers':<22}{_counted(answers)}"
        yield f"{'faults':<22}{_counted(self.faults)}"
        yield f"{'killed':<22}{_counted(self.kills)}"
        yield f"{'paused past the lease':<22}{_counted(self.pauses)}"
        yield f"{'webhooks':<22}{_counted(self.webhooks)}"
        if self.ledger is not None:
            rows, sends = self.ledger.payments, sum(each["sends"] for each in self.ledger.attempts)
            yield f"{'payments':<22}{len(rows)}: {_counted(Counter(each['status'] for each in rows))}"
            outcomes = Counter(str(each["outcome"]) for each in self.ledger.attempts)
            yield f"{'attempts':<22}{len(self.ledger.attempts)} ({sends} sends): {_counted(outcomes)}"
            kinds = Counter(f"{each['kind']} {each['state']}" for each in self.ledger.operations)
            yield f"{'operations':<22}{_counted(kinds)}"
            yield f"{'rounds of resolving':<22}{self.ledger.events.get('claimed', 0)}"
            yield f"{'notices not applied':<22}{self.ledger.waiting_notices}"
        yield f"{'tracebacks in the log':<22}{self.tracebacks}"
        final = "NOT FINAL" if self.final_s is None else f"{self.final_s:.1f} s"
        yield f"{'all final after':<22}{final}"
        yield f"{'disagreements':<22}{len(self.wrong)}"
        yield from (f"  {line}" for line in self.wrong)


def _counted(counter: Counter[str]) -> str:
    return " · ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


class Chaos:
    """One run over a house of its own."""

    def __init__(self, folder: Path, database_url: str | None, scale: Scale) -> None:
        self._scale = scale
        self._rng = random.Random(scale.seed)
        self._wanted = shopping_list(scale.payments, self._rng)
        self._folder = folder
        settings = {
            "ROUTER_WEB_PROCESSES": "2",
            "ROUTER_DEADLINE_SECONDS": str(scale.deadline_s),
            "ROUTER_LEASE_MARGIN_SECONDS": str(scale.margin_s),
            "ROUTER_READ_TIMEOUT_SECONDS": str(scale.read_s),
            "ROUTER_CONNECT_TIMEOUT_SECONDS": "0.5",
            "ROUTER_BREAKER_OPEN_WAIT_SECONDS": "0.5",
            "ROUTER_BREAKER_MINIMUM_CALLS": "15",
            "ROUTER_PARKED_RETRY_SECONDS": "1",
            "ROUTER_FLIP_AFTER_SECONDS": "3600",
        }
        if database_url is not None:
            settings["ROUTER_DATABASE_URL"] = database_url
        self.house = House(folder, **settings)
        self.database_url = database_url or f"sqlite:///{self.house.run_dir / 'ledger.db'}"
        self._flags = FileFlagWriter(self.house.flags_file, PROVIDERS)
        self._paused: list[tuple[float, Sequence[int]]] = []
        self.report = Report(self.database_url.partition(":")[0].partition("+")[0], self._wanted)

    def run(self) -> Report:
        """Chaos, then peace, then the reckoning."""
        scale = self._scale
        requests = turns(self._wanted, scale.doubled, self._rng)
        shoppers = Shoppers(
            self.house.url,
            self.house.env["ROUTER_API_KEY"],
            requests,
            connections=scale.connections,
            read_s=scale.lease_s + 2,
        )
        begun = time.monotonic()
        try:
            with self._second_worker():
                shoppers.start()
                self._disturb(shoppers, len(requests))
                shoppers.join(120)
                self._continue(everything=True)
                self.report.chaos_s = time.monotonic() - begun
                self._reckon(shoppers)
        finally:
            self._continue(everything=True)
        return self.report

    # ------------------------------------------------------------ trouble

    def _disturb(self, shoppers: Shoppers, requests: int) -> None:
        """Everything that is to go wrong, spread over the requests."""
        steps = [
            (fault, provider, policies[index % 2], next_webhooks)
            for policies in self._scale.rounds
            for (index, fault), next_webhooks in zip(enumerate(FAULTS), itertools.cycle(WEBHOOKS))
            for provider in PROVIDERS
        ]
        plan: list[tuple[float, Callable[[], None]]] = []
        for number, step in enumerate(steps):
            plan.append((number / len(steps), lambda step=step: self._break(*step)))  # type: ignore[misc]
        for number in range(self._scale.kills):
            role = ("web", "worker")[number % 2]
            plan.append(((number + 0.5) / self._scale.kills, lambda role=role: self._kill(role)))  # type: ignore[misc]
        for number in range(self._scale.pauses):
            role = ("web", "worker")[number % 2]
            plan.append(((number + 0.3) / self._scale.pauses, lambda role=role: self._pause(role)))  # type: ignore[misc]
        plan.sort(key=lambda each: each[0])
        while shoppers.busy or plan:
            while plan and (shoppers.done >= plan[0][0] * requests or not shoppers.busy):
                plan.pop(0)[1]()
            self._continue()
            time.sleep(0.02)

    def _break(self, fault: Mapping[str, Any], provider: str, policy: str, webhooks: str) -> None:
        """One provider has this fault, and is the primary; the other is well."""
        other = PROVIDERS[provider == "stripe"]
        self.house.control("PUT", f"/{other}", {"mode": "ok"})
        self._flags.set(PRIMARY_PROVIDER, provider, expected=None, comment="chaos")
        self._flags.set(UNKNOWN_OUTCOME_POLICY, policy, expected=None, comment="chaos")
        more: dict[str, Any] = {"rate": self._rng.choice((0.6, 1.0)), "calls": self._rng.choice(("all", "authorize"))}
        if fault["mode"] == "slow":
            # It acts after the router has stopped listening.
            more["latency_ms"] = round(self._scale.read_s * 1500)
        self.house.control("PUT", f"/{provider}", {**fault, **more})
        for each in PROVIDERS:
            self.house.control("PUT", f"/{each}/webhooks", {"mode": webhooks})
        self.report.faults[str(fault["mode"])] += 1

    def _kill(self, role: str) -> None:
        """SIGKILL the role's main process, or one of its children."""
        pids = eventually(lambda: self.house.pids()[role], 5)
        pid = pids[0] if role == "worker" or self._rng.random() < 0.5 else self._rng.choice(pids[1:] or pids)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.report.kills[role if pid == pids[0] else f"{role}'s child"] += 1

    def _pause(self, role: str) -> None:
        """SIGSTOP everything of the role that works on payments, until its leases are over."""
        pids = eventually(lambda: self.house.pids()[role][role == "web" :], 5)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._paused.append((time.monotonic() + self._scale.lease_s + 0.7, pids))
        self.report.pauses[role] += 1

    def _continue(self, *, everything: bool = False) -> None:
        """SIGCONT whoever was paused for long enough."""
        now = time.monotonic()
        for until, pids in [each for each in self._paused if everything or each[0] <= now]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            self._paused.remove((until, pids))

    @contextlib.contextmanager
    def _second_worker(self) -> Iterator[None]:
        """One more worker, which nobody pauses: it takes over what a stopped process holds."""
        house = self.house
        ports = {name: house.env[f"ROUTER_SANDBOX_{name.upper()}_PORT"] for name in PROVIDERS}
        urls = {f"ROUTER_{name.upper()}_BASE_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
        with (self._folder / "second-worker.log").open("w") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "router", "worker"], env=house.env | urls, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield
        finally:
            worker.kill()
            worker.wait()

    # ------------------------------------------------------------ reckoning

    def _reckon(self, shoppers: Shoppers) -> None:
        for provider in PROVIDERS:
            self.house.control("PUT", f"/{provider}", {"mode": "ok"})
            self.house.control("PUT", f"/{provider}/webhooks", {"mode": "ok"})
        report, ended = self.report, time.monotonic()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not Ledger.read(self.database_url).unsettled(), self._scale.final_within_s)
            report.final_s = time.monotonic() - ended
        # Notices may still change amounts (a capture that was only received): they are part of what has to agree.
        with contextlib.suppress(AssertionError):
            eventually(lambda: not Ledger.read(self.database_url).waiting_notices, 5)
        for provider in PROVIDERS:
            state = self.house.webhooks(provider)
            report.webhooks.update({name: state[name] for name in ("sent", "acknowledged", "failed", "waiting")})
        report.ledger = Ledger.read(self.database_url)
        logs = (self.house.log, self._folder / "second-worker.log")
        report.tracebacks = sum(each.read_text().count("Traceback (most recent call last)") for each in logs)
        report.wrong = [f"not final: {line}" for line in report.ledger.unsettled()]
        report.wrong += disagreements(report.ledger, Books.read(self.house), self._wanted)
        report.wrong += shoppers.faults

    def history(self, reference: str) -> Sequence[str]:
        """Everything on record of a payment."""
        return history(self.database_url, reference)


def run_chaos(folder: Path, database_url: str | None, scale: Scale, *, explain: bool = False) -> Report:
    """One run; with `explain`, each disagreement is followed by the payment's history."""
    chaos = Chaos(folder, database_url, scale)
    try:
        report = chaos.run()
        if explain:
            wrong = {line.split(": ")[line.startswith("not final")] for line in report.wrong}
            for reference in sorted(each for each in wrong if each.startswith("CHAOS-"))[:5]:
                report.wrong += chaos.history(reference)
        return report
    finally:
        chaos.house.stop()
