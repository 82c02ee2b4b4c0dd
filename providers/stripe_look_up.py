"""How an attempt stands in Stripe's own records: by its id, or among the intents made around the time it was sent.

Stripe's search is not read-after-write, so the list is asked instead: intents by their creation, newest first, each
naming its attempt in its metadata. Vendor's documentation: https://docs.stripe.com/api/payment_intents/list.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from providers import faults, stripe_answers
from providers.contract import LookUp, LookUpKind, Outcome, OutcomeKind, Timeouts

MARGIN_S = 5
"""Stripe's clock against ours, and `created`, which has whole seconds."""
PAGE_SIZE = 100
"""The most that Stripe lists at once."""
MAX_PAGES = 10
"""A thousand intents: at 20 payments a second, 50 seconds. A busier window is left to webhooks and people."""

_log = structlog.get_logger(__name__)

Get = Callable[[Mapping[str, Any], Timeouts], object]
"""`GET /v1/payment_intents` with these parameters, within that time."""


def search(
    attempt_id: str,
    get: Get,
    *,
    sent_from: dt.datetime,
    sent_until: dt.datetime,
    timeouts: Timeouts,
    monotonic: Callable[[], float],
) -> LookUp:
    """Page through what was made in that window. All pages together take no longer than one read may."""
    deadline = monotonic() + timeouts.read_s
    created = {
        "gte": math.floor(sent_from.timestamp()) - MARGIN_S,
        "lte": math.ceil(sent_until.timestamp()) + MARGIN_S,
    }
    params: dict[str, Any] = {"created": created, "limit": PAGE_SIZE}
    for _ in range(MAX_PAGES):
        left_s = deadline - monotonic()
        if left_s <= 0:
            return LookUp(LookUpKind.UNAVAILABLE, reason="look_up_timeout")
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
        if not more:
            return LookUp(LookUpKind.NOT_FOUND)
        last = intents[-1].get("id") if intents and isinstance(intents[-1], Mapping) else None
        if not stripe_answers.is_intent(last):
            return faults.SENSELESS_ANSWER.as_look_up()
        params = {**params, "starting_after": last}
    _log.warning("look_up_window_too_busy", provider="stripe", attempt=attempt_id, pages=MAX_PAGES)
    return LookUp(LookUpKind.UNAVAILABLE, reason="window_too_busy")


def found(intent: object, attempt_id: str) -> LookUp:
    """What a retrieved intent says of the attempt."""
    outcome: Outcome = stripe_answers.outcome(intent)
    if outcome.kind is OutcomeKind.UNKNOWN and outcome.provider_reference is None:
        return LookUp(LookUpKind.UNAVAILABLE, reason=outcome.reason)
    if stripe_answers.names_another(intent, attempt_id):
        return faults.ANOTHER_ATTEMPT.as_look_up()
    return LookUp(LookUpKind.FOUND, outcome)
