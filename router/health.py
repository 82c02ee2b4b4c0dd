"""The providers' health as one process knows it: for each a circuit, a bulkhead, a resend budget, an early warning.

A payment asks and tells here without waiting for anything: `admit`, and the `Call` that it answers. What is shared
with other processes goes through the ledger, in threads of their own: `sync_once` follows transitions several times
a second, `exchange_once` adds the others' counts about once a second, and `watch_once`, which needs no ledger, looks
at the calls that hang and at what the last calls say together.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import structlog

from providers.contract import Health as HealthSignal
from router.accounts import Restriction
from router.ages import Ages
from router.baseline import Fixed
from router.breaker import Breaker, BreakerSettings, Permit, Verdict
from router.bulkhead import Bulkhead
from router.clock import Clock
from router.early_warning import EarlyWarning
from router.fleet import FleetCounts, Sample, counted, counts_of
from router.incidents import begins_incident
from router.ledger.counts import hour_of
from router.ledger.unavailable import LedgerUnavailableError
from router.limits.shares import Entry, Places
from router.reported import Lesson, Reports
from router.resend_budget import ResendBudget
from router.transitions import ADMITTING, Snapshot, State, Transition
from router.trickle import Trickle
from router.windows import Counts, Thresholds

SYNC_INTERVAL_S = 0.2
"""Design: processes of one machine follow a transition within 250 ms; reading a few rows takes a few of them."""
EXCHANGE_INTERVAL_S = 1.0
WATCH_INTERVAL_S = 0.1
OPERATIONS_WHILE_OPEN = 4
"""Captures, voids and refunds that may be under way at once to a provider whose circuit lets no payment through."""
TRYING = (State.OPEN, State.HALF_OPEN)
"""No payment is let through, and probes are to say when."""
NOTHING_FIXED = Fixed()
SUSPECT_SHARE = 0.5
"""Of its payments a suspect provider keeps so many: enough to see it recover."""
CALM_S = 30.0
"""A suspect provider must have been calm for so long: by then a process that has just begun has heard the others."""
BASELINE_HOURS = 24
STRANGERS_CALM_S = 600.0
"""A process that has seen too few calls to judge leaves a mark to those that can; after so long there is none, or
whoever set it would have faded it (`early_warning.FADES_BY_HALF_S`) or lives no more."""
ENOUGH_TO_CLEAR = 500
"""Calls, its own or others', that a process must have heard under a mark that it never agreed with before it takes it
away: one that began a moment ago is calm because it has heard nothing."""
LOST_AFTER_LOOKS = 3
"""So many looks in a row at a ledger that ends before what it held are time for whoever decided the lost transition
to write it again; after them it is gone, and what the ledger has is followed."""
SETTLED_S = 2.0
"""What others tell for so long after a process began may be of the time before, if it could not read the past."""

log = structlog.get_logger("router.health")

HearCalls = Callable[[str, int, int, float], None]
"""Provider, calls that ended, failures among them, and when, in seconds since 1970."""

_VERDICTS: Mapping[HealthSignal, Verdict | None] = {
    HealthSignal.OK: Verdict.OK,
    HealthSignal.UNREACHABLE: Verdict.UNREACHABLE,
    HealthSignal.PROVIDER_ERROR: Verdict.PROVIDER_ERROR,
    HealthSignal.CREDENTIALS_REFUSED: Verdict.CREDENTIALS_REFUSED,
    HealthSignal.IGNORED: None,
}
"""What a send's signal says of the provider; None: nothing."""


class TransitionStore(Protocol):
    """Where transitions are shared: the ledger."""

    def append(self, transition: Transition) -> bool:
        """Commit; False when it does not follow the circuit's last one (`Transition.follows`)."""

    def holds(self, transition: Transition) -> bool:
        """Whether this very transition is written, however the circuit went on."""

    def latest(self, providers: Iterable[str]) -> Sequence[Transition]:
        """The last transition of each of these circuits."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether, and for which share of its payments, a provider may be asked now."""

    state: State
    share: float
    why: str | None
    """Why the share is less than all."""
    busy: bool
    withheld: str | None = None
    """Why it is not to be asked at all, whatever its circuit says."""


@dataclass(slots=True)
class _Mark:
    """That a circuit is suspect, as this process sees it."""

    version: int
    heard: int
    """Calls that the early warning had judged when the mark came."""
    agreed: bool
    """This process's own detectors have seen the trouble too: then they know when it is over."""


