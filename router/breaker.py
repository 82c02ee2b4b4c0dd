"""One provider's circuit, seen from one process. Pure: no I/O, no clock of its own on the way of a call.

The rules are those of resilience4j, with gobreaker's generations, so that a late answer never moves a circuit
that has moved on. CLOSED to OPEN is decided here, at once, on this process's own window and what others tell of
theirs (`absorb`). OPEN to HALF_OPEN and on is decided by the worker, with synthetic probes; every process follows
the ledger's transitions (`adopt`).

`now` is always seconds of the monotonic clock; the wall clock is read only to date a transition.
"""

from __future__ import annotations

import datetime as dt
import enum
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.tally import NEVER, Tally
from router.transitions import ADMITTING, Snapshot, State, Transition, following
from router.windows import FAILED, SLOW, UNREACHABLE, Counts, CountWindow, Limit, Thresholds, TimeWindow


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """How a circuit judges and recovers. Times are seconds, rates are shares from 0 to 1."""

    window_calls: int = 20
    """The last calls that count. Ten failures in a row are half of them: a full outage trips within ten calls."""
    window_s: float | None = None
    """Instead of a number of calls, those of the last so many seconds, in buckets of one."""
    minimum_calls: int = 10
    """Fewer calls than this never trip by a rate; a minimum above a window of calls is capped by it."""
    failure_rate: float = 0.5
    """A share of failures equal to this, or above it, trips."""
    consecutive_failures: int | None = None
    """So many failures in a row trip, before the minimum too; None: they do not."""
    credentials_in_a_row: int = 5
    """So many 401s or 403s with nothing else between: our credentials are refused, and no payment would pass."""
    slow_window_calls: int = 50
    """Slow calls are a matter of more calls than failures are: 30% of 20 would be six that were unlucky."""
    slow_minimum_calls: int | None = None
    """Fewer calls than this never trip for being slow; None: `minimum_calls`. Three slow calls of ten are chance now
    and then, where slow calls come in runs."""
    slow_call_s: float = 3.0
    """A call that takes longer is slow, and counts when it gets there, not when it ends."""
    slow_rate: float = 0.3
    hanging_at_once: int | None = None
    """So many calls of this process that hang at one moment trip, before any minimum: where few calls fit side by
    side, a provider that hangs takes all their places, and no call ends any more. None: they do not."""
    hangs_after_s: float = 3.5
    """How long a call is in flight when it hangs; if its threshold for slow calls is longer, that. At the threshold
    itself, three of six calls at once were a bad moment of a healthy provider 300 times in a million calls."""
    open_wait_s: float = 10.0
    """How long a circuit stays open before the first round of probes."""
    wait_multiplier: float = 1.5
    """The wait grows by this with every failed round."""
    maximum_wait_s: float = 15.0
    """Between rounds of probes, however many failed: what a recovered provider waits at most."""
    wait_jitter: float = 0.1
    """The wait is multiplied by something within 1 ± this, so that circuits do not probe in step."""
    probes: int = 5
    """Synthetic probes of a round, in total."""
    probes_at_once: int = 2
    probe_success_rate: float = 0.9
    """Of a round's probes; equal to this closes. Of five, all."""
    probe_lease_s: float = 10.0
    """A probe that has not returned by then has failed."""
    round_deadline_s: float = 45.0
    """A half-open round unfinished after this re-opens: the worker that ran it is gone."""
    stages: tuple[float, ...] = (0.10, 0.25, 0.50)
    """Slow start's shares of what the router would send; after the last comes all of it."""
    stage_s: float = 10.0
    """How long a stage takes at least."""
    stage_calls: int = 5
    """Healthy calls that a stage wants to see; also the minimum by which slow start falls back on a rate."""

    def wait_s(self, failed_rounds: int, jitter: float = 0.5) -> float:
        """Seconds to wait in OPEN after that many failed rounds. `jitter` in [0, 1) picks the place within
        1 ± `wait_jitter`; 0.5 is the middle.
        """
        longest = max(self.open_wait_s, self.maximum_wait_s)
        # The exponent is capped: a week of failed rounds must not overflow a float.
        wait = min(self.open_wait_s * self.wait_multiplier ** min(failed_rounds, 32), longest)
        return wait * (1 - self.wait_jitter + 2 * self.wait_jitter * jitter)


class Verdict(enum.Enum):
    """What a call that ended says of the provider. One that says nothing is given back (`Breaker.give_back`)."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    """A failure: the provider never acted on it."""
    PROVIDER_ERROR = "provider_error"
    """A failure: the provider's own fault."""
    CREDENTIALS_REFUSED = "credentials_refused"
    """Ours: counts in no window, but a run of them opens the circuit."""


