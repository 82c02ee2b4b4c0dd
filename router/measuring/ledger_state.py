"""What only the ledger knows, read at a scrape: what waits, what is behind, what was flipped.

It is the whole service's, and the same whichever process answers: of several machines' figures the highest is taken,
not the sum. One thread reads, and nobody waits for it for long: a ledger that hangs must not make the metrics hang
that would say so.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from router.clock import Clock
from router.ledger.engine import Database
from router.ledger.figures import Figures, Queue
from router.ledger.parked import ParkedLedger
from router.ledger.relays import RelayLedger
from router.ledger.rollups import Rollups
from router.ledger.unavailable import LedgerUnavailableError
from router.ledger.webhook_endpoints import EndpointLedger
from router.reconciliation.matching import DIFFERING
from router.transitions import State

log = structlog.get_logger("router.measuring")

KNOWN_FOR_S = 5.0
"""So long one reading serves: several scrapers cost no more than one."""
WAITED_FOR_S = 2.0
"""A reading takes milliseconds; one that takes longer is shown by the next scrape."""
STALE_AFTER_S = 30.0
"""What was read longer ago is not shown: figures of the past look like figures."""
SETTLED_EVERY_S = 300.0
"""Files come once a day, and their lines are many."""
FLIP_STATES = ("overriding", "requested", "confirmed", "superseded", "needs approval", "failed", "restored")

Reading = Sequence[Metric]


class LedgerState:
    """Reads now and then, one reader at a time, within bounds. Thread-safe."""

    def __init__(self, read: Callable[[], Reading], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._known: tuple[float, float, Reading] | None = None
        """When it was read, how long that took, and what it was."""
        self._up = True

    def collect(self) -> Iterator[Metric]:
        """The families; where the ledger does not answer in time, `pointsman_ledger_up` 0 and what is not old."""
        self._refresh()
        with self._lock:
            known, up = self._known, self._up
            late = self._reader is not None
        fresh = known is not None and self._clock.monotonic() - known[0] <= STALE_AFTER_S
        up = up and (fresh or not late)
        yield _gauge("pointsman_ledger_up", "1: the ledger answers", 1.0 if up else 0.0)
        if known is None or not fresh:
            return
        yield _gauge("pointsman_ledger_state_seconds", "What reading these figures from the ledger took", known[1])
        yield from known[2]

    def _refresh(self) -> None:
        with self._lock:
            reader = self._reader
            if reader is None:
                if self._known is not None and self._clock.monotonic() - self._known[0] < KNOWN_FOR_S:
                    return
                reader = self._reader = threading.Thread(target=self._read_once, name="metrics-ledger", daemon=True)
                reader.start()
        reader.join(WAITED_FOR_S)

    def _read_once(self) -> None:
        begun = self._clock.monotonic()
        known, up = None, False
        try:
            known = self._read()
            up = True
        except LedgerUnavailableError:
            pass  # `pointsman_ledger_up` says it
        except Exception:
            log.exception("ledger_state_not_read")
        now = self._clock.monotonic()
        with self._lock:
            self._up, self._reader = up, None
            if known is not None:
                self._known = (now, now - begun, known)


class StateReader:
    """Reads the families from the ledger. One thread at a time."""

    def __init__(self, database: Database, clock: Clock, providers: Iterable[str]) -> None:
        self._figures = Figures(database)
        self._parked = ParkedLedger(database)
        self._relays = RelayLedger(database)
        self._endpoints = EndpointLedger(database)
        self._rollups = Rollups(database)
        self._clock = clock
        self._versions: dict[str, int] = {}
        # At 0 from the start: a first opening is an increase then.
        self._transitions = Counter({(name, state.value): 0 for name in providers for state in State})
        self._settled: Reading = ()
        self._settled_at: float | None = None

    def read(self) -> Reading:
        """Everything, as of now. Raises LedgerUnavailableError."""
        now = self._clock.now()
        return [
            *self._waiting(now),
            *self._behind(now),
            *self._webhooks_out(now),
            *self._flips(),
            self._moved(),
            *self._differences(now),
        ]

    def _waiting(self, now: dt.datetime) -> Iterator[Metric]:
        parked = self._parked.waiting()
        yield _gauge("pointsman_parked_payments", "Parked payments", parked.depth)
        yield _gauge("pointsman_parked_dead_letters", "Parked payments that wait for a person", parked.dead)
        yield _gauge("pointsman_parked_oldest_age_seconds", "Since the oldest was made", _age(parked.oldest_at, now))
        unresolved, attention = self._figures.unresolved()
        yield from _queue("pointsman_unresolved", "Payments of which something is not known", unresolved, now)
        yield _gauge("pointsman_attention_payments", "Payments in doubt that need a person", attention)
        yield from _queue("pointsman_inbox", "Providers' webhooks that are not applied", self._figures.inbox(), now)
        yield from _queue("pointsman_alerts", "Alerts that nobody was told of yet", self._figures.alerts(), now)

    def _behind(self, now: dt.datetime) -> Iterator[Metric]:
        events = _family("pointsman_relay_lag_events", "Events that a relay has before it", "relay")
        seconds = _family("pointsman_relay_lag_seconds", "Since the oldest of them happened", "relay")
        failing = _family("pointsman_relay_failing_seconds", "Since a relay last delivered what it had", "relay")
        for lag in self._relays.lags(now):
            events.add_metric([lag.relay.name], lag.events)
            seconds.add_metric([lag.relay.name], lag.seconds)
            failing.add_metric([lag.relay.name], _age(lag.relay.failing_since, now))
        yield from (events, seconds, failing)
        with self._rollups.moment() as moment:
            standing = moment.standing()
        yield _gauge("pointsman_rollup_lag_seconds", "What the reports are behind", _age(standing.behind_since, now))
        yield _gauge("pointsman_rollup_building", "1: the reports are being made anew", float(standing.building))

    def _webhooks_out(self, now: dt.datetime) -> Iterator[Metric]:
        backlog = self._endpoints.backlog()
        prefix = "pointsman_webhook"
        yield from _queue(f"{prefix}_deliveries", "Deliveries to send", Queue(backlog.pending, backlog.oldest), now)
        unread = Queue(backlog.unread, backlog.unread_since)
        yield from _queue(f"{prefix}_events", "Events that an endpoint has not been given", unread, now)
        yield _gauge(f"{prefix}_endpoints_failing", "Endpoints that took nothing at the last try", backlog.failing)
        yield _gauge(f"{prefix}_endpoints_disabled", "Endpoints that are switched off", backlog.disabled)

    def _flips(self) -> Iterator[Metric]:
        by_state, newest, overrides = self._figures.flips()
        family = _family("pointsman_flips", "Flips of the primary flag on record, by state", "state")
        for state in dict.fromkeys((*FLIP_STATES, *by_state)):
            family.add_metric([state.replace(" ", "_")], by_state.get(state, 0))
        yield family
        at = 0.0 if newest is None else newest.timestamp()
        yield _gauge("pointsman_flip_last_timestamp_seconds", "When the last flip was decided; 0: never", at)
        yield _gauge("pointsman_overrides_in_force", "Local overrides of the primary in force", overrides)

    def _moved(self) -> Metric:
        # Only what is new is read: their number is what the service has been through in its life.
        for provider, version, state in self._figures.transitions(self._versions):
            self._versions[provider] = version
            self._transitions[provider, state] += 1
        family = CounterMetricFamily(
            "pointsman_circuit_transitions",
            "Transitions of circuits into a state (the whole service's, from the ledger)",
            labels=["provider", "state"],
        )
        for (provider, state), count in self._transitions.items():
            family.add_metric([provider, state], count)
        return family

    def _differences(self, now: dt.datetime) -> Reading:
        asked = self._clock.monotonic()
        if self._settled_at is None or asked - self._settled_at >= SETTLED_EVERY_S:
            about = "Settlement lines of the last 90 days that differ from the ledger, by verdict"
            family = GaugeMetricFamily("pointsman_settlement_differences", about, labels=["provider", "kind"])
            for provider, verdict, count in self._figures.settled(now):
                if verdict in DIFFERING:
                    family.add_metric([provider, verdict], count)
            self._settled, self._settled_at = [family], asked
        return self._settled


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, f"{about} (the whole service's, from the ledger)", value=float(value))


def _family(name: str, about: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, f"{about} (the whole service's, from the ledger)", labels=[label])


def _queue(prefix: str, about: str, queue: Queue, now: dt.datetime) -> Iterator[Metric]:
    yield _gauge(f"{prefix}_waiting", about, queue.count)
    yield _gauge(f"{prefix}_oldest_age_seconds", "Since the oldest of them was made", _age(queue.oldest, now))


def _age(since: dt.datetime | None, now: dt.datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
