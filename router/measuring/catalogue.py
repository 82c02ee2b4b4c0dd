"""Every figure that a process counts or finds of itself: names, labels, buckets, meaning.

Labels are few and closed: a provider, an outcome, a class of declines, a view. Never a merchant, a payment, a key or
a provider's free text: each of its values would be a series for ever.
"""

from __future__ import annotations

from collections.abc import Iterable

from router.measuring.instruments import Counter, Gauge, Histogram, Shelf

LATENCY_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0),
)
"""10 ms to 30 s: a provider's call, a whole request. Finest around 100 to 500 ms, where providers usually answer."""
SHORT_S = (*(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005), *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5), *(1.0, 2.5, 5.0))
"""What is ours: a decision, a commit."""
TO_FINAL_S = (*LATENCY_S, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0)
"""A usual payment is final with its answer; one that is parked or in doubt, within a day."""

FINAL = frozenset({"authorized", "captured", "declined", "failed", "canceled"})
STATUSES = ("processing", "requires_action", "authorized", "captured", "declined", "parked", "failed", "canceled")
OUTCOMES = ("approved", "declined", "requires_action", "not_executed", "unknown", "canceled")
CALLS = ("authorize", "capture", "void", "refund", "look_up", "complete", "probe")
NOBODY = "none"
"""As a provider: the payment has none; as a failure: there was none."""
FAULTS = ("read", "write", "commit_unknown")
STATUS_CLASSES = ("2xx", "4xx", "5xx")


