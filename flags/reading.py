"""What every reader through the LaunchDarkly SDK shares: the context, the evaluation, the status, the end.

Where the flags come from (LaunchDarkly's stream, a file) is the SDK's data source; everything else is this.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ldclient import Config, Context, LDClient
from ldclient.interfaces import DataSourceErrorInfo, DataSourceState

from flags.contract import PRIMARY_PROVIDER, FlagContext, RoutingFlags, SourceStatus
from flags.values import Report, ValueChecker, WrongValue
from flags.watching import WatchedStore

CLOSE_WAIT_S = 2.0
"""How long `close` waits. The SDK's own close can take half a minute while LaunchDarkly does not answer."""

ROUTER_KEY = "router"
"""The payment context's key when the router itself asks."""

PINS = ("RULE_MATCH", "TARGET_MATCH")
"""The SDK's reasons of a value that is for some and not for everyone."""

State = Literal["initializing", "valid", "interrupted", "off"]
STATES: dict[DataSourceState, State] = {
    DataSourceState.INITIALIZING: "initializing",
    DataSourceState.VALID: "valid",
    DataSourceState.INTERRUPTED: "interrupted",
    DataSourceState.OFF: "off",
}


@dataclass(frozen=True, slots=True)
class _ForAll:
    """What was read of flags that are the same for everyone, while the definitions stay the same."""

    generation: object
    """`WatchedStore.generation` that they were evaluated in."""
    values: Mapping[str, Any]
    others: Sequence[str]
    """The other flags but the primary: whom they are read for matters."""
    flags: RoutingFlags | None
    """Where every flag is the same for everyone."""


class SdkFlags:
    """A `FlagSource` over one SDK client, which is built here and belongs to the process that builds it."""

    def __init__(
        self,
        config: Config,
        providers: Sequence[str],
        *,
        store: WatchedStore,
        report: Report,
        start_wait_s: float,
        describe_error: Callable[[DataSourceErrorInfo], str],
    ) -> None:
        """Build the client over `config`, whose feature store is `store`; wait `start_wait_s` for first values."""
        self._store = store
        self._checker = ValueChecker(providers, report)
        self._report = report
        self._describe_error = describe_error
        self._failed = False
        self._closed = False
        self._pid = os.getpid()
        sdk_log = logging.getLogger("ldclient")
        if sdk_log.level == logging.NOTSET:  # its INFO tells of every connection; a level someone chose stays
            sdk_log.setLevel(logging.WARNING)
        self._client = LDClient(config, start_wait=start_wait_s)
        # The SDK tells LaunchDarkly how often each flag was evaluated: then it must be asked each time.
        self._may_remember = not config.send_events
        self._for_all: _ForAll | None = None

    @property
    def client(self) -> LDClient:
        """The SDK's client, for its listeners."""
        return self._client

    def read(self, context: FlagContext) -> RoutingFlags:
        """The flags for this payment, as last heard; the defaults where nothing was ever heard. Never raises.

        Before the source was heard of since the start, that is what the store was given as last known.
        """
        try:
            if not self._store.initialized:  # asking the client for values now would log a warning for each
                return self._checker.defaults
            for_all = self._same_for_everyone()
            if for_all.flags is not None:
                return for_all.flags
            who = to_sdk_context(context)
            variation = self._client.variation
            raw = dict(for_all.values)
            for key in for_all.others:
                raw[key] = variation(key, who, None)
            pinned = False
            if PRIMARY_PROVIDER not in raw:
                # Why it is the primary is asked of this flag alone: the reason costs a microsecond, and goes into
                # events.
                primary = self._client.variation_detail(PRIMARY_PROVIDER, who, None)
                raw[PRIMARY_PROVIDER] = primary.value
                pinned = primary.reason.get("kind") in PINS
            return self._checker.check(raw, primary_pinned=pinned)
        except Exception as error:  # noqa: BLE001 - a payment is routed by the defaults rather than not at all
            self._report_failure(error)
            return self._checker.defaults

    def _same_for_everyone(self) -> _ForAll:
        """Flags that no payment reads otherwise than another, evaluated once for each change of any definition."""
        known, generation = self._for_all, self._store.generation
        if known is not None and known.generation is generation:
            return known
        same = self._store.same_for_everyone(self._checker.keys) if self._may_remember else frozenset()
        router = to_sdk_context(FlagContext())
        values = {key: self._client.variation(key, router, None) for key in self._checker.keys if key in same}
        others = tuple(key for key in self._checker.keys if key not in same and key != PRIMARY_PROVIDER)
        complete = len(values) == len(self._checker.keys)
        found = _ForAll(generation, values, others, self._checker.check(values) if complete else None)
        if self._store.generation is generation:  # else a change came between: some values may be older than others
            self._for_all = found
        return found

    def status(self) -> SourceStatus:
        """Whether what `read` answers is up to date, and since when, by the SDK's own record."""
        status = self._client.data_source_status_provider.status
        since = dt.datetime.fromtimestamp(status.since, dt.UTC)
        if os.getpid() != self._pid:
            # The SDK goes on saying "valid" here, though the threads that would hear of a change are not.
            return self._aged("off", since, "the reader was built before this process was forked, and is frozen")
        state = STATES[status.state]
        if state == "off" or self._closed:
            return self._aged("off", since, "closed")
        if state == "valid":
            return SourceStatus(state, since)
        return self._aged(state, since, self._describe_error(status.error) if status.error else "nothing heard yet")

    def _aged(self, state: State, since: dt.datetime, detail: str) -> SourceStatus:
        """The status of a source that does not tell now, with what is served meanwhile and how old that is."""
        if self._store.told_whole_at is not None:
            return SourceStatus(state, since, detail, as_of=since)
        if self._store.initialized:
            return SourceStatus(state, since, detail, "last known", self._store.known_at)
        return SourceStatus(state, since, detail, "defaults")

    def close(self) -> None:
        """Stop the client's threads, waiting at most `CLOSE_WAIT_S` seconds; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        closing = threading.Thread(target=self._close, name="flags-close", daemon=True)
        closing.start()
        closing.join(CLOSE_WAIT_S)

    def _close(self) -> None:
        with contextlib.suppress(Exception):  # nothing is left to do about a client that cannot even stop
            self._client.close()  # type: ignore[no-untyped-call]  # the SDK annotates no method without arguments

    def _report_failure(self, error: Exception) -> None:
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(Exception):  # the report is a courtesy; the payment goes on
            self._report(WrongValue("*", f"flags could not be read ({error!r}); every default is used", "unknown"))


def to_sdk_context(context: FlagContext) -> Context:
    """The multi-kind context that targeting rules see: payment always; merchant and customer where known.

    Attributes have the names of `FlagContext`: `amount` (minor units), `currency`, `method`, `card_brand` and
    `card_country` on the payment, `country` on the customer.
    """
    payment = Context.builder(context.payment_id or ROUTER_KEY).kind("payment")
    for name in ("amount", "currency", "method", "card_brand", "card_country"):
        value = getattr(context, name)
        if value is not None:
            payment.set(name, value)
    kinds = [payment.build()]
    if context.merchant:
        kinds.append(Context.create(context.merchant, "merchant"))
    if context.customer:
        customer = Context.builder(context.customer).kind("customer")
        if context.customer_country is not None:
            customer.set("country", context.customer_country)
        kinds.append(customer.build())
    return Context.create_multi(*kinds)
