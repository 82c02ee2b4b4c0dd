"""How an attempt stands in Stripe's own records: by its id, or among the intents made around the time it was sent.

Stripe's search is not read-after-write, so the list is asked instead: intents by their creation, each naming its
attempt in its metadata. Vendor's documentation: https://docs.stripe.com/api/payment_intents/list.

Most windows are one page. Stripe lists newest first only, so a busy one is narrowed to slices, likeliest first: the
seconds around the first send, those around the last, those after it, then all in between. One call reads so many
pages and no more, and the next goes on where it ended: a look-up at a busy account ends, and waiting costs nothing.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from providers import faults, stripe_answers
from providers.contract import LookUp, LookUpKind, Outcome, OutcomeKind, Timeouts

MARGIN_S = 5
"""Stripe's clock against ours, and `created`, which has whole seconds."""
PAGE_SIZE = 100
"""The most that Stripe lists at once."""
MAX_PAGES = 10
"""A thousand intents in one call: at 20 payments a second, 50 seconds of them."""
LATE_S = 120
"""How long after the last send Stripe may still make an intent of it: our own deadline of 25 s (the moment of a send
that was never answered is known no better), a slow way, and a queue."""
NEAR_S = 10
"""An intent is made within a second of its send: 10 s hold it with both margins, at 50 payments a second five pages.
Of the last send it is known when it ended rather, a read timeout later."""
BETWEEN_S = 60
"""The rest, a minute at a time: it may have been any re-send that reached Stripe."""
PAST_S = LATE_S + 4 * MARGIN_S
"""A window that stood still for so long is past by Stripe's clock too: what was read of it is not read again."""
REMEMBERED = 1000
"""So many windows that take several calls; of more, the one not asked for longest begins anew."""

_log = structlog.get_logger(__name__)

Get = Callable[[Mapping[str, Any], Timeouts], object]
"""`GET /v1/payment_intents` with these parameters, within that time."""


@dataclass(slots=True)
class Reading:
    """What is left to be read of one window, in whole seconds, both ends included."""

    window: tuple[int, int]
    sent_last: int
    asked_at: float
    """When this very window was asked for first."""
    past: bool = False
    """Whether nothing can be made in it any more, so that it can be read in several calls."""
    left: deque[tuple[int, int]] = field(default_factory=deque)
    after: str | None = None
    """The last intent read of the slice that is next."""

    def __post_init__(self) -> None:
        self.left.append(self.window)

    def turn(self, last: str | None) -> None:
        """A page was read; `last` is its last intent where there are more."""
        if last is None:
            self.left.popleft()
            self.after = None
        elif (
            self.after is None
            and self.left[0] == self.window
            and len(slices := _slices(*self.window, self.sent_last)) > 1
        ):
            self.left = deque(slices)
        else:
            self.after = last


class Readings:
    """How far the windows are read that take more than one call. Thread-safe; what it forgets is read again."""

    def __init__(self) -> None:
        self._readings: OrderedDict[str, Reading] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, attempt_id: str, sent_first: int, sent_last: int, now: float) -> Reading:
        """Where to go on; the beginning of a window that has moved, or that may still fill."""
        window = (sent_first - MARGIN_S, sent_last + LATE_S + MARGIN_S)
        with self._lock:
            known = self._readings.pop(attempt_id, None)
            if known is None or known.window != window:
                known = Reading(window, sent_last, now)
            elif not known.past:
                known = Reading(window, sent_last, known.asked_at, past=now - known.asked_at >= PAST_S)
            self._readings[attempt_id] = known
            while len(self._readings) > REMEMBERED:
                self._readings.popitem(last=False)
            return known


def search(
    attempt_id: str,
    get: Get,
    *,
    sent_from: dt.datetime,
    sent_until: dt.datetime,
    timeouts: Timeouts,
    monotonic: Callable[[], float],
    readings: Readings | None = None,
) -> LookUp:
    """Page through what those sends can have made. All pages of a call together take no longer than one read may."""
    now = monotonic()
    deadline = now + timeouts.read_s
    sends = math.floor(sent_from.timestamp()), math.ceil(sent_until.timestamp())
    reading = (readings or Readings()).of(attempt_id, *sends, now)
    for _ in range(MAX_PAGES):
        if not reading.left:
            break
        left_s = deadline - monotonic()
        if left_s <= 0:
            return LookUp(LookUpKind.UNAVAILABLE, reason="look_up_timeout")
        first, last = reading.left[0]
        params: dict[str, Any] = {"created": {"gte": first, "lte": last}, "limit": PAGE_SIZE}
        if reading.after is not None:
            params["starting_after"] = reading.after
        page = get(params, Timeouts(timeouts.connect_s, left_s))
        match page:
            case {"data": [*intents], "has_more": bool(more)}:
                pass
            case _:
                return faults.SENSELESS_ANSWER.as_look_up()
        matching = [intent for intent in intents if stripe_answers.metadata_of(intent, "attempt") == attempt_id]
        if len(matching) > 1:
            # Its idempotency key was forgotten (after 24 h), or somebody else uses our names: for a person to judge.
            _log.error("attempt_found_twice", provider="stripe", attempt=attempt_id)
            return LookUp(LookUpKind.UNAVAILABLE, reason="found_twice")
        if matching:
            return found(matching[0], attempt_id)
        end = intents[-1].get("id") if intents and isinstance(intents[-1], Mapping) else None
        if more and not stripe_answers.is_intent(end):
            return faults.SENSELESS_ANSWER.as_look_up()
        reading.turn(end if more else None)
    if not reading.left:
        return LookUp(LookUpKind.NOT_FOUND)
    _log.warning("look_up_window_too_busy", provider="stripe", attempt=attempt_id, pages=MAX_PAGES)
    return LookUp(LookUpKind.UNAVAILABLE, reason="window_too_busy")


def _slices(first: int, last: int, sent_last: int) -> Sequence[tuple[int, int]]:
    """All of these seconds, each once, in the order in which they are worth reading."""
    near_first = min(first + NEAR_S, last + 1)
    near_last = max(near_first, sent_last - NEAR_S - MARGIN_S)
    after_last = min(max(near_last, sent_last + NEAR_S), last + 1)
    return (
        *_pieces(first, near_first),
        *_pieces(near_last, after_last),
        *_pieces(after_last, last + 1),
        *_pieces(near_first, near_last),
    )


def _pieces(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """From `begin` until before `end`."""
    for each in range(begin, end, BETWEEN_S):
        yield each, min(each + BETWEEN_S, end) - 1


def found(intent: object, attempt_id: str) -> LookUp:
    """What a retrieved intent says of the attempt."""
    outcome: Outcome = stripe_answers.outcome(intent)
    if outcome.kind is OutcomeKind.UNKNOWN and outcome.provider_reference is None:
        return LookUp(LookUpKind.UNAVAILABLE, reason=outcome.reason)
    if stripe_answers.names_another(intent, attempt_id):
        return faults.ANOTHER_ATTEMPT.as_look_up()
    return LookUp(LookUpKind.FOUND, outcome)
