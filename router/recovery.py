"""Finds out whether a provider whose circuit is open works again, and gives it its traffic back in stages.

Card schemes frown on trying a broken provider with customers' cards, so the first stage is synthetic probes: calls
that move no money. Any number of processes may run this; the ledger's compare-and-set lets one of them probe. What
is decided here needs no one process to go on: whoever wrote a transition, any other may write the next.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from providers.contract import Provider, Timeouts
from router.ages import Ages
from router.breaker import BreakerSettings
from router.clock import Clock
from router.ledger.unavailable import LedgerUnavailableError
from router.overrides import released
from router.prober import Prober, ProbeStore, Start, on_a_thread
from router.probing import Decision, ProbeRound, jitter_of
from router.slow_start import WHOLE, Step, first_share, next_share, step
from router.transitions import OVERRIDES, Snapshot, State, Transition, following

log = structlog.get_logger("router.recovery")

PAUSE_S = 1.0
"""After a probe that says nothing of the provider: its place is free again, and is not for a tight loop to use."""


class Health(Protocol):
    """What recovery asks of the circuits: `ProviderHealth`."""

    @property
    def settings(self) -> BreakerSettings: ...
    @property
    def actor(self) -> str:
        """This process, in the record."""

    def snapshot(self, provider: str, /) -> Snapshot:
        """A provider's circuit now."""

    def propose(self, transition: Transition, /) -> bool:
        """Write it and follow it; False when another process was first."""

    def stage_calls(self, provider: str, /) -> tuple[int, int]:
        """Real calls and failures, of all processes, in the circuit's present stage."""


@dataclasses.dataclass(slots=True)
class _Round:
    """Probes of this process: a half-open round, or one for a stage of slow start."""

    probes: ProbeRound
    of: tuple[State, dt.datetime, str]
    """Which transition they were sent under: its identity."""
    slow_call_s: float
    """The provider's own threshold when the round began."""
    paused_until: float = -math.inf


