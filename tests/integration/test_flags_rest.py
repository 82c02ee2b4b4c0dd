"""The mover over LaunchDarkly's REST API, against the stand-in over real sockets."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flags.contract import (
    PRIMARY_PROVIDER,
    ApprovalNeededError,
    FlagChangedError,
    FlagContext,
    FlagMover,
    FlagState,
    FlagUnavailableError,
    FlagWriteError,
    Serves,
)
from flags.definitions import definitions
from flags.document import new_document
from flags.launchdarkly import LaunchDarklyFlags
from flags.rest import LaunchDarklyMover
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.integration.raw_http import answering

PROVIDERS = ("stripe", "adyen", "worldline")
TOKEN = "api-token"
NOW = dt.datetime.now(dt.UTC)
TO_ADYEN = Serves("adyen")


@pytest.fixture
def launchdarkly() -> Iterator[FakeLaunchDarkly]:
    with FakeLaunchDarkly(new_document(definitions(PROVIDERS).values())["flags"]) as fake:
        yield fake


def connect(uri: str, token: str = TOKEN, **options: Any) -> LaunchDarklyMover:
    given = {"project": "payments", "environment": "production", **options}
    return LaunchDarklyMover(token, api_uri=uri, **given)


@pytest.fixture
def mover(launchdarkly: FakeLaunchDarkly) -> Iterator[LaunchDarklyMover]:
    mover = connect(launchdarkly.rest_uri)
    yield mover
    mover.close()


def flip(mover: FlagMover, seen: FlagState | None = None, **options: Any) -> FlagState:
    """Move the primary to Adyen."""
    seen = seen or mover.look(PRIMARY_PROVIDER)
    return mover.move(PRIMARY_PROVIDER, TO_ADYEN, seen=seen, comment="stripe open 61 s", **options)


def rule(number: int, variation: int | None = 0, **more: Any) -> dict[str, Any]:
    clause = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": ["JPY"], "negate": False}
    serving = {} if variation is None else {"variation": variation}
    return {"id": f"rule-{number}", "clauses": [clause], **serving, **more}


# ---------------------------------------------------------------- moving


def test_a_flag_is_seen_with_what_it_serves(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """Its value, its off value, that it is on; and another mark after any change."""
    seen = mover.look(PRIMARY_PROVIDER)
    assert (seen.serves, seen.off, seen.is_on, seen.pins) == (Serves("stripe"), "stripe", True, {})
    launchdarkly.person_switches(PRIMARY_PROVIDER, on=False)
    off = mover.look(PRIMARY_PROVIDER)
    assert (off.is_on, off.mark == seen.mark) == (False, False)


def test_a_move_is_one_patch_with_the_comment(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """The audit log says why; what is answered is the flag read back, as the next look has it."""
    after = flip(mover)
    assert after.serves == TO_ADYEN
    assert launchdarkly.serves(PRIMARY_PROVIDER) == "adyen"
    [patch] = launchdarkly.patches
    assert (patch.comment, patch.status) == ("stripe open 61 s", 200)
    assert [(change.who, change.comment) for change in launchdarkly.audit] == [("token", "stripe open 61 s")]
    assert mover.look(PRIMARY_PROVIDER) == after


def test_the_real_sdk_hears_of_a_move(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """A change by REST goes out on the stream, as at LaunchDarkly: one value, and a rollout."""
    uri = launchdarkly.uri
    flags = LaunchDarklyFlags("sdk", PROVIDERS, report=print, base_uri=uri, stream_uri=uri, events_uri=uri)
    try:
        flip(mover)
        wait_for(lambda: flags.read(FlagContext()).primary == "adyen")
        launchdarkly.person_sets_rollout(PRIMARY_PROVIDER, {"stripe": 100_000}, context_kind="payment")
        wait_for(lambda: flags.read(FlagContext()).primary == "stripe")
        seen = mover.look(PRIMARY_PROVIDER)
        mover.move(PRIMARY_PROVIDER, seen.serves.moved("stripe", "worldline"), seen=seen, comment="")
        wait_for(lambda: flags.read(FlagContext()).primary == "worldline")
    finally:
        flags.close()


def wait_for(condition: Callable[[], bool], within_s: float = 2.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(0.002)


def test_serving_it_already_writes_nothing(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """After a lost reply the caller looks again and moves again: no second change."""
    flip(mover)
    assert flip(mover).serves == TO_ADYEN
    assert len(launchdarkly.patches) == 1


def test_in_a_rollout_one_weight_moves_and_all_else_stays(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """The kind and the attribute that contexts are bucketed by stay; without them everyone would change provider."""
    weights = {"stripe": 60_000, "adyen": 30_000, "worldline": 10_000}
    launchdarkly.person_sets_rollout(PRIMARY_PROVIDER, weights, context_kind="merchant", bucket_by="tier")
    seen = mover.look(PRIMARY_PROVIDER)
    assert seen.serves == Serves(weights=weights)
    to = seen.serves.moved("stripe", "adyen")
    after = mover.move(PRIMARY_PROVIDER, to, seen=seen, comment="c")
    assert after.serves == Serves(weights={"adyen": 90_000, "worldline": 10_000})
    assert launchdarkly.serves(PRIMARY_PROVIDER) == {"adyen": 90_000, "worldline": 10_000}
    rollout = launchdarkly.flag(PRIMARY_PROVIDER)["fallthrough"]["rollout"]
    assert (rollout["contextKind"], rollout["bucketBy"]) == ("merchant", "tier")
    back = mover.move(PRIMARY_PROVIDER, seen.serves, seen=after, comment="restored")
    assert back.serves == seen.serves


def test_a_rollout_where_there_was_none_goes_by_customer(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """LaunchDarkly's own default, `user`, is a kind that no payment has."""
    to = Serves(weights={"stripe": 50_000, "adyen": 50_000})
    mover.move(PRIMARY_PROVIDER, to, seen=mover.look(PRIMARY_PROVIDER), comment="c")
    assert launchdarkly.flag(PRIMARY_PROVIDER)["fallthrough"]["rollout"]["contextKind"] == "customer"