class Permit:
    """Leave for one call; `generation` tells a late answer from a current one."""

    __slots__ = ("at", "counted", "generation", "provider")

    def __init__(self, provider: str, generation: int, at: float) -> None:
        self.provider = provider
        self.generation = generation
        self.at = at
        """When it was admitted, monotonic seconds."""
        self.counted = False
        """It was in flight for too long and counts as slow already."""

    @property
    def accepted(self) -> bool:
        """Whether its call has ended, or was given back, in the state that it was admitted in: what is said of the
        time before says nothing of now."""
        return self.generation == _SPENT


SLOW_START_FAILURES = 2
"""Failures in a row that end a slow start: the provider was broken a moment ago, and one may be bad luck."""

_OK = Verdict.OK
_CODES = {Verdict.UNREACHABLE: FAILED | UNREACHABLE, Verdict.PROVIDER_ERROR: FAILED}
_COUNTING = frozenset({State.CLOSED, State.SLOW_START, State.METRICS_ONLY})
_SPENT = -1
"""The generation of a permit whose call has ended: an answer counts once."""


class Breaker:
    """Thread-safe; the lock is held for arithmetic only, never across a call."""

    def __init__(
        self, provider: str, settings: BreakerSettings, *, wall: Callable[[], dt.datetime], actor: str
    ) -> None:
        self.provider = provider
        self._settings = settings
        self._wall = wall
        self._actor = actor
        self._lock = threading.Lock()
        self._last: Transition | None = None
        # What the ledger is known to hold, and what was decided here on top of it, one upon the other.
        self._written: Transition | None = None
        self._unwritten: deque[Transition] = deque()
        # Which transition has stood since when, monotonic seconds.
        self._stood: tuple[Transition | None, float] = (None, 0.0)
        self._born = wall()
        self._generation = 0
        # The ledger's version with which the present state began; marks and stages do not begin one.
        self._first_version = 0
        self._newly_overdue = 0
        self._overdue: dict[Permit, None] = {}
        self._tally = Tally(
            CountWindow(settings.window_calls) if settings.window_s is None else TimeWindow(settings.window_s),
            CountWindow(settings.slow_window_calls),
            credentials_in_a_row=settings.credentials_in_a_row,
        )
        self._thresholds = Thresholds(settings.slow_call_s, ())
        # Oldest first; those that count as overdue have left it.
        self._in_flight: dict[Permit, None] = {}
        self._would_have_opened: Transition | None = None
        self._enter(State.CLOSED)

    # ------------------------------------------------------------ the way of a call

    def admit(self, now: float) -> Permit | None:
        """A permit for a customer's payment, or None while the circuit lets none through."""
        with self._lock:
            if not self._admitting:
                return None
            permit = Permit(self.provider, self._generation, now)
            if self._counting:
                self._in_flight[permit] = None
            return permit

    def record(self, permit: Permit, verdict: Verdict, now: float) -> Transition | None:
        """Learn how an admitted call ended. The transition that this causes, if it does, is already in force here.

        The answer to a call that was admitted in another generation changes nothing, nor does a second answer.
        """
        with self._lock:
            if permit.generation != self._generation or not self._counting:
                return None
            tally = self._tally
            permit.generation = _SPENT
            if permit.counted:
                tally.in_flight_overdue -= 1
                del self._overdue[permit]
                code = SLOW
            else:
                del self._in_flight[permit]
                code = SLOW if now - permit.at > tally.slow_call_s else 0
            if verdict is _OK:
                if tally.calm and not code:
                    return None
                tally.add(code, now, permit.counted)
            elif verdict is Verdict.CREDENTIALS_REFUSED:
                tally.add_refused()
            else:
                tally.add(code | _CODES[verdict], now, permit.counted)
            return self._judge(now)

    def give_back(self, permit: Permit) -> None:
        """The call said nothing of the provider, or was interrupted: it counts nowhere."""
        with self._lock:
            if permit.generation != self._generation or not self._counting:
                return
            permit.generation = _SPENT
            if permit.counted:
                self._tally.in_flight_overdue -= 1
                del self._overdue[permit]
            else:
                del self._in_flight[permit]

    # ------------------------------------------------------------ beside the calls

    def tick(self, now: float) -> Transition | None:
        """Count the calls that have been in flight for too long, as slow, at this moment; and judge."""
        with self._lock:
            if not self._counting:
                return None
            overdue = []
            for permit in self._in_flight:
                if now - permit.at <= self._tally.slow_call_s:
                    break  # the oldest come first
                overdue.append(permit)
            for permit in overdue:
                del self._in_flight[permit]
                permit.counted = True
                self._overdue[permit] = None
                self._tally.add_overdue(now)
            self._newly_overdue += len(overdue)
            hangs_after_s = max(self._settings.hangs_after_s, self._tally.slow_call_s)
            self._tally.hanging = sum(now - permit.at > hangs_after_s for permit in self._overdue)
            self._tally.expire(now)
            return self._judge(now)

    def take_newly_overdue(self) -> int:
        """How many calls `tick` has counted as slow since this was asked last: for the other processes to hear."""
        with self._lock:
            taken, self._newly_overdue = self._newly_overdue, 0
            return taken

    def absorb(self, counts: Counts, now: float, *, version: int | None = None) -> Transition | None:
        """Count the calls that other processes made since the last time, their failures spread evenly among them.

        `version`: the circuit's, when they ended. Calls of a state before the present one change nothing.
        """
        with self._lock:
            if not self._counting or (version is not None and version < self._first_version):
                return None
            self._tally.absorb(counts, now)
            return self._judge(now)

    def retune(self, thresholds: Thresholds) -> None:
        """Judge by these from now on."""
        with self._lock:
            self._thresholds = thresholds
            self._set_limits()

    def mark(
        self, suspect: bool, *, expected: Transition | None, reason: str, evidence: Mapping[str, Any]
    ) -> Transition | None:
        """Mark a closed circuit as suspect, or take the mark away; the transition, in force here already.

        None when `expected` is not its last transition any more: it has moved since it was looked at.
        """
        with self._lock:
            if self._last is not expected or self._state is not State.CLOSED:
                return None
            transition = following(
                expected,
                State.CLOSED,
                provider=self.provider,
                at=self._wall(),
                actor=self._actor,
                reason=reason,
                evidence=evidence,
                suspect=suspect,
            )
            self._decided(transition)
            return transition

    # ------------------------------------------------------------ the ledger

    def unwritten(self) -> Transition | None:
        """The first of the transitions decided here that the ledger is not known to hold; they are in force already.

        In the order of their versions: each is to be written before the next is asked for.
        """
        with self._lock:
            return self._unwritten[0] if self._unwritten else None

    def written(self, transition: Transition) -> None:
        """The ledger holds this, which `unwritten` answered."""
        with self._lock:
            if self._unwritten and self._unwritten[0] is transition:
                self._written = self._unwritten.popleft()

    def adopt(self, transition: Transition) -> bool:
        """Follow a transition that the ledger holds; one that is older than those known changes nothing.

        The ledger is the truth: what was decided here and not written falls, all of it, when the ledger holds
        another in its place. Who lost must know the moment and the incident that were written. So it is with what
        was written, where the ledger has lost it (`go_back`) and holds another of that version now.
        """
        with self._lock:
            written = self._written
            if written is not None and (
                transition.version < written.version
                or (transition.version == written.version and transition.identity == written.identity)
            ):
                return False
            if transition in self._unwritten:
                while self._written != transition:
                    self._written = self._unwritten.popleft()
                return False
            self._unwritten.clear()
            self._written = self._last = transition
            if not _goes_on(written, transition):
                self._first_version = transition.version
                self._enter(transition.state)
            elif self._state is not transition.state:
                # Our opening fell, because a mark or a stage came first that left the state as it was. What made us
                # decide still stands in the windows, and decides again at the next tick.
                self._enter(transition.state, keep=True)
            # Else a mark or a stage: calls in flight and what is counted stay what they are.
            return True

    def go_back(self, transition: Transition | None, *, expected: Transition | None) -> bool:
        """Follow the ledger to an older transition (None: to none): it has lost what came after.

        False when `expected` is not the last written one any more: it has moved since it was looked at.
        """
        with self._lock:
            if self._written is not expected:
                return False
            self._unwritten.clear()
            self._written = self._last = transition
            self._first_version = 0 if transition is None else transition.version
            self._enter(State.CLOSED if transition is None else transition.state)
            return True

    def stood(self, transition: Transition | None, since: float) -> None:
        """Learn since when a transition has stood, in monotonic seconds: slow start's time is the incident's, and is
        written with what ends it. One that nobody told of counts by the wall clock.
        """
        with self._lock:
            self._stood = transition, since

    @property
    def last_written(self) -> Transition | None:
        """The last transition that the ledger is known to have held."""
        return self._written

    @property
    def last(self) -> Transition | None:
        """What brought the circuit where it is; None: it has never left CLOSED.

        One look, so never torn, and without the lock: every decision asks this of every provider, and threads that
        wait for a lock hand the interpreter round at each one (measured: half a decision's time, at eight threads).
        """
        return self._last

    @property
    def state(self) -> State:
        """The state now, without the cost of a snapshot."""
        return self._state

    @property
    def version(self) -> int:
        """The ledger's, as far as it is known here: what calls that end now belong to."""
        written = self._written
        return 0 if written is None else written.version

    @property
    def first_version(self) -> int:
        """The ledger's version with which the present state began."""
        return self._first_version

    @property
    def would_have_opened(self) -> Transition | None:
        """In METRICS_ONLY: what would have opened the circuit, made once; None again when the calls are well."""
        return self._would_have_opened

    def snapshot(self, now: float | None = None) -> Snapshot:
        """The circuit now. With `now`, a window of time lets go of what is past first."""
        with self._lock:
            if now is not None:
                self._tally.expire(now)
            last = self._last
            return Snapshot(
                provider=self.provider,
                state=self._state,
                version=0 if last is None else last.version,
                since=self._born if last is None else last.began,
                share=1.0 if last is None else last.share,
                suspect=last is not None and last.suspect,
                until=None if last is None else last.until,
                window=self._tally.window(),
                slow=self._tally.slow(),
                last=last,
            )

    # ------------------------------------------------------------ inside the lock

    def _judge(self, now: float) -> Transition | None:
        """Open if what is counted says so."""
        reason = self._tally.fault()
        if reason is None:
            self._would_have_opened = None
            return None
        if self._state is State.METRICS_ONLY:
            self._would_have_opened = self._would_have_opened or self._opening(reason, now)
            return None
        transition = self._opening(reason, now)
        self._decided(transition)
        self._enter(State.OPEN)
        return transition

    def _decided(self, transition: Transition) -> None:
        self._last = transition
        self._unwritten.append(transition)

    def _opening(self, reason: str, now: float) -> Transition:
        # A provider that fails in slow start has not been well: it waits longer, as after a failed round of probes.
        last = self._last
        rounds = last.failed_rounds + 1 if last is not None and last.state is State.SLOW_START else 0
        return following(
            self._last,
            State.OPEN,
            provider=self.provider,
            at=self._wall(),
            actor=self._actor,
            reason=reason,
            failed_rounds=rounds,
            evidence=self._tally.evidence(),
            age_s=None if last is None or last is not self._stood[0] else max(0.0, now - self._stood[1]),
        )

    def _enter(self, state: State, *, keep: bool = False) -> None:
        """A state begins: calls in flight belong to the one before."""
        self._state = state
        self._generation += 1
        self._admitting = state in ADMITTING
        self._counting = state in _COUNTING
        self._in_flight = {}
        self._overdue = {}
        self._would_have_opened = None
        self._tally.in_flight_overdue = self._tally.hanging = 0
        if self._counting and not keep:
            # Yesterday's failures say nothing of today. A circuit that opens keeps its figures, to be looked at.
            self._tally.clear()
        self._set_limits()

    def _set_limits(self) -> None:
        settings, thresholds = self._settings, self._thresholds
        starting = self._state is State.SLOW_START
        minimum = settings.stage_calls if starting else settings.minimum_calls
        slow_minimum = minimum if settings.slow_minimum_calls is None else settings.slow_minimum_calls
        if starting:
            slow_minimum = min(slow_minimum, 2 * settings.stage_calls)
        most = minimum if settings.window_s is not None else settings.window_calls
        in_a_row = settings.consecutive_failures or NEVER
        self._tally.judge_by(
            Limit(settings.failure_rate, min(minimum, most), thresholds.failures_needed),
            Limit(settings.slow_rate, min(slow_minimum, settings.slow_window_calls)),
            slow_call_s=thresholds.slow_call_s,
            in_a_row=min(in_a_row, SLOW_START_FAILURES) if starting else in_a_row,
            hanging_at_once=settings.hanging_at_once or NEVER,
        )


def _goes_on(last: Transition | None, transition: Transition) -> bool:
    """Whether a transition after `last` marks or stages the state that the circuit is in, and begins none."""
    if last is None:
        return transition.version == 1 and transition.state is State.CLOSED and transition.suspect
    return transition.state is last.state and transition.since is not None and transition.began == last.began