class Recovery:
    """A loop: `run_once` moves each circuit that is due. It never waits for a probe."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        health: Health,
        *,
        probes: ProbeStore,
        timeouts: Timeouts,
        clock: Clock,
        patience: float = 1.0,
        start: Start = on_a_thread,
    ) -> None:
        """`patience` multiplies every wait: 1 in the worker; 2 in a web process, which probes if no worker does."""
        self._names = tuple(providers)
        self._health = health
        self._clock = clock
        self._patience = patience
        self._prober = Prober(providers, probes, actor=health.actor, timeouts=timeouts, clock=clock, start=start)
        self._ages = Ages(clock)
        self._rounds: dict[str, _Round] = {}
        # Rounds whose claim may have been written, though the ledger did not say so; and when they were claimed.
        self._claims: dict[str, tuple[Transition, float]] = {}

    def run_once(self) -> int:
        """One look at all circuits. Answers how many transitions were written. Raises LedgerUnavailableError."""
        self._collect()
        written = sum(self._tend(name) for name in self._names)
        self._prober.write()
        return written

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until a probe has ended, or the time is over."""
        self._prober.wait_for_news(timeout_s)

    def wake(self) -> None:
        """End such a wait now."""
        self._prober.wake()

    def _tend(self, name: str) -> int:
        circuit = self._health.snapshot(name)
        age_s = self._ages.of(circuit) / self._patience
        settings = self._health.settings
        round_ = self._rounds.get(name)
        if round_ is not None and (circuit.last is None or round_.of != circuit.last.identity):
            del self._rounds[name]  # somebody else moved the circuit: what these probes say is old
        if circuit.state is State.OPEN:
            wait_s = settings.wait_s(circuit.failed_rounds, jitter_of(name, circuit.version))
            if circuit.last is not None and circuit.last.is_released:
                wait_s = 0.0  # nobody knows that it is broken: the probes are to say
            return self._begin_round(circuit) if age_s >= wait_s else 0
        if circuit.state is State.HALF_OPEN:
            return self._half_open(circuit, age_s)
        if circuit.state is State.SLOW_START:
            return self._slow_start(circuit, age_s)
        return self._override(circuit) if circuit.state in OVERRIDES else 0

    # ------------------------------------------------------------ half-open

    def _begin_round(self, circuit: Snapshot) -> int:
        now = self._clock.monotonic()
        claim, claimed_at = self._claims.get(circuit.provider) or (None, now)
        last = None if circuit.last is None else circuit.last.identity
        if claim is None or claim.follows != last or now - claimed_at >= self._health.settings.round_deadline_s:
            claim, claimed_at = (
                self._next(circuit, State.HALF_OPEN, "the wait is over: probing", circuit.failed_rounds),
                now,
            )
        try:
            if not self._propose(claim):
                # Another process probes, or the circuit has moved on; or this very claim is written already, which
                # the next look at the ledger tells.
                return 0
        except LedgerUnavailableError:
            # Claimed again, it must be the same: another one would not be known again in the ledger.
            self._claims[circuit.provider] = claim, claimed_at
            raise
        self._claims.pop(circuit.provider, None)
        self._own_round(claim, self._health.settings, self._clock.monotonic())
        probing = self._health.snapshot(circuit.provider)
        return 1 + (self._half_open(probing, self._ages.of(probing)) if probing.last == claim else 0)

    def _half_open(self, circuit: Snapshot, age_s: float) -> int:
        settings, name = self._health.settings, circuit.provider
        claim, _ = self._claims.pop(name, (None, 0.0))
        if claim is not None and claim == circuit.last:
            self._own_round(claim, settings, self._clock.monotonic() - age_s)
        round_ = self._rounds.get(name)
        late = age_s >= settings.round_deadline_s
        if round_ is None:
            return self._reopen(circuit, "the round of probes was not finished", {}) if late else 0
        decision = self._probe(name, round_)
        if decision is None:
            return 0
        figures = round_.probes.figures()
        reason = round_.probes.reason or decision.value
        if decision is Decision.CLOSE and not late:
            share = first_share(settings)
            return self._admit(circuit, share, f"{reason}{_then(share)}", figures)
        return self._reopen(circuit, "the verdict came too late" if decision is Decision.CLOSE else reason, figures)

    def _own_round(self, claim: Transition, settings: BreakerSettings, now: float, *, sent: int = 0) -> _Round:
        # Slow is what is slow for this provider, as for its payments.
        slow_call_s = self._health.snapshot(claim.provider).window.slow_call_s
        fitting = dataclasses.replace(settings, slow_call_s=slow_call_s)
        round_ = _Round(ProbeRound(fitting, now, version=claim.version, sent=sent), claim.identity, slow_call_s)
        self._rounds[claim.provider] = round_
        return round_

    def _probe(self, name: str, round_: _Round) -> Decision | None:
        """Send what may be sent now, learn what has come back, and see what that comes to."""
        while True:
            self._collect()
            now = self._clock.monotonic()
            decision = round_.probes.verdict(now)
            ticket = round_.probes.may_send(now) if now >= round_.paused_until else None
            if decision is not None or ticket is None:
                return decision
            sent = False
            try:
                sent = self._prober.send(name, ticket)
            finally:
                if not sent:
                    round_.probes.settle(ticket, None, False, now)
                    # Sent by another process, most likely: what it learns of it shows in a transition.
                    round_.paused_until = now + self._health.settings.probe_lease_s

    def _collect(self) -> None:
        fault: BaseException | None = None
        for each in self._prober.returned():
            fault = fault or each.fault
            round_ = self._rounds.get(each.provider)
            if round_ is None:
                continue
            slow = each.ended_at - each.began_at >= round_.slow_call_s
            round_.probes.settle(each.ticket, each.healthy, slow, each.ended_at, reason=each.reason)
            if each.healthy is None:
                round_.paused_until = each.ended_at + PAUSE_S
        if fault is not None:
            raise fault

    # ------------------------------------------------------------ slow start

    def _slow_start(self, circuit: Snapshot, age_s: float) -> int:
        settings, name = self._health.settings, circuit.provider
        calls, failures = self._health.stage_calls(name)
        evidence = {"calls": calls, "failures": failures, "share": circuit.share}
        limit = circuit.window.failure_rate_threshold
        todo = step(settings, age_s=age_s, calls=calls, failures=failures, limit=limit)
        healthy = f"{calls - failures} of {calls} calls went well"
        if todo is Step.PROBE:
            round_, sent = self._rounds.get(name), 0
            if round_ is not None and round_.probes.is_older_than(settings.probe_lease_s, self._clock.monotonic()):
                # Its verdict could not be written: what a probe said then says nothing of now.
                sent, round_ = round_.probes.sent, None
            if round_ is None:
                one = dataclasses.replace(settings, probes=1, probes_at_once=1, round_deadline_s=math.inf)
                assert circuit.last is not None, "slow start is a transition's"
                round_ = self._own_round(circuit.last, one, self._clock.monotonic(), sent=sent)
            decision = self._probe(name, round_)
            if decision is Decision.REOPEN:
                # With the probes' figures: no call of a payment opened it.
                told = evidence | dict(round_.probes.figures())
                return self._reopen(circuit, f"in slow start, {round_.probes.reason}", told)
            todo = Step.ADVANCE if decision is Decision.CLOSE else Step.WAIT
            healthy = "a probe succeeded"
        if todo is Step.FALL_BACK:
            return self._reopen(circuit, f"{failures} of {calls} calls of slow start failed", evidence)
        if todo is Step.ADVANCE:
            share = next_share(settings, circuit.share)
            return self._admit(circuit, share, f"at {circuit.share:.0%}, {healthy}{_then(share)}", evidence)
        return 0

    # ------------------------------------------------------------ transitions

    def _override(self, circuit: Snapshot) -> int:
        """The end of an operator's override, where it has one."""
        grace_s = (self._patience - 1) * self._health.settings.open_wait_s
        if circuit.until is None or (self._clock.now() - circuit.until).total_seconds() < grace_s:
            return 0
        if circuit.last is None:
            return 0
        reason = f"the override ({circuit.state.value}) is over"
        return self._propose(released(circuit.last, at=self._clock.now(), actor=self._health.actor, reason=reason))

    def _admit(self, circuit: Snapshot, share: float, reason: str, evidence: Mapping[str, Any]) -> int:
        if share >= WHOLE:
            return self._propose(self._next(circuit, State.CLOSED, reason, 0, evidence=evidence))
        # Not forgotten before it has closed: a provider that fails in slow start has not been well.
        rounds = circuit.failed_rounds
        return self._propose(self._next(circuit, State.SLOW_START, reason, rounds, evidence=evidence, share=share))

    def _reopen(self, circuit: Snapshot, reason: str, evidence: Mapping[str, Any]) -> int:
        return self._propose(self._next(circuit, State.OPEN, reason, circuit.failed_rounds + 1, evidence=evidence))

    def _next(
        self,
        circuit: Snapshot,
        state: State,
        reason: str,
        failed_rounds: int,
        *,
        evidence: Mapping[str, Any] | None = None,
        share: float = WHOLE,
    ) -> Transition:
        return following(
            circuit.last,
            state,
            provider=circuit.provider,
            at=self._clock.now(),
            actor=self._health.actor,
            reason=reason,
            failed_rounds=failed_rounds,
            evidence=evidence,
            share=share,
            age_s=self._ages.of(circuit),
        )

    def _propose(self, transition: Transition) -> int:
        written = self._health.propose(transition)
        if written:
            self._ages.of(self._health.snapshot(transition.provider))  # from now on, whatever the wall clock does
            log.info("circuit", provider=transition.provider, state=transition.state.value, reason=transition.reason)
        return int(written)


def _then(share: float) -> str:
    return ": closed" if share >= WHOLE else f": {share:.0%} of its payments"
