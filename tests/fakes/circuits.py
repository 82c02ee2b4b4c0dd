"""Circuits of one process over a real ledger, as recovery sees them."""

from __future__ import annotations

from collections.abc import Iterable

from router.breaker import Breaker, BreakerSettings
from router.clock import Clock
from router.ledger.engine import Database
from router.transitions import Snapshot, State, Transition, following
from router.windows import Thresholds
from tests.fakes.ledger import FlakyStore


class Circuits:
    """Satisfies `router.recovery.Health`: real breakers and a real ledger, and the stage's calls as told."""

    def __init__(
        self, providers: Iterable[str], settings: BreakerSettings, database: Database, *, clock: Clock, actor: str
    ) -> None:
        self.settings = settings
        self.actor = actor
        self.store = FlakyStore(database)
        self.calls: dict[str, tuple[int, int]] = {}
        """Real calls and failures of the present stage; none where not told."""
        self._clock = clock
        self._breakers = {name: Breaker(name, settings, wall=clock.now, actor=actor) for name in providers}

    def snapshot(self, provider: str) -> Snapshot:
        return self._breakers[provider].snapshot()

    def propose(self, transition: Transition) -> bool:
        written = self.store.append(transition)
        if written:
            self._breakers[transition.provider].adopt(transition)
        return written

    def stage_calls(self, provider: str) -> tuple[int, int]:
        return self.calls.get(provider, (0, 0))

    def retune(self, provider: str, thresholds: Thresholds) -> None:
        """As the provider's own past tells."""
        self._breakers[provider].retune(thresholds)

    def admits(self, provider: str) -> bool:
        """Whether a payment may call this provider."""
        return self._breakers[provider].admit(self._clock.monotonic()) is not None

    def sync(self) -> None:
        """Follow what the ledger holds."""
        for transition in self.store.latest(self._breakers):
            self._breakers[transition.provider].adopt(transition)

    def move(self, provider: str, state: State, **more: object) -> Transition:
        """Write and follow a transition, as somebody else's decision."""
        last = self.snapshot(provider).last
        transition = following(
            last,
            state,
            provider=provider,
            at=self._clock.now(),
            actor="test",
            reason="told to",
            **more,  # type: ignore[arg-type]  # as `following` has them
        )
        assert self.propose(transition)
        return transition
