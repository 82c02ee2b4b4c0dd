"""What an operator may order of a circuit, whatever the machine thinks; each order names who and why.

A transition like any other: a ledger row that every process follows within a quarter of a second.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Literal

from router.clock import Clock
from router.health import TransitionStore
from router.transitions import ORDERED, OVERRIDES, RELEASED, State, Transition, following

Mode = Literal["automatic", "forced_open", "bypass", "metrics_only", "reset"]
MODES: Mapping[Mode, State | None] = {
    "automatic": None,
    "forced_open": State.FORCED_OPEN,
    "bypass": State.BYPASS,
    "metrics_only": State.METRICS_ONLY,
    "reset": None,
}
"""And the state that each holds the circuit in; None: it decides for itself."""
TRIES = 5
"""Against the machine's own transitions in the same instant."""


class UnknownProviderError(Exception):
    """There is no provider of this name."""


class AlreadyAutomaticError(Exception):
    """The circuit decides for itself already."""


class EndsInThePastError(Exception):
    """`until` is not in the future."""


class AutomaticHasNoEndError(Exception):
    """`until` says when an override ends; there is none."""


class Overrides:
    """Writes an operator's orders. Thread-safe."""

    def __init__(self, providers: Collection[str], store: TransitionStore, *, clock: Clock) -> None:
        self._providers = providers
        self._store = store
        self._clock = clock

    def order(
        self, provider: str, mode: Mode, *, reason: str, by: str, until: dt.datetime | None = None
    ) -> Transition:
        """Put a provider's circuit into this mode, for good or `until` then.

        The same order again changes nothing, and is answered with the first; save a reset, which closes the circuit
        and forgets what was counted each time, whatever it was. Raises UnknownProviderError,
        AlreadyAutomaticError, AutomaticHasNoEndError, EndsInThePastError, LedgerUnavailableError; then nothing has
        changed.
        """
        if provider not in self._providers:
            raise UnknownProviderError
        if until is not None and MODES[mode] is None:
            raise AutomaticHasNoEndError
        for _ in range(TRIES):
            now = self._clock.now()
            if until is not None and until <= now:
                raise EndsInThePastError
            last = next(iter(self._store.latest([provider])), None)
            if last is not None and (MODES[mode], reason, until) == (last.state, last.reason, last.until):
                return last
            transition = self._ordered(provider, mode, last, reason=reason, by=by, until=until, now=now)
            if self._store.append(transition):
                return transition
        msg = f"the circuit of {provider} moves all the time"
        raise RuntimeError(msg)

    def _ordered(
        self,
        provider: str,
        mode: Mode,
        last: Transition | None,
        *,
        reason: str,
        by: str,
        until: dt.datetime | None,
        now: dt.datetime,
    ) -> Transition:
        state = MODES[mode]
        if state is not None:
            return following(last, state, provider=provider, at=now, actor=by, reason=reason, until=until)
        if mode == "reset":
            told = {ORDERED: mode}
            return following(
                last, State.CLOSED, provider=provider, at=now, actor=by, reason=reason, evidence=told, anew=True
            )
        if last is None or last.state not in OVERRIDES:
            raise AlreadyAutomaticError
        return released(last, at=now, actor=by, reason=reason)


def released(last: Transition, *, at: dt.datetime, actor: str, reason: str) -> Transition:
    """The end of an override. What was kept shut is probed first, and at once; what let everything through goes on.

    `Transition.is_released` knows it again. A release is no outage: it begins no incident.
    """
    state = State.OPEN if last.state is State.FORCED_OPEN else State.CLOSED
    evidence = {RELEASED: last.state.value}
    return following(last, state, provider=last.provider, at=at, actor=actor, reason=reason, evidence=evidence)
