"""What the router's parts call, without knowing whom: each is a few hundred nanoseconds, and raises nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from flask import Flask, Response, request

from providers.contract import Health, Provider
from router.ledger.records import Attempt, Payment
from router.measuring.catalogue import FINAL, NOBODY, Catalogue

Heard = Callable[[Payment, Sequence[Attempt], Sequence[Attempt]], None]
BEGUN = "pointsman.begun"
"""In a request's environment: when it came, by `time.perf_counter`."""
NO_VIEW = "none"
STATUS_CLASS = {1: "1xx", 2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


class Committed:
    """What the journals' commits say of payments and attempts."""

    def __init__(self, catalogue: Catalogue, then: Heard) -> None:
        """`then` hears of attempts next."""
        self._catalogue = catalogue
        self._created = catalogue.created.of()
        self._then = then

    def payment(self, before: Payment | None, now: Payment) -> None:
        """A commit has made the payment, or taken it from `before` to what it is now."""
        was = None if before is None else before.status
        if before is None:
            self._created.add(1.0)
        if was == now.status:
            return
        self._catalogue.payments.of(now.status, now.provider or NOBODY).add(1.0)
        if now.status in FINAL and was not in FINAL:
            self._catalogue.to_final.of(now.status).observe((now.updated_at - now.created_at).total_seconds())

    def attempts(self, payment: Payment, before: Sequence[Attempt], after: Sequence[Attempt]) -> None:
        """A commit has written attempts otherwise than they were."""
        known = {each.id: each.outcome for each in before}
        for each in after:
            if each.outcome is not None and known.get(each.id) != each.outcome:
                self._catalogue.attempts.of(each.provider, each.outcome, failure_of(each)).add(1.0)
        self._then(payment, before, after)


def failure_of(attempt: Attempt) -> str:
    """In one of a dozen words, what an attempt that was not approved failed of."""
    if attempt.outcome == "declined":
        return str((attempt.decline or {}).get("class", NOBODY))
    if attempt.outcome in ("not_executed", "unknown"):
        return attempt.health or NOBODY
    return NOBODY


class TimedProvider:
    """A provider whose calls are counted and timed; for the rest it is the one within."""

    def __init__(self, within: Provider, catalogue: Catalogue) -> None:
        self._within = within
        self._catalogue = catalogue
        self._name = within.name
        self.authorize = self._timed("authorize", within.authorize)
        self.capture = self._timed("capture", within.capture)
        self.void = self._timed("void", within.void)
        self.void_attempt = self._timed("void", within.void_attempt)
        self.refund = self._timed("refund", within.refund)
        self.look_up = self._timed("look_up", within.look_up)
        self.complete = self._timed("complete", within.complete)
        self.probe = self._timed("probe", within.probe)
        self.account = within.account
        # As they are, without a step more: they call nobody.
        self.is_reference, self.check, self.render = within.is_reference, within.check, within.render
        self.read_webhook = within.read_webhook

    @property
    def name(self) -> str:
        """The provider's."""
        return self._name

    @property
    def within(self) -> Provider:
        """The provider itself."""
        return self._within

    def close(self) -> None:
        """Close the one within."""
        self._within.close()

    def _timed(self, call: str, make: Callable[..., Any]) -> Callable[..., Any]:
        observe = self._catalogue.call_time.of(self._name, call).observe
        well = self._catalogue.calls.of(self._name, call, Health.OK.value)
        others, name, clock = self._catalogue.calls, self._name, time.perf_counter

        def timed(*args: Any, **named: Any) -> Any:
            begun = clock()
            try:
                told = make(*args, **named)
            except BaseException:
                observe(clock() - begun)
                others.of(name, call, "raised").add(1.0)
                raise
            observe(clock() - begun)
            # A look-up says how it went in other words.
            said = getattr(told, "health", None) or getattr(told, "kind", NOBODY)
            if said is Health.OK:
                well.add(1.0)
            else:
                others.of(name, call, str(said)).add(1.0)
            return told

        return timed


def timed(providers: Mapping[str, Provider], catalogue: Catalogue) -> Mapping[str, Provider]:
    """The same providers, counted."""
    return {name: cast("Provider", TimedProvider(each, catalogue)) for name, each in providers.items()}


class LedgerTimes:
    """What the ledger's connection tells of its transactions."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.wrote = catalogue.writing.of().observe
        """Seconds of a write that was committed."""
        self._faults = catalogue.faults

    def failed(self, kind: str) -> None:
        """A `read`, a `write` or a commit whose end is unknown (`commit_unknown`) failed."""
        self._faults.of(kind).add(1.0)


def answered(catalogue: Catalogue, view: str) -> Callable[[float], None]:
    """What counts and times a request, given its begin, that was answered in front of Flask as by this view."""
    count, observe = catalogue.requests.of(view, STATUS_CLASS[2]).add, catalogue.request_time.of(view).observe
    clock = time.perf_counter

    def tell(begun: float) -> None:
        count(1.0)
        observe(clock() - begun)

    return tell


def count_requests(app: Flask, catalogue: Catalogue) -> None:
    """Count and time every request of this application."""
    under_way = catalogue.under_way.of()
    inner = app.wsgi_app
    clock, counts, times = time.perf_counter, catalogue.requests, catalogue.request_time

    def outer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ[BEGUN] = clock()
        under_way.add(1.0)
        try:
            return inner(environ, start_response)
        finally:
            under_way.add(-1.0)

    def count(response: Response) -> Response:
        # A view's name, never the path: ids and whatever strangers try are in that.
        view = request.endpoint or NO_VIEW
        counts.of(view, STATUS_CLASS.get(response.status_code // 100, NO_VIEW)).add(1.0)
        begun = request.environ.get(BEGUN)
        if begun is not None:
            times.of(view).observe(clock() - begun)
        return response

    app.wsgi_app = outer  # type: ignore[method-assign]  # as Flask's documentation has it
    app.after_request(count)