class Catalogue:
    """One process's instruments, each once. What is sure to come is there from the start, at 0: a first failure is
    an increase then, and not a series that appears."""

    def __init__(self, shelf: Shelf, providers: Iterable[str]) -> None:
        self.providers = tuple(providers)
        self._counted(shelf)
        self._timed(shelf)
        self._found(shelf)
        self._found_of_providers(shelf)
        self._prepare()

    def _counted(self, shelf: Shelf) -> None:
        self.created = Counter(shelf, "pointsman_payments_created", "Payments that were accepted")
        self.payments = Counter(
            shelf,
            "pointsman_payments",
            "Payments that came to a status, by the provider they were with then",
            ("status", "provider"),
        )
        self.attempts = Counter(
            shelf,
            "pointsman_attempts",
            "Attempts that came to an outcome; failure: the decline's class, or what the call said of the provider",
            ("provider", "outcome", "failure"),
        )
        self.calls = Counter(
            shelf,
            "pointsman_provider_calls",
            "Calls of a provider; result: what each said of the provider's health (probes are half-open's)",
            ("provider", "call", "result"),
        )
        self.requests = Counter(
            shelf, "pointsman_http_requests", "HTTP requests by view and class of status", ("endpoint", "status")
        )
        self.refused = Counter(
            shelf, "pointsman_requests_refused", "Requests refused by a limit, by its kind", ("reason",)
        )
        self.places_refused = Counter(
            shelf,
            "pointsman_bulkhead_refused",
            "Attempts not made: the provider's circuit or its bulkhead let none through",
            ("provider",),
        )
        self.faults = Counter(shelf, "pointsman_ledger_faults", "Transactions of the ledger that failed", ("kind",))
        self.rounds = Counter(shelf, "pointsman_loop_rounds", "Rounds of the background loops", ("loop", "result"))
        self.cpu = Counter(shelf, "pointsman_process_cpu_seconds", "CPU time, by role", ("role",))

    def _timed(self, shelf: Shelf) -> None:
        self.call_time = Histogram(
            shelf,
            "pointsman_provider_call_seconds",
            "One call of a provider, the vendor's SDK included",
            ("provider", "call"),
            bounds=LATENCY_S,
        )
        self.request_time = Histogram(
            shelf, "pointsman_http_request_seconds", "A whole HTTP request", ("endpoint",), bounds=LATENCY_S
        )
        self.to_final = Histogram(
            shelf,
            "pointsman_payment_to_final_seconds",
            "From a payment's acceptance to its first final status",
            ("status",),
            bounds=TO_FINAL_S,
        )
        self.deciding = Histogram(
            shelf, "pointsman_decision_seconds", "Reading flags, asking adapters, deciding", bounds=SHORT_S
        )
        self.writing = Histogram(
            shelf,
            "pointsman_ledger_write_seconds",
            "A write to the ledger, from the wait for its turn to the end of its commit",
            bounds=SHORT_S,
        )

    def _found(self, shelf: Shelf) -> None:
        def gauge(name: str, about: str, *labels: str, mode: str = "livesum") -> Gauge:
            return Gauge(shelf, name, about, labels, mode=mode)  # type: ignore[arg-type]  # checked where it is used

        self.processes = gauge("pointsman_processes", "Living processes of this machine, by role", "role")
        self.started = gauge(
            "pointsman_process_start_time_seconds", "When the newest process of a role began", "role", mode="livemax"
        )
        self.sampled = gauge(
            "pointsman_heartbeat_timestamp_seconds",
            "When the process of a role that was silent longest last looked at itself",
            "role",
            mode="livemin",
        )
        self.build = gauge(
            "pointsman_build_info", "1, for each version that runs", "version", "python", mode="livemax"
        )
        self.threads = gauge("pointsman_process_threads", "Threads", "role")
        self.memory = gauge("pointsman_process_resident_memory_bytes", "Resident memory", "role")
        self.descriptors = gauge("pointsman_process_open_fds", "Open file descriptors", "role")
        self.under_way = gauge("pointsman_http_requests_in_progress", "HTTP requests being answered")
        self.web_threads = gauge("pointsman_http_threads", "Requests that can be answered at once")
        self.pool_used = gauge("pointsman_ledger_pool_in_use", "Connections to the ledger in use")
        self.pool_size = gauge("pointsman_ledger_pool_size", "Connections to the ledger that may be in use")
        self.flag_state = gauge(
            "pointsman_flags_state", "1 in the worst state that a process's flags are in", "state", mode="livemax"
        )
        self.flag_source = gauge("pointsman_flags_source_info", "1: where flags come from", "source", mode="livemax")
        self.staleness = gauge(
            "pointsman_flags_staleness_seconds", "Since the flags were last known to be right", mode="livemax"
        )

    def _found_of_providers(self, shelf: Shelf) -> None:
        def gauge(name: str, about: str, *labels: str, mode: str = "livemax") -> Gauge:
            return Gauge(shelf, name, about, ("provider", *labels), mode=mode)  # type: ignore[arg-type]  # the same

        self.state = gauge("pointsman_circuit_state", "1 in the state that the provider's circuit is in", "state")
        self.suspect = gauge("pointsman_circuit_suspect", "1: early warning doubts the provider")
        self.share = gauge(
            "pointsman_circuit_share", "Share of its payments that a recovering provider gets", mode="livemin"
        )
        self.stage_calls = gauge("pointsman_circuit_stage_calls", "Calls in the circuit's present stage")
        self.stage_failures = gauge("pointsman_circuit_stage_failures", "Failures in the circuit's present stage")
        self.places = gauge("pointsman_bulkhead_permits", "Places for payments at a provider", mode="livesum")
        self.places_used = gauge("pointsman_bulkhead_in_use", "Payments that are at a provider now", mode="livesum")
        self.connections = gauge("pointsman_provider_pool_size", "HTTP connections there may be", mode="livesum")
        self.connections_used = gauge("pointsman_provider_pool_in_use", "HTTP connections in use", mode="livesum")

    def _prepare(self) -> None:
        self.created.of()
        self.deciding.of()
        self.writing.of()
        for kind in FAULTS:
            self.faults.of(kind)
        for provider in self.providers:
            self.call_time.of(provider, "authorize")
            self.places_refused.of(provider)
            for outcome in ("approved", "unknown"):
                self.attempts.of(provider, outcome, NOBODY)
