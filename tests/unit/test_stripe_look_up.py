"""What is made of the lists that Stripe answers a look-up with, sensible or not."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import stripe_look_up
from providers.contract import LookUp, LookUpKind, Money, OutcomeKind, Timeouts
from providers.stripe import StripeProvider
from providers.stripe_look_up import MAX_PAGES, PAST_S, REMEMBERED, Readings, search
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


def test_the_window_is_widened_on_either_side() -> None:
    """For the vendor's clock, because `created` has whole seconds, and for a send that was acted on late."""
    seen: list[bytes] = []
    assert look_up(page(), seen=seen).kind is LookUpKind.NOT_FOUND
    query = parse_qs(urlsplit(seen[0].split(b" ")[1].decode()).query)
    assert query == {
        "created[gte]": [str(int(SENT.timestamp()) - 5)],
        "created[lte]": [str(int(SENT.timestamp()) + 3 + stripe_look_up.LATE_S + 5)],
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


# ---------------------------------------------------------------- a busy account


class Account:
    """Stripe's list of an account with so many payments a second, and our attempt among them; time is moved."""

    def __init__(self, per_s: int, *, made_at_s: float | None, seconds: int = 2000) -> None:
        start = SENT.timestamp()
        others = [(start - 60 + n / per_s, f"pi_{n}", f"att_other{n}") for n in range((seconds + 60) * per_s)]
        ours = [] if made_at_s is None else [(start + made_at_s, "pi_ours", "att_1")]
        self.intents = sorted(others + ours, reverse=True)
        self.now_s = 0.0
        self.requests: list[Mapping[str, Any]] = []
        self.readings = Readings()

    def get(self, params: Mapping[str, Any], _timeouts: Timeouts) -> object:
        """One page, of what was made by now, newest first."""
        self.requests.append(params)
        created, after = params["created"], params.get("starting_after")
        listed = [
            each
            for each in self.intents
            if created["gte"] <= int(each[0]) <= created["lte"] and each[0] <= SENT.timestamp() + self.now_s
        ]
        begin = 0 if after is None else 1 + next(n for n, each in enumerate(listed) if each[1] == after)
        data = [intent(attempt, id) for _, id, attempt in listed[begin : begin + params["limit"]]]
        return page(*data, more=len(listed) > begin + params["limit"])

    def look_up(self, *, at_s: float, last_s: float = 0.0) -> LookUp:
        """What the resolver asks at that moment, the last send being so long after the first."""
        self.now_s = at_s
        return search(
            "att_1",
            self.get,
            sent_from=SENT,
            sent_until=SENT + dt.timedelta(seconds=last_s),
            timeouts=Timeouts(1, 10),
            monotonic=lambda: self.now_s,
            readings=self.readings,
        )


@pytest.mark.parametrize("per_s", [1, 20, 50])
@pytest.mark.parametrize("age_s", [3, 40, 70, 1200])
def test_what_the_first_send_made_is_found_however_long_it_is_waited_for(per_s: int, age_s: int) -> None:
    """In one call, and in no more requests after twenty minutes than after one."""
    account = Account(per_s, made_at_s=0.4)
    assert account.look_up(at_s=age_s).kind is LookUpKind.FOUND
    assert len(account.requests) <= 5


@pytest.mark.parametrize("last_s", [900, 903, 909])
@pytest.mark.parametrize("waited_s", [0, 60, 1000])
def test_what_the_last_send_made_is_found_in_one_call(last_s: int, waited_s: int) -> None:
    """A quarter of an hour after the first; known is rather when it ended than when it was made."""
    account = Account(20, made_at_s=900)
    assert account.look_up(at_s=last_s + waited_s, last_s=last_s).kind is LookUpKind.FOUND
    assert len(account.requests) <= MAX_PAGES


@pytest.mark.parametrize(("made_at_s", "end"), [(433.0, LookUpKind.FOUND), (None, LookUpKind.NOT_FOUND)])
def test_a_busy_window_is_read_to_its_end_in_several_calls(made_at_s: float | None, end: LookUpKind) -> None:
    """Whichever re-send made it: 1030 s at 20 a second are some 210 pages, and ten a call. Then nothing is asked."""
    account = Account(20, made_at_s=made_at_s)
    calls, found = 0, account.look_up(at_s=900, last_s=900)
    while found.kind is LookUpKind.UNAVAILABLE:
        calls += 1
        before = len(account.requests)
        found = account.look_up(at_s=900 + PAST_S + 60 * calls, last_s=900)
        assert len(account.requests) - before <= MAX_PAGES
        assert calls < 25
    assert found.kind is end
    asked = Counter(
        (each["created"]["gte"], each["created"]["lte"], each.get("starting_after"))
        for each in account.requests[MAX_PAGES:]
    )
    assert set(asked.values()) == {1}
    if end is LookUpKind.NOT_FOUND:
        before = len(account.requests)
        assert account.look_up(at_s=9999, last_s=900).kind is end
        assert len(account.requests) == before


def test_a_window_that_may_still_fill_is_read_anew() -> None:
    """What was not there at the first reading may be by the second; only of a past window is progress kept."""
    account = Account(20, made_at_s=115.0)
    kept = [account.look_up(at_s=at_s).kind for at_s in (100, 110)]
    assert kept == [LookUpKind.UNAVAILABLE] * 2
    asked = [(each["created"]["gte"], each.get("starting_after")) for each in account.requests]
    assert asked[:MAX_PAGES] == asked[MAX_PAGES:]
    calls = 0
    while account.look_up(at_s=100 + PAST_S + 60 * calls).kind is not LookUpKind.FOUND:
        calls += 1
    assert calls <= 3
    quiet = Account(1, made_at_s=50.0, seconds=80)
    assert quiet.look_up(at_s=30).kind is LookUpKind.NOT_FOUND
    assert quiet.look_up(at_s=51).kind is LookUpKind.FOUND


def test_a_window_that_moved_is_read_anew() -> None:
    """After a further send, all of it: what was read before says nothing of the new end."""
    account = Account(1, made_at_s=500.0, seconds=500)
    account.intents = [each for each in account.intents if each[1] == "pi_ours"]
    for at_s in (100, 100 + PAST_S, 200 + PAST_S):
        assert account.look_up(at_s=at_s, last_s=85).kind is LookUpKind.NOT_FOUND
    assert account.look_up(at_s=501, last_s=499).kind is LookUpKind.FOUND


def test_a_reading_that_was_cut_goes_on_where_it_ended() -> None:
    """Not at its beginning: a provider that answers half of each reading would never be read to the end."""
    account = Account(20, made_at_s=None)
    account.look_up(at_s=900, last_s=900)
    account.look_up(at_s=900 + PAST_S, last_s=900)
    last = account.requests[-1]

    def cut(_params: Mapping[str, Any], _timeouts: Timeouts) -> object:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        search(
            "att_1",
            cut,
            sent_from=SENT,
            sent_until=SENT + dt.timedelta(seconds=900),
            timeouts=Timeouts(1, 10),
            monotonic=lambda: 2000.0,
            readings=account.readings,
        )
    account.look_up(at_s=2060, last_s=900)
    following = account.requests[2 * MAX_PAGES]
    assert following["created"] == last["created"]
    assert following["starting_after"] != last.get("starting_after")


def test_so_many_readings_are_remembered_and_no_more() -> None:
    """The one not asked for longest goes."""
    readings = Readings()
    for number in range(REMEMBERED):
        readings.of(f"att_{number}", 1, 2, 0.0)
    past = readings.of("att_0", 1, 2, PAST_S)
    assert past.past
    readings.of("att_new", 1, 2, 0.0)
    assert readings.of("att_0", 1, 2, PAST_S) is past
    assert not readings.of("att_1", 1, 2, PAST_S).past


@given(st.integers(0, 10**10), st.integers(0, 5000))
def test_the_slices_of_a_window_are_all_of_it_once(first: int, length: int) -> None:
    """No second is left out, and none is read twice."""
    last = first + length + stripe_look_up.LATE_S
    slices = sorted(stripe_look_up._slices(first, last, first + length))
    assert (slices[0][0], slices[-1][1]) == (first, last)
    assert all(end + 1 == begin for (_, end), (begin, _) in itertools.pairwise(slices))
