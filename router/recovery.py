"""Finds out whether a provider whose circuit is open works again, without a customer's payment.

Card schemes frown on trying a broken provider with customers' cards, so the worker sends synthetic probes: calls
that move no money. Any number of workers may run; the ledger's compare-and-set lets one of them probe.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from providers.contract import ProbeResult, Provider, Timeouts
from router.breaker import Snapshot, State, following
from router.clock import Clock
from router.health import ProviderHealth

log = structlog.get_logger("router.recovery")


class Recovery:
    """A worker loop: `run_once` moves each circuit that is due."""

    def __init__(
        self, providers: Mapping[str, Provider], health: ProviderHealth, *, timeouts: Timeouts, clock: Clock
    ) -> None:
        self._providers = providers
        self._health = health
        self._timeouts = timeouts
        self._clock = clock
        # When this process first saw each circuit's version, by the clock that cannot step back.
        self._seen: dict[str, tuple[int, float]] = {}

    def run_once(self) -> int:
        """One round over all providers. Answers how many transitions were written."""
        return sum(self._tend(name) for name in self._providers)

    def _tend(self, name: str) -> int:
        settings = self._health.settings
        circuit = self._health.snapshot(name)
        age_s = self._age_s(circuit)
        if circuit.state is State.OPEN and age_s >= settings.wait_s(circuit.failed_rounds):
            return self._round(circuit)
        if circuit.state is State.HALF_OPEN and age_s >= settings.round_deadline_s:
            return self._move(circuit, State.OPEN, "the round of probes was not finished", circuit.failed_rounds + 1)
        return 0

    def _round(self, circuit: Snapshot) -> int:
        """Probe until one fails or enough have succeeded."""
        if not self._move(circuit, State.HALF_OPEN, "the wait is over: probing", circuit.failed_rounds):
            return 0  # another worker probes
        probing = self._health.snapshot(circuit.provider)
        result: ProbeResult | None = None
        for done in range(self._health.settings.probes):
            result = self._providers[circuit.provider].probe(timeouts=self._timeouts)
            if not result.healthy:
                reason = f"probe {done + 1} failed: {result.reason or result.health.value}"
                return 1 + self._move(probing, State.OPEN, reason, circuit.failed_rounds + 1)
        return 1 + self._move(probing, State.CLOSED, f"{self._health.settings.probes} probes succeeded", 0)

    def _move(self, circuit: Snapshot, state: State, reason: str, failed_rounds: int) -> int:
        transition = following(
            circuit.last,
            state,
            provider=circuit.provider,
            at=self._clock.now(),
            actor=self._health.actor,
            reason=reason,
            failed_rounds=failed_rounds,
        )
        written = self._health.propose(transition)
        if written:
            log.info("circuit", provider=circuit.provider, state=state.value, reason=reason)
        return int(written)

    def _age_s(self, circuit: Snapshot) -> float:
        """Seconds in this state: by the wall clock what was before this process saw it, then by its own."""
        now = self._clock.monotonic()
        version, seen_at = self._seen.get(circuit.provider, (-1, 0.0))
        if version != circuit.version:
            before_s = (self._clock.now() - circuit.since).total_seconds()
            seen_at = now - max(0.0, before_s)
            self._seen[circuit.provider] = (circuit.version, seen_at)
        return now - seen_at