def test_a_flag_that_is_off_stays_off(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """A person switched it off; the machine does not switch it on."""
    launchdarkly.person_switches(PRIMARY_PROVIDER, on=False)
    assert flip(mover).is_on is False
    assert launchdarkly.flag(PRIMARY_PROVIDER)["on"] is False


# ---------------------------------------------------------------- pins


def pinned(launchdarkly: FakeLaunchDarkly) -> None:
    shares = [{"variation": 0, "weight": 25_000}, {"variation": 1, "weight": 75_000}]
    in_segment = {"contextKind": "", "attribute": "", "op": "segmentMatch", "values": ["vip"], "negate": True}
    launchdarkly.update(
        PRIMARY_PROVIDER,
        rules=[
            rule(1),
            rule(2, None, rollout={"variations": shares, "contextKind": "customer"}, description="France, slowly"),
            rule(3, 1),
            rule(4, disabled=True),
            {**rule(5), "clauses": [in_segment]},
        ],
        targets=[{"variation": 0, "values": ["u1"]}],
        contextTargets=[
            {"contextKind": "user", "variation": 0, "values": []},
            {"contextKind": "merchant", "variation": 0, "values": ["a", "b", "c", "d", "e"]},
            {"contextKind": "merchant", "variation": 1, "values": ["z"]},
        ],
    )


def test_rules_and_targets_are_named_by_what_they_serve(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """In words a person understands, with three keys at most; a disabled rule pins nothing."""
    pinned(launchdarkly)
    assert mover.look(PRIMARY_PROVIDER).pins == {
        "stripe": (
            'target: user "u1"',
            'target: merchants "a", "b", "c" and 2 more',
            'rule 1: payment currency is "JPY"',
            'rule 2 "France, slowly", 25.0% of them',
            'rule 5: not in segment "vip"',
        ),
        "adyen": (
            'target: merchant "z"',
            'rule 2 "France, slowly", 75.0% of them',
            'rule 3: payment currency is "JPY"',
        ),
    }


def test_a_move_leaves_pins_alone_unless_told(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """What a team pinned on purpose stays pinned, and is still named afterwards."""
    pinned(launchdarkly)
    before = mover.look(PRIMARY_PROVIDER)
    assert flip(mover).pins == before.pins


def test_a_move_with_pins_moves_rules_and_targets_too(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """All in one patch, so that either everything has moved or nothing."""
    pinned(launchdarkly)
    after = flip(mover, pins=("stripe", "adyen"))
    assert (after.serves, "stripe" in after.pins) == (TO_ADYEN, False)
    flag = launchdarkly.flag(PRIMARY_PROVIDER)
    assert [one.get("variation") for one in flag["rules"]] == [1, None, 1, 0, 1]
    rollout = flag["rules"][1]["rollout"]
    assert rollout["contextKind"] == "customer"
    assert [share["weight"] for share in rollout["variations"]] == [0, 100_000, 0]
    assert flag["targets"] == [{"variation": 1, "values": ["u1"]}]
    assert flag["contextTargets"] == [
        {"contextKind": "merchant", "variation": 1, "values": ["z", "a", "b", "c", "d", "e"]}
    ]
    assert len(launchdarkly.patches) == 1


def test_a_prerequisite_is_named_as_what_it_may_serve(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """Where it is not met everyone gets the off variation, whatever the default rule says."""
    launchdarkly.update(PRIMARY_PROVIDER, prerequisites=[{"key": "other", "variation": 0}])
    assert mover.look(PRIMARY_PROVIDER).pins == {"stripe": ('prerequisite "other", wherever it is not met',)}


def test_a_rollout_says_what_payments_outside_its_kind_are_served(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """The SDK serves them the rollout's first share, even one of nothing: a guest's payments do not move."""
    launchdarkly.person_sets_rollout(PRIMARY_PROVIDER, {"stripe": 60_000, "adyen": 40_000})
    seen = mover.look(PRIMARY_PROVIDER)
    after = mover.move(PRIMARY_PROVIDER, seen.serves.moved("stripe", "adyen"), seen=seen, comment="c")
    assert after.pins == seen.pins == {"stripe": ("percentage rollout: payments without a customer",)}
    uri = launchdarkly.uri
    flags = LaunchDarklyFlags("sdk", PROVIDERS, report=print, base_uri=uri, stream_uri=uri, events_uri=uri)
    assert flags.read(FlagContext("pay_1", customer="cus_1")).primary == "adyen"
    assert flags.read(FlagContext("pay_1")).primary == "stripe"
    flags.close()


def test_an_experiments_allocation_is_not_changed(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """Its results would be worth nothing; a person must end it first."""
    shares = [{"variation": 0, "weight": 50_000}, {"variation": 1, "weight": 50_000}]
    allocation = {"defaultVariation": 0, "canReshuffle": False}
    launchdarkly.update(
        PRIMARY_PROVIDER, fallthrough={"rollout": {"variations": shares, "experimentAllocation": allocation}}
    )
    with pytest.raises(FlagWriteError, match="experiment"):
        flip(mover)


# ---------------------------------------------------------------- races


def test_a_change_that_was_not_seen_is_not_overwritten(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """A person changed anything between the look and the move: nothing is written, even if the value is the same."""
    seen = mover.look(PRIMARY_PROVIDER)
    launchdarkly.person_sets(PRIMARY_PROVIDER, "worldline")
    launchdarkly.person_sets(PRIMARY_PROVIDER, "stripe")
    with pytest.raises(FlagChangedError, match="changed since"):
        flip(mover, seen)
    assert launchdarkly.patches == []


def test_a_variation_added_is_a_change_too(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """One that all environments share."""
    seen = mover.look(PRIMARY_PROVIDER)
    mover._api.patch(PRIMARY_PROVIDER, {"instructions": [{"kind": "addVariation", "value": "paypal"}]})
    with pytest.raises(FlagChangedError):
        flip(mover, seen)


def test_a_person_saving_at_the_same_moment_wins(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """LaunchDarkly's own lock (409)."""
    launchdarkly.during_patch(lambda: launchdarkly.person_sets(PRIMARY_PROVIDER, "worldline"))
    with pytest.raises(FlagChangedError, match="same moment"):
        flip(mover)
    assert launchdarkly.serves(PRIMARY_PROVIDER) == "worldline"


def test_a_lost_reply_is_found_out_by_looking_again(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """The write was done and nobody knows: the next look does."""
    launchdarkly.fail_next("patch", how="cut", acts=True)
    with pytest.raises(FlagUnavailableError, match="broke the connection"):
        flip(mover)
    assert mover.look(PRIMARY_PROVIDER).serves == TO_ADYEN


# ---------------------------------------------------------------- refusals and outages


@pytest.mark.parametrize(
    ("status", "error", "says"),
    [
        (400, FlagWriteError, "refused the request as wrong"),
        (401, FlagWriteError, "is ROUTER_LAUNCHDARKLY_API_TOKEN right"),
        (403, FlagWriteError, "needs the right to update flags"),
        (404, FlagWriteError, "flags bootstrap"),
        (405, ApprovalNeededError, "approval"),
        (409, FlagChangedError, "nothing was written"),
        (422, FlagWriteError, "cannot make this change"),
        (302, FlagWriteError, "is ROUTER_LAUNCHDARKLY_API_URI right"),
        (429, FlagUnavailableError, "limits our rate"),
        (500, FlagUnavailableError, "HTTP 500"),
        (503, FlagUnavailableError, "HTTP 503"),
    ],
)
def test_every_refusal_says_what_to_do(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly, status: int, error: type[FlagWriteError], says: str
) -> None:
    """Without the token, and without anything the answer held."""
    launchdarkly.fail_next("patch", status=status)
    with pytest.raises(error, match=says) as refused:
        flip(mover)
    assert type(refused.value) is error
    assert TOKEN not in str(refused.value)
    assert launchdarkly.serves(PRIMARY_PROVIDER) == "stripe"


def test_a_wrong_token_is_named_and_never_shown(launchdarkly: FakeLaunchDarkly) -> None:
    """The commonest mistake of a first day."""
    mover = connect(launchdarkly.rest_uri, token="api-not-this-one")
    with pytest.raises(FlagWriteError, match="is ROUTER_LAUNCHDARKLY_API_TOKEN right") as refused:
        mover.look(PRIMARY_PROVIDER)
    assert "not-this-one" not in repr(refused.value)
    mover.close()


@pytest.mark.parametrize("token", ["", " ", "two words", "with\nline", "tökèn"])
def test_a_token_that_cannot_be_one_is_refused_at_once(token: str) -> None:
    """The HTTP client would show it in its own message."""
    with pytest.raises(ValueError, match="API token") as refused:
        connect("http://127.0.0.1:1", token=token)
    assert token.strip() == "" or token not in str(refused.value)


@pytest.mark.parametrize(("project", "environment"), [("other", "production"), ("payments", "staging")])
def test_a_wrong_project_or_environment_is_named(
    launchdarkly: FakeLaunchDarkly, project: str, environment: str
) -> None:
    """Each message names the setting."""
    mover = connect(launchdarkly.rest_uri, project=project, environment=environment)
    with pytest.raises(FlagWriteError, match=r"ROUTER_LAUNCHDARKLY_|_ENVIRONMENT right"):
        mover.look(PRIMARY_PROVIDER)
    mover.close()


def test_a_value_that_is_no_variation_is_refused_here(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """It says which command adds it."""
    with pytest.raises(FlagWriteError, match=r'no variation "paypal".*bootstrap'):
        mover.move(PRIMARY_PROVIDER, Serves("paypal"), seen=mover.look(PRIMARY_PROVIDER), comment="c")
    with pytest.raises(FlagWriteError, match="add up"):
        mover.move(PRIMARY_PROVIDER, Serves(weights={"stripe": 1}), seen=mover.look(PRIMARY_PROVIDER), comment="c")
    assert launchdarkly.patches == []


def test_an_archived_flag_serves_nobody(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moving it would look like a flip and be none."""
    status, body = launchdarkly.rest_get(PRIMARY_PROVIDER, None)
    monkeypatch.setattr(launchdarkly, "rest_get", lambda *_: (status, {**body, "archived": True}))
    with pytest.raises(FlagWriteError, match="archived"):
        mover.look(PRIMARY_PROVIDER)


def test_a_pending_change_is_waited_for(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """A 400 like any other but for its words; somebody must apply or delete what is pending."""
    launchdarkly.pending_change(PRIMARY_PROVIDER)
    with pytest.raises(FlagUnavailableError, match="pending on this flag") as refused:
        flip(mover)
    assert refused.value.retry_after_s is None
    launchdarkly.pending_change(PRIMARY_PROVIDER, pending=False)
    assert flip(mover).serves == TO_ADYEN


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"X-Ratelimit-Reset": str(int((NOW.timestamp() + 7) * 1000))}, 7.0),
        ({"X-Ratelimit-Reset": str(int((NOW.timestamp() - 7) * 1000))}, 0.0),
        ({"Retry-After": "12"}, 12.0),
        ({"Retry-After": "12", "X-Ratelimit-Reset": str(int((NOW.timestamp() + 3) * 1000))}, 12.0),
        ({"X-Ratelimit-Reset": "soon"}, None),
        ({"X-Ratelimit-Reset": "nan"}, None),
        ({"X-Ratelimit-Reset": "9" * 30}, 600.0),
        ({}, None),
    ],
)
def test_a_rate_limit_says_for_how_long(headers: dict[str, str], expected: float | None) -> None:
    """Epoch milliseconds against the clock passed in; seconds where the limit is by address."""
    with answering(429, b"{}", headers) as uri:
        mover = connect(uri, now=lambda: NOW)
        with pytest.raises(FlagUnavailableError) as refused:
            mover.look(PRIMARY_PROVIDER)
        mover.close()
    assert refused.value.retry_after_s == pytest.approx(expected, abs=0.01)


def test_the_stand_in_tells_its_limits_in_milliseconds(launchdarkly: FakeLaunchDarkly) -> None:
    """As LaunchDarkly does."""
    mover = connect(launchdarkly.rest_uri)
    launchdarkly.fail_next("get", status=429, reset_in_s=30)
    with pytest.raises(FlagUnavailableError) as refused:
        mover.look(PRIMARY_PROVIDER)
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 30
    mover.close()


@pytest.mark.parametrize(
    ("how", "says"),
    [("hang", "did not answer in time"), ("cut", "broke the connection"), ("garbage", "is a proxy between")],
)
def test_no_answer_is_no_verdict(launchdarkly: FakeLaunchDarkly, how: str, says: str) -> None:
    """The store is away; whether a write was done is not known."""
    mover = connect(launchdarkly.rest_uri, read_s=0.2 if how == "hang" else 5.0)
    launchdarkly.fail_next("get", how=how)
    launchdarkly.fail_next("patch", how=how)
    with pytest.raises(FlagUnavailableError, match=says):
        mover.look(PRIMARY_PROVIDER)
    with pytest.raises(FlagUnavailableError, match=says):
        flip(mover)
    mover.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"key": "payments-primary-provider", "variations": [{"value": 1}], "environments": {"production": {}}}',
        b'{"key": "payments-primary-provider", "variations": [], "environments": {"production": {}}, "_version": 1}',
        b'{"key": "payments-primary-provider", "_version": 1, "variations": [{"_id": "a", "value": 1}], '
        b'"environments": {"production": {"version": 1, "on": true, "fallthrough": {"variation": 3}}}}',
        b'{"key": "payments-primary-provider", "_version": 1, "variations": [{"_id": "a", "value": 1}], '
        b'"environments": {"production": {"version": 1, "on": true, "fallthrough": {"rollout": {"variations": 1}}}}}',
        b'{"key": "payments-primary-provider", "_version": 1, "variations": [{"_id": "a", "value": 1}], '
        b'"environments": {"production": {"version": 1, "on": true, "fallthrough": {"rollout": {}}}}}',
        b'{"key": "another", "variations": [], "environments": {"production": {}}}',
    ],
)
def test_an_answer_that_is_no_flag_is_an_outage(body: bytes) -> None:
    """Whatever answers in LaunchDarkly's place, nothing worse than "unavailable" comes of it."""
    with answering(200, body) as uri:
        mover = connect(uri)
        with pytest.raises(FlagUnavailableError):
            mover.look(PRIMARY_PROVIDER)
        mover.close()


def test_a_truncated_or_endless_answer_is_an_outage() -> None:
    """Cut short, or dripping past the read timeout."""
    with answering(200, b"{}", {"Content-Length": "1000"}) as uri:
        mover = connect(uri)
        with pytest.raises(FlagUnavailableError, match="broke the connection"):
            mover.look(PRIMARY_PROVIDER)
        mover.close()


def test_an_answer_that_drips_does_not_hold_the_worker() -> None:
    """Each byte comes within the read timeout, and the whole never ends."""
    with answering(200, b" " * 10_000, drip_s=0.05) as uri:
        mover = connect(uri, read_s=0.3)
        started = time.monotonic()
        with pytest.raises(FlagUnavailableError, match="did not answer in time"):
            mover.look(PRIMARY_PROVIDER)
        assert time.monotonic() - started < 0.3 + 2
        mover.close()


def test_an_outage_and_its_end(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """Connections refused, then back on the same port: the pooled connection that broke is no obstacle."""
    seen = mover.look(PRIMARY_PROVIDER)
    launchdarkly.away()
    with pytest.raises(FlagUnavailableError, match="cannot be reached"):
        flip(mover, seen)
    launchdarkly.back()
    assert flip(mover, seen).serves == TO_ADYEN


def test_a_name_that_there_is_not_is_said() -> None:
    """A typo in the API's address."""
    mover = connect("http://launchdarkly.invalid")
    with pytest.raises(FlagUnavailableError, match=r"no such name|cannot be reached"):
        mover.look(PRIMARY_PROVIDER)
    mover.close()


def test_a_change_that_is_taken_and_not_made_is_an_error(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LaunchDarkly does not know in a body it ignores without a word: the answer is looked at."""
    monkeypatch.setattr(launchdarkly, "rest_patch", lambda key, _body, **_: launchdarkly.rest_get(key, None))
    with pytest.raises(FlagWriteError, match="does not serve it"):
        flip(mover)


def test_an_answer_without_the_environment_is_looked_up(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the flag is read back by a call of its own."""
    really = launchdarkly.rest_patch

    def without(key: str, body: Any, **options: bool) -> tuple[int, Any]:
        status, answer = really(key, body, **options)
        return status, {**answer, "environments": {}}

    monkeypatch.setattr(launchdarkly, "rest_patch", without)
    assert flip(mover).serves == TO_ADYEN
    assert launchdarkly.calls == ["get", "get", "patch", "get"]


# ---------------------------------------------------------------- approvals


def test_where_approval_is_needed_a_request_is_filed_and_a_person_applies_it(launchdarkly: FakeLaunchDarkly) -> None:
    """The people who are to be told are named in it."""
    mover = connect(launchdarkly.rest_uri, notify=["member-1"])
    launchdarkly.need_approval(PRIMARY_PROVIDER)
    with pytest.raises(ApprovalNeededError):
        flip(mover)
    request = mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="stripe open 61 s")
    approval = launchdarkly.approvals[request]
    assert (approval.description, approval.notify, approval.status) == ("stripe open 61 s", ["member-1"], "pending")
    assert launchdarkly.serves(PRIMARY_PROVIDER) == "stripe"
    launchdarkly.approve(request)
    assert mover.look(PRIMARY_PROVIDER).serves == TO_ADYEN
    with pytest.raises(FlagWriteError, match="nothing to approve"):
        mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="again")
    mover.close()


def test_a_request_whose_answer_was_lost_is_found_again(
    mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly
) -> None:
    """By its comment, which names the incident; another one's, or one that is gone, is not taken for it."""
    other = mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="another incident")
    launchdarkly.fail_next("ask", how="cut", acts=True)
    with pytest.raises(FlagUnavailableError):
        mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c")
    request = mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c")
    assert list(launchdarkly.approvals) == [other, request]
    mover.withdraw(PRIMARY_PROVIDER, request)
    assert mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c") not in (other, request)


def test_a_request_is_withdrawn_once_or_twice(mover: LaunchDarklyMover, launchdarkly: FakeLaunchDarkly) -> None:
    """One that is gone already is no error; an outage is."""
    request = mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c")
    mover.withdraw(PRIMARY_PROVIDER, request)
    mover.withdraw(PRIMARY_PROVIDER, request)
    assert launchdarkly.approvals[request].status == "withdrawn"
    launchdarkly.fail_next("withdraw", status=503)
    with pytest.raises(FlagUnavailableError):
        mover.withdraw(PRIMARY_PROVIDER, request)
    launchdarkly.fail_next("ask", status=403)
    with pytest.raises(FlagWriteError, match="forbids"):
        mover.ask_approval(PRIMARY_PROVIDER, TO_ADYEN, comment="c")