class _Guarded:
    """One provider's guards in this process."""

    def __init__(
        self, name: str, settings: BreakerSettings, fixed: Fixed, *, at_once: int, clock: Clock, actor: str
    ) -> None:
        self.breaker = Breaker(name, settings, wall=clock.now, actor=actor)
        self.bulkhead = Places(at_once)
        self.aside = Bulkhead(OPERATIONS_WHILE_OPEN)
        self.trickle = Trickle()
        self.resends = ResendBudget()
        self.warning = EarlyWarning(name, settings, fixed)
        self.reports = Reports()
        """Of calls that clients made by themselves."""
        self.thresholds: Thresholds | None = None
        """Those that the breaker goes by."""
        self.samples: deque[Sample] = deque()
        """Calls that the early warning has not seen yet."""
        self.calm_since: float | None = None
        self.mark: _Mark | None = None
        """The circuit's, while it is suspect."""
        self.would_have_opened: Transition | None = None
        """What was said already."""
        self.looks_behind = 0
        """Looks in a row at a ledger that ended before what it is known to have held."""


class Call:
    """Leave for one attempt to call its provider; to be used as a context, so that its place is given back."""

    __slots__ = ("_clock", "_guarded", "_health", "_merchant", "_permit", "_provider", "_sends")

    def __init__(self, health: ProviderHealth, provider: str, guarded: _Guarded, clock: Clock, merchant: str) -> None:
        self._health = health
        self._provider = provider
        self._merchant = merchant
        self._guarded = guarded
        self._clock = clock
        self._permit: Permit | None = None
        self._sends = 0

    def begin(self) -> bool:
        """A send begins now; False when the circuit has opened since: then nothing may be sent."""
        self._permit = self._guarded.breaker.admit(self._clock.monotonic())
        self._sends += self._permit is not None
        return self._permit is not None

    def end(self, signal: HealthSignal) -> None:
        """The send that began is over, and says this of the provider."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        verdict, now = _VERDICTS[signal], self._clock.monotonic()
        if verdict is None:
            self._guarded.breaker.give_back(permit)
            return
        if self._sends == 1 and verdict is Verdict.OK:
            self._guarded.resends.first_try_succeeded()
        version = self._guarded.breaker.version
        moved = self._guarded.breaker.record(permit, verdict, now)
        if self._sends == 1 and permit.accepted:
            # A re-send that fails like the first says the same once more: no evidence of its own. Nor is the answer
            # to a call of the time before the circuit opened one of the time after it.
            self._guarded.samples.append(Sample(verdict, now - permit.at, version, permit.counted))
        self._health.moved(moved)

    def may_go_again(self, reason: str | None) -> bool:
        """Whether a send that ended so may be followed by another: the circuit lets it, the budget pays for it."""
        if self._guarded.breaker.snapshot().state not in ADMITTING:
            return False
        return self._guarded.resends.take(after_timeout=reason is not None and "timeout" in reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._permit is not None:
            # Interrupted in the middle of a send: that says nothing of the provider.
            self._guarded.breaker.give_back(self._permit)
        self._guarded.bulkhead.leave(self._merchant)


class ProviderHealth:
    """Every provider's guards in this process. Thread-safe."""

    def __init__(
        self,
        providers: Iterable[str],
        settings: BreakerSettings,
        *,
        store: TransitionStore,
        fleet: FleetCounts,
        at_once: int,
        clock: Clock,
        actor: str,
        fixed: Fixed = NOTHING_FIXED,
        heard: HearCalls | None = None,
        restricted: Callable[[str], Restriction | None] = lambda _provider: None,
        turned_away: Callable[[str], None] = lambda _provider: None,
    ) -> None:
        """`at_once`: payments at one provider at the same time, in this process. `fixed`: thresholds a person set.

        `heard` is told of this process's own calls, once each, and of nobody else's: `router.score_sharing` has its
        own way to the others, which a restart survives. `restricted`: what is held against a provider's account.
        `turned_away` is told of each attempt not let through.
        """
        self._turned_away = turned_away
        self.settings = settings
        self.actor = actor
        self._clock = clock
        self._store = store
        self._fleet = fleet
        self._heard = heard
        self._restricted = restricted
        self._guarded = {
            name: _Guarded(name, settings, fixed, at_once=at_once, clock=clock, actor=actor) for name in providers
        }
        self._wake = threading.Event()
        self._began_at = clock.monotonic()
        self._degraded = False
        # Beginnings of incidents that were proposed, and may be written though the ledger did not say so.
        self._unanswered: dict[str, Transition] = {}
        self._ages = Ages(clock)
        self._looking_at_ages = threading.Lock()

    # ------------------------------------------------------------ what a payment asks

    def admit(self, provider: str, merchant: str = "", *, over_share: list[str] | None = None) -> Call | None:
        """Leave for an attempt at this provider; None while its circuit, or its bulkhead, lets none through.

        A provider that turns away this merchant alone, which has its share of the places, is added to `over_share`.
        """
        guarded = self._guarded[provider]
        if guarded.breaker.snapshot().state not in ADMITTING:
            self._turned_away(provider)
            return None
        entry = guarded.bulkhead.enter(merchant, self._clock.monotonic())
        if entry is Entry.TAKEN:
            return Call(self, provider, guarded, self._clock, merchant)
        self._turned_away(provider)
        if entry is Entry.OVER_SHARE and over_share is not None:
            over_share.append(provider)
        return None

    @contextlib.contextmanager
    def operating(self, provider: str) -> Iterator[bool]:
        """Whether a capture, void or refund may be sent now: always, save for a small limit while no payment may."""
        guarded = self._guarded[provider]
        if guarded.breaker.snapshot().state in ADMITTING:
            yield True
            return
        with guarded.aside.place() as taken:
            yield taken

    @contextlib.contextmanager
    def finding_out(self, provider: str) -> Iterator[bool]:
        """Whether a worker may ask now, by itself, about an existing attempt: nearly never while probes are to say.

        Where an operator has forced the circuit open no probes do, and it is as with `operating`.
        """
        guarded = self._guarded[provider]
        circuit = guarded.breaker.snapshot()
        if circuit.state not in TRYING:
            with self.operating(provider) as free:
                yield free
            return
        incident = None if circuit.last is None else circuit.last.incident
        with guarded.aside.place() as free:
            yield free and guarded.trickle.take(self._clock.monotonic(), incident)

    def held_back(self) -> frozenset[str]:
        """The providers of which next to nothing is found out now: probes are to say when they are well."""
        return frozenset(name for name in self._guarded if self.snapshot(name).state in TRYING)

    def readiness(self, provider: str) -> Readiness:
        """What the decision has to know of a provider."""
        guarded = self._guarded[provider]
        circuit, bulkhead = guarded.breaker.last, guarded.bulkhead
        busy = bulkhead.in_use >= bulkhead.permits
        state = State.CLOSED if circuit is None else circuit.state
        share, why = 1.0, None
        if circuit is not None and circuit.state is State.SLOW_START:
            share, why = circuit.share, f"slow start: {circuit.share:.0%} of its payments"
        elif circuit is not None and circuit.suspect:
            share, why = SUSPECT_SHARE, f"suspect: {SUSPECT_SHARE:.0%} of its payments"
        # Also of one whose circuit has never left CLOSED: an account is restricted while the provider is well.
        withheld, held = None, self._restricted(provider)
        if held is not None:
            share, why, withheld = 0.0, held.why, held.why if held.withheld else None
        return Readiness(state, share, why, busy, withheld)

    def snapshot(self, provider: str) -> Snapshot:
        """A provider's circuit now."""
        return self._guarded[provider].breaker.snapshot()

    def bulkhead(self, provider: str) -> Places:
        """The places for payments at this provider at once, in this process."""
        return self._guarded[provider].bulkhead

    def tuning(self, provider: str) -> Mapping[str, str]:
        """The thresholds that fit this provider, each with its reason."""
        return self._guarded[provider].warning.thresholds(self._clock.monotonic()).reasons

    def would_have_opened(self, provider: str) -> Transition | None:
        """In metrics-only: what would have opened the circuit, while that stands."""
        return self._guarded[provider].breaker.would_have_opened

    def age_s(self, provider: str) -> float:
        """Seconds since the circuit's last transition; a step of the wall clock changes nothing."""
        with self._looking_at_ages:
            return self._ages.of(self.snapshot(provider))

    def is_admitting(self, provider: str) -> bool:
        """Whether payments may call this provider."""
        held = self._restricted(provider)
        return self.snapshot(provider).state in ADMITTING and not (held is not None and held.withheld)

    def is_well(self, provider: str) -> bool:
        """Whether nothing speaks against sending it every payment: in metrics-only, its calls may."""
        circuit = self.snapshot(provider)
        if circuit.suspect or self.would_have_opened(provider) is not None or self._restricted(provider) is not None:
            return False
        return circuit.state in (State.CLOSED, State.BYPASS, State.METRICS_ONLY)

    # ------------------------------------------------------------ what clients tell of calls of their own

    def hear_reported(
        self, provider: str, merchant: str, *, failed: bool, approved: bool | None = None, call: bool = True
    ) -> Lesson:
        """A client has called the provider by itself, and the call failed or not. Answers what that may teach.

        `approved`: the issuer's answer, None without one; `call` False: only the answer to a call that was told.
        It can help to mark the provider as suspect, by `router.reported`; it never moves a circuit otherwise.
        """
        guarded = self._guarded[provider]
        circuit = guarded.breaker.snapshot()
        # By an operator's order every payment is let through, so that the state says nothing of the provider.
        lets_all = circuit.state in (State.CLOSED, State.BYPASS, State.METRICS_ONLY)
        return guarded.reports.hear(
            merchant,
            failed,
            self._clock.monotonic(),
            rates=guarded.warning.rates,
            own_calls=guarded.warning.heard,
            in_trouble=circuit.suspect or not lets_all or guarded.breaker.would_have_opened is not None,
            approved=approved,
            call=call,
        )

    # ------------------------------------------------------------ what this process decides

    def moved(self, transition: Transition | None) -> None:
        """A breaker has decided: the ledger is to hold it."""
        if transition is None:
            return
        self._wake.set()
        _say("warning", "circuit", transition)

    def watch_once(self) -> int:
        """Count the calls that hang, and let the early warning see the last ones. Answers how many circuits moved.

        Needs no ledger, and is quick: to be called several times a second.
        """
        moved = 0
        now = self._clock.monotonic()
        for name, guarded in self._guarded.items():
            opened = guarded.breaker.tick(now)
            self.moved(opened)
            self._tell_what_would_have_opened(guarded)
            circuit = guarded.breaker.snapshot()
            self._count(name, guarded, circuit, now)
            thresholds = guarded.warning.thresholds(now)
            if thresholds is not guarded.thresholds:
                guarded.thresholds = thresholds
                guarded.breaker.retune(thresholds)
            moved += (opened is not None) + self._mark(guarded, circuit, now)
        return moved

    def _tell_what_would_have_opened(self, guarded: _Guarded) -> None:
        said, guarded.would_have_opened = guarded.would_have_opened, guarded.breaker.would_have_opened
        if guarded.would_have_opened is not None and guarded.would_have_opened is not said:
            _say("warning", "would_have_opened", guarded.would_have_opened)

    def _count(self, name: str, guarded: _Guarded, circuit: Snapshot, now: float) -> None:
        """Count for the fleet the calls that ended, and those that hang at the moment when they begin to."""
        if hanging := guarded.breaker.take_newly_overdue():
            counts = Counts(slow=hanging, overdue=hanging)
            self._fleet.add(name, counts, version=guarded.breaker.version, normal=False)
        ended: dict[int, list[Sample]] = {}
        for each in _drained(guarded.samples):
            ended.setdefault(each.version, []).append(each)
        for version, samples in ended.items():
            counts = counted(samples, circuit.window.slow_call_s)
            if self._heard is not None and counts.calls:
                self._heard(name, counts.calls, counts.failures, self._clock.now().timestamp())
            normal = self._warn(guarded, counts, circuit, now, version)
            self._fleet.add(name, counts, version=version, normal=normal)
        if not ended:
            self._warn(guarded, Counts(), circuit, now, circuit.version)

    def _warn(
        self, guarded: _Guarded, counts: Counts, circuit: Snapshot, now: float, version: int, *, normal: bool = True
    ) -> bool:
        """Let the early warning see calls. Answers whether it learned from them.

        It learns nothing where the process that made them did not (`normal`), nor while the circuit is not closed:
        then they say nothing new. Of a state before the present one it hears nothing at all.
        """
        if version < guarded.breaker.first_version:
            return False
        is_watched = circuit.state is State.METRICS_ONLY and guarded.breaker.would_have_opened is None
        if circuit.state is not State.CLOSED and not is_watched:
            guarded.warning.reset()
        healthy = normal and (circuit.state is State.CLOSED or is_watched) and not circuit.suspect
        marked_s = self.age_s(circuit.provider) if circuit.suspect else 0.0
        return guarded.warning.hear(counts, now, healthy=healthy, marked_s=marked_s)

    def _see_mark(self, guarded: _Guarded, circuit: Snapshot, *, warned: bool) -> None:
        """Notice a mark that came or went, whoever set it or took it away."""
        if circuit.suspect:
            if guarded.mark is None or guarded.mark.version != circuit.version:
                guarded.mark = _Mark(circuit.version, guarded.warning.heard, agreed=False)
            guarded.mark.agreed = guarded.mark.agreed or warned
        elif guarded.mark is not None:
            # Another process took it away. To set it again takes new evidence, or the two would go on for ever.
            guarded.mark = None
            guarded.warning.reset()
            guarded.reports.reset()

    def _mark(self, guarded: _Guarded, circuit: Snapshot, now: float) -> int:
        """Mark a closed circuit as suspect, or take the mark away after a calm while. Answers whether it did."""
        if circuit.state is not State.CLOSED:
            guarded.reports.reset()
        self._see_mark(guarded, circuit, warned=guarded.warning.suspect or guarded.reports.suspect(now))
        # Asked again: a mark that another process took away has just reset them.
        warned, mark = guarded.warning.suspect or guarded.reports.suspect(now), guarded.mark
        if circuit.state is not State.CLOSED or warned == circuit.suspect:
            guarded.calm_since = None
            return 0
        told = [each for each in (guarded.warning.reason, guarded.reports.reason(now)) if each]
        reason = f"suspect: {'; '.join(told)}"
        if not warned:
            if guarded.calm_since is None:
                guarded.calm_since = now
            knows = mark is not None and (mark.agreed or guarded.warning.heard - mark.heard >= ENOUGH_TO_CLEAR)
            calm_s = CALM_S if knows and guarded.warning.can_judge else STRANGERS_CALM_S
            if now - guarded.calm_since < calm_s:
                return 0
            reason = f"not suspect any more: calm for {calm_s:.0f} s"
        transition = guarded.breaker.mark(
            warned,
            expected=circuit.last,
            reason=reason,
            evidence=guarded.warning.evidence() | guarded.reports.evidence(now),
        )
        if transition is None:
            return 0  # the circuit has moved in this moment
        guarded.calm_since = None
        guarded.mark = _Mark(transition.version, guarded.warning.heard, agreed=True) if warned else None
        self.moved(transition)
        if warned:
            _say("error", "provider_suspect", transition)
        return 1

    # ------------------------------------------------------------ what processes share

    def sync_once(self) -> int:
        """Write what was decided here, follow what others wrote. Answers how many circuits changed.

        Raises LedgerUnavailableError; what could not be written is kept for the next call. That the ledger is away,
        and that it is back, is said once for the whole process.
        """
        try:
            changed = self._write_and_follow()
        except LedgerUnavailableError as error:
            if not self._degraded:
                _say("error", "degraded", cause=f"the ledger is away, circuits go by this process's calls: {error}")
            self._degraded = True
            raise
        if self._degraded:
            _say("warning", "restored", cause="the ledger is back, circuits are shared again")
        self._degraded = False
        return changed

    def _write_and_follow(self) -> int:
        for guarded in self._guarded.values():
            while (ours := guarded.breaker.unwritten()) is not None:
                if not self._store.append(ours) and not self._store.holds(ours):
                    break  # the ledger holds another: see below
                # Written now, or by a commit whose answer was lost; then nobody has been told yet.
                guarded.breaker.written(ours)
                _tell(ours)
        self._tell_of_lost_answers()
        changed = 0
        # What is known before it is asked cannot be missing from the answer, unless the ledger has lost it.
        known = {name: guarded.breaker.version for name, guarded in self._guarded.items()}
        rows = {row.provider: row for row in self._store.latest(self._guarded)}
        for name, guarded in self._guarded.items():
            row = rows.get(name)
            if (0 if row is None else row.version) < known[name]:
                changed += self._make_good(guarded, row)
                continue
            guarded.looks_behind = 0
            if row is not None and guarded.breaker.adopt(row):
                changed += 1
                _say("info", "circuit", row)
        for name in self._guarded:
            self._see_age(name)
        return changed

    def _see_age(self, provider: str) -> None:
        """From when it was first seen here, whatever the wall clock does."""
        breaker = self._guarded[provider].breaker
        with self._looking_at_ages:
            circuit = breaker.snapshot()
            age_s = self._ages.of(circuit)
        breaker.stood(circuit.last, self._clock.monotonic() - age_s)

    def _tell_of_lost_answers(self) -> None:
        for provider, proposed in list(self._unanswered.items()):
            if self._store.holds(proposed):
                _tell(proposed)
            self._unanswered.pop(provider, None)

    def _make_good(self, guarded: _Guarded, row: Transition | None) -> int:
        """The ledger ends with `row`, before what it held, as after a failover to a copy that lagged behind.

        Whoever knows what the lost transition followed writes it again: none after it would be written otherwise,
        and an operator's order would have a version that is past for everybody. Else the ledger is the truth.
        """
        lost = guarded.breaker.last_written
        if lost is not None and self._store.append(lost):
            guarded.looks_behind = 0
            _say("error", "transition_restored", lost)
            return 0
        guarded.looks_behind += 1
        if guarded.looks_behind < LOST_AFTER_LOOKS or not guarded.breaker.go_back(row, expected=lost):
            return 0
        guarded.looks_behind = 0
        _say("error", "transition_lost", lost)
        return 1

    def exchange_once(self) -> int:
        """Tell the others this process's counts, and count theirs. Answers how many calls of theirs were new.

        Raises LedgerUnavailableError; then this process goes by its own window until the ledger is back.
        """
        total = 0
        for news in self._fleet.exchange():
            guarded = self._guarded.get(news.provider)
            if guarded is None:
                continue
            total += news.counts.calls
            now, circuit = self._clock.monotonic(), guarded.breaker.snapshot()
            self._warn(guarded, news.counts, circuit, now, news.version, normal=news.normal)
            if now - self._began_at > SETTLED_S:
                self.moved(guarded.breaker.absorb(news.counts, now, version=news.version))
        return total

    def restore(self) -> int:
        """Learn what was normal before this process began. Answers from how many calls; at most a day's.

        Raises LedgerUnavailableError; then it learns from its own calls alone.
        """
        hour, now, calls = hour_of(self._clock.now()), self._clock.monotonic(), 0
        for row in self._fleet.history(hour - BASELINE_HOURS + 1):
            guarded = self._guarded.get(row.provider)
            if guarded is not None and row.normal:
                guarded.warning.load(counts_of(row), now, hours_ago=hour - row.hour)
                calls += row.calls
        return calls

    def stage_calls(self, provider: str) -> tuple[int, int]:
        """Calls and failures of all processes in the circuit's present stage."""
        return self._fleet.totals(provider, self.snapshot(provider).version)

    def propose(self, transition: Transition) -> bool:
        """Write a transition decided by the worker or an operator and follow it; False: another process was first."""
        try:
            written = self._store.append(transition)
        except LedgerUnavailableError:
            if begins_incident(transition):
                self._unanswered[transition.provider] = transition
            raise
        if written:
            self._guarded[transition.provider].breaker.adopt(transition)
            self._see_age(transition.provider)
            _tell(transition)
        return written

    def follow(self, transition: Transition) -> bool:
        """Follow a transition that the ledger holds already."""
        return self._guarded[transition.provider].breaker.adopt(transition)

    def wait_for_news(self, timeout_s: float) -> None:
        """Wait until something was decided here, or the time is over."""
        self._wake.wait(timeout_s)
        self._wake.clear()

    def wake(self) -> None:
        """End such a wait now."""
        self._wake.set()


def _tell(written: Transition) -> None:
    """An incident is told once: by whoever wrote its opening, and not with every round of probes that fails."""
    if begins_incident(written):
        _say("error", "circuit_opened", written, incident=written.incident)


def _say(level: str, event: str, transition: Transition | None = None, **about: object) -> None:
    """Tell whoever listens; one that fails must cost neither a transition nor a payment its answer."""
    if transition is not None:
        about |= {"provider": transition.provider, "state": transition.state, "reason": transition.reason}
    with contextlib.suppress(Exception):
        getattr(log, level)(event, **about)


def _drained(samples: deque[Sample]) -> list[Sample]:
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(samples.popleft())
    return taken
