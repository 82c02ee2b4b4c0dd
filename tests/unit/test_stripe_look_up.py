"""What is made of the lists that Stripe answers a look-up with, sensible or not."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from providers.contract import LookUp, LookUpKind, Money, OutcomeKind, Timeouts
from providers.stripe import StripeProvider
from tests.contract.raw_server import RawServer, always, answer

SENT = dt.datetime(2026, 11, 21, 2, 3, 4, 600_000, tzinfo=dt.UTC)


def intent(attempt: str, id: str = "pi_1", **more: object) -> dict[str, Any]:
    """A captured intent of that attempt."""
    return {"id": id, "status": "succeeded", "metadata": {"attempt": attempt}, **more}


def page(*intents: object, more: object = False) -> dict[str, Any]:
    """One page of a list."""
    return {"object": "list", "data": list(intents), "has_more": more}


def look_up(
    body: object, status: int = 200, *, reference: str | None = None, seen: list[bytes] | None = None
) -> LookUp:
    """What a look-up of `att_1` makes of a Stripe that always answers so."""
    with RawServer(always(answer(status, json.dumps(body).encode()), seen)) as server:
        provider = StripeProvider(api_key="sk_test_1", base_url=server.url)
        return provider.look_up(
            "att_1",
            provider_reference=reference,
            sent_from=SENT,
            sent_until=SENT + dt.timedelta(seconds=2),
            timeouts=Timeouts(1, 2),
        )


def test_the_window_is_widened_by_seconds_on_either_side() -> None:
    """For the vendor's clock, and because `created` has whole seconds."""
    seen: list[bytes] = []
    assert look_up(page(), seen=seen).kind is LookUpKind.NOT_FOUND
    query = parse_qs(urlsplit(seen[0].split(b" ")[1].decode()).query)
    assert query == {
        "created[gte]": [str(int(SENT.timestamp()) - 5)],
        "created[lte]": [str(int(SENT.timestamp()) + 3 + 5)],
        "limit": ["100"],
    }


def test_the_attempt_is_told_from_others_by_its_metadata() -> None:
    """Of other attempts, of another system, of nobody."""
    others = [intent("att_11", "pi_2"), {"id": "pi_3", "status": "succeeded"}, {"id": "pi_4", "metadata": None}, 7]
    found = look_up(page(*others, intent("att_1")))
    assert found.outcome is not None
    assert (found.kind, found.outcome.kind) == (LookUpKind.FOUND, OutcomeKind.APPROVED)
    assert found.outcome.provider_reference == "pi_1"


def test_an_attempt_found_twice_is_for_a_person() -> None:
    """To pick one would leave the other's money where it is."""
    assert look_up(page(intent("att_1"), intent("att_1", "pi_2"))).reason == "found_twice"


def test_what_is_still_being_worked_on_is_found_and_unknown() -> None:
    """It is there; how it ends is not known yet."""
    found = look_up(page(intent("att_1", status="processing")))
    assert found.outcome is not None
    assert (found.kind, found.outcome.kind, found.outcome.reason) == (
        LookUpKind.FOUND,
        OutcomeKind.UNKNOWN,
        "pending",
    )


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"data": []},
        {"data": [], "has_more": "no"},
        {"data": {}, "has_more": False},
        page(more=True),
        page(7, more=True),
        page({"id": "ch_1"}, more=True),
        page(intent("att_1", id="ch_1")),
    ],
    ids=str,
)
def test_a_senseless_list_is_unavailable(body: object) -> None:
    """Never "not found"."""
    assert look_up(body) == LookUp(LookUpKind.UNAVAILABLE, reason="senseless_answer")


MISSING = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "No such intent"}}


@pytest.mark.parametrize(
    ("status", "body", "reference", "expected"),
    [
        (404, MISSING, "pi_1", LookUp(LookUpKind.NOT_FOUND)),
        (404, MISSING, None, LookUp(LookUpKind.UNAVAILABLE, reason="http_404")),
        (404, {"error": {"message": "Unrecognized URL"}}, "pi_1", LookUp(LookUpKind.UNAVAILABLE, reason="http_404")),
        (404, "<html>", "pi_1", LookUp(LookUpKind.UNAVAILABLE, reason="http_404")),
        (400, MISSING, "pi_1", LookUp(LookUpKind.UNAVAILABLE, reason="http_400")),
        (500, {"error": None}, "pi_1", LookUp(LookUpKind.UNAVAILABLE, reason="senseless_answer")),
        (200, {"id": "ch_1"}, "pi_1", LookUp(LookUpKind.UNAVAILABLE, reason="senseless_answer")),
    ],
)
def test_only_stripes_own_word_is_not_found(
    status: int, body: object, reference: str | None, expected: LookUp
) -> None:
    """A proxy's 404, or one for a route, says nothing of the payment."""
    assert look_up(body, status, reference=reference) == expected


def test_a_refund_carries_its_key_along() -> None:
    """So that every webhook about it names our operation."""
    seen: list[bytes] = []
    with RawServer(always(answer(200, b'{"id": "re_1", "object": "refund", "status": "succeeded"}'), seen)) as server:
        provider = StripeProvider(api_key="sk_test_1", base_url=server.url)
        provider.refund("pi_1", Money(500, "EUR"), idempotency_key="ref_key", timeouts=Timeouts(1, 2))
    form = parse_qs(seen[0].partition(b"\r\n\r\n")[2].decode())
    assert form["metadata[operation]"] == ["ref_key"]
