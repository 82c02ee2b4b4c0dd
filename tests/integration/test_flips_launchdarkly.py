"""A flip against LaunchDarkly: its errors, its approvals and its absence, and what payments did meanwhile.

After every round a customer pays, and the fixture looks at every payment in the end: captured once, none lost, none
sent to the failing provider after its circuit had opened.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flags.contract import PRIMARY_PROVIDER
from providers.sandbox.server import Sandbox
from router.flip_ending import SEEN_AFTER_S
from router.flip_writing import REFUSALS
from router.scores import PRIOR_APPROVAL, PRIOR_AVAILABILITY
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.fakes.threads import together
from tests.integration.flip_house import START_WAIT_S, FlipHouse, open_house, version


def test_an_outage_that_lasts_moves_the_flag_once_and_payments_follow(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Two workers at one moment: one flip, one PATCH; the override first, and the flag itself once it is heard."""
    assert house.pay().first == "stripe"
    house.outage()
    house.after(59.9)
    assert (house.flips.newest(limit=1), house.told, ld.calls) == ([], [], [])
    house.clock.advance(0.1)
    together([each.loops["flips"] for each in house.workers])
    house.follow()
    assert house.flip.state == "overriding"
    house.pay()
    assert house.obeyed
    assert house.served == "stripe"
    together([each.loops["flip-writing"] for each in house.workers])
    house.caught_up()
    house.after(SEEN_AFTER_S)
    flip = house.flip
    assert (flip.state, flip.from_value, flip.to_value, flip.cause) == ("confirmed", "stripe", "adyen", None)
    assert (flip.before, version(flip.mark), version(flip.written), flip.pins) == ({"value": "stripe"}, "1", "2", [])
    # 10% of 50.00 less 2.1% of it, times what is taken before any answer is known; 0.13 an attempt.
    worth = round(PRIOR_AVAILABILITY * PRIOR_APPROVAL * (5 - 1.05) - 0.13, 4)
    assert flip.evidence["candidates"] == [{"provider": "adyen", "value": worth}]
    assert flip.evidence["window"]["failures"] == 3
    assert (flip.evidence["open_seconds"], flip.evidence["percent_moved"]) == (60, 100)
    assert (house.served, house.answered, house.writes) == ("adyen", [200], 1)
    assert house.patches[0].comment == f"auto-failover: {flip.reason}, incident {flip.incident}"
    assert (house.overriding, house.last.primary, house.last.why[0]) == (False, "adyen", "primary")
    assert house.told == ["flip_confirmed"]
    house.after(60, rounds=5)
    assert (house.writes, house.told, house.flip.state) == (1, ["flip_confirmed"], "confirmed")


# ---------------------------------------------------------------- what it answers


@pytest.mark.parametrize("status", [401, 403, 404, 422])
@pytest.mark.parametrize("call", ["get", "patch"])
def test_a_refusal_is_tried_five_times_and_the_override_lasts_as_long_as_the_incident(
    house: FlipHouse, ld: FakeLaunchDarkly, call: str, status: int
) -> None:
    """The record says what LaunchDarkly said, a person is told once, and nothing was written."""
    ld.fail_next(call, status=status, times=REFUSALS)
    house.outage()
    house.after(60)
    # A write that was refused for sure is none.
    assert (house.flip.state, house.flip.refusals, house.flip.requested_at) == ("overriding", 1, None)
    house.after(60, rounds=REFUSALS - 1)
    assert (house.flip.state, house.told) == ("failed", ["flip_failed"])
    assert f"(HTTP {status})" in (house.flip.cause or "")
    assert (house.served, house.writes) == ("stripe", 0)
    assert house.answered == ([] if call == "get" else [status] * REFUSALS)
    assert house.obeyed
    house.incident_over()
    assert (house.flip.state, house.overriding) == ("failed", False)
    assert (house.last.first, house.last.why[0]) == ("stripe", "primary")


FAULTS = ["503", "hang", "cut", "garbage", "409"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["get", "patch"])
def test_what_may_pass_is_tried_again_and_the_flip_completes(
    house: FlipHouse, ld: FakeLaunchDarkly, call: str, fault: str
) -> None:
    """Three looks in a round, then the next one: nothing was done by those that failed, and one write is."""
    _fail(ld, call, fault, times=3)
    house.outage()
    house.after(60)
    flip = house.flip
    assert flip.state in ("overriding", "requested")
    assert flip.cause
    assert house.obeyed
    assert (house.served, house.writes) == ("stripe", 0)
    if fault != "409":
        assert (flip.tries, house.told) == (1, ["flip_waits"])
    house.after(2)
    assert (house.flip.state, house.flip.cause) == ("confirmed", None)
    assert (house.served, house.writes) == ("adyen", 1)
    assert len(house.patches) == (1 if call == "get" else 4)
    house.caught_up()
    house.after(SEEN_AFTER_S)
    assert (house.overriding, house.last.primary) == (False, "adyen")
    assert house.told[-1] == "flip_confirmed"


@pytest.mark.parametrize("call", ["get", "patch"])
def test_a_rate_limit_is_obeyed_until_its_reset(house: FlipHouse, ld: FakeLaunchDarkly, call: str) -> None:
    """429 with `X-Ratelimit-Reset` in epoch milliseconds, two minutes ahead: one call, and the next one then."""
    ld.fail_next(call, status=429, reset_in_s=120)
    house.outage()
    house.after(60)
    asked = len(ld.calls)
    house.after(59, rounds=2)
    assert len(ld.calls) == asked
    assert house.obeyed
    assert (house.flip.cause, house.told) == ("LaunchDarkly's API limits our rate (HTTP 429)", ["flip_waits"])
    house.after(3)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "adyen", 1)


@pytest.mark.parametrize("fault", ["503", "hang", "cut", "garbage"])
def test_a_write_whose_answer_was_lost_is_found_done(house: FlipHouse, ld: FakeLaunchDarkly, fault: str) -> None:
    """In the same round, by a look: there is no second PATCH."""
    _fail(ld, "patch", fault, acts=True)
    house.outage()
    house.after(60)
    assert (house.flip.state, version(house.flip.written), house.told) == ("confirmed", "2", ["flip_confirmed"])
    assert (house.served, len(house.patches), house.writes) == ("adyen", 1, 1)
    house.caught_up()
    house.after(SEEN_AFTER_S)
    assert (house.overriding, house.last.primary) == (False, "adyen")


def test_a_lost_answer_is_followed_by_the_other_worker(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """LaunchDarkly took the write and was away after it: whoever looks first when it is back finds it done."""
    _fail(ld, "patch", "cut", acts=True)
    _fail(ld, "get", "503", times=2, skip=2)
    house.outage()
    house.after(60)
    assert (house.flip.state, house.served, house.told) == ("requested", "adyen", ["flip_waits"])
    assert house.overriding
    house.clock.advance(2)
    house.workers[1].round()
    house.after()
    assert (house.flip.state, len(house.patches), house.told[-1]) == ("confirmed", 1, "flip_confirmed")


def test_a_scheduled_change_that_is_pending_is_waited_for(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """400, whose words say so: the record names it, and the flip completes once a person has seen to it."""
    ld.pending_change(PRIMARY_PROVIDER)
    house.outage()
    house.after(60)
    assert house.flip.state == "requested"
    assert "scheduled change" in (house.flip.cause or "")
    assert (house.told, set(house.answered), house.served) == (["flip_waits"], {400}, "stripe")
    assert house.obeyed
    ld.pending_change(PRIMARY_PROVIDER, pending=False)
    house.after(60)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "adyen", 1)


# ---------------------------------------------------------------- approvals


@pytest.fixture
def asking(house: FlipHouse, ld: FakeLaunchDarkly) -> FlipHouse:
    """The flag needs approval (405), and the flip has filed its request."""
    ld.need_approval(PRIMARY_PROVIDER)
    house.outage()
    house.after(60)
    assert house.flip.state == "needs approval"
    (approval,) = ld.approvals.values()
    assert (house.flip.approval, approval.status) == (approval.id, "pending")
    assert house.flip.incident in approval.description
    assert (house.answered, house.served, house.told) == ([405], "stripe", ["flip_needs_approval"])
    assert approval.id in house.alerts[0].text
    return house


def test_an_approved_request_is_the_flips_own_write(asking: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The override stays until then, however long it takes; afterwards the flag itself serves."""
    asking.after(60, rounds=3)
    assert asking.obeyed
    assert len(ld.approvals) == 1
    ld.approve(asking.flip.approval or "")
    asking.caught_up()
    asking.after(30)
    assert (asking.flip.state, asking.served, asking.answered) == ("confirmed", "adyen", [405])
    asking.after(SEEN_AFTER_S)
    assert (asking.overriding, asking.last.primary) == (False, "adyen")
    assert asking.told == ["flip_needs_approval", "flip_confirmed"]


def test_a_declined_request_is_a_persons_word(asking: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """It is not asked again, and the override ends; nobody is sent to the failing provider all the same."""
    ld.decline(asking.flip.approval or "")
    asking.after(60, rounds=3)
    assert (asking.flip.state, asking.served, asking.answered) == ("superseded", "stripe", [405])
    assert (asking.overriding, len(ld.approvals), asking.writes) == (False, 1, 0)
    assert asking.told == ["flip_needs_approval", "flip_superseded"]


def test_a_request_that_nobody_approved_in_time_is_withdrawn(asking: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Approved tomorrow it would move everyone for no reason."""
    asking.incident_over()
    (approval,) = ld.approvals.values()
    assert (approval.status, asking.flip.state, asking.overriding) == ("withdrawn", "superseded", False)
    assert asking.flip.cause == f"the incident {asking.flip.incident} is over"
    assert (asking.served, asking.writes, asking.last.first) == ("stripe", 0, "stripe")
    assert asking.told == ["flip_needs_approval", "flip_superseded"]


@pytest.mark.parametrize("withdrawn_after", [0, 3], ids=["at-once", "after-errors"])
def test_a_person_who_decides_otherwise_while_it_is_asked_has_decided(
    asking: FlipHouse, ld: FakeLaunchDarkly, withdrawn_after: int
) -> None:
    """The request is withdrawn, by another try where LaunchDarkly does not answer; the flag stays as they made it."""
    halves = {"stripe": 50_000, "adyen": 50_000}
    ld.person_sets_rollout(PRIMARY_PROVIDER, halves)
    asking.caught_up()
    if withdrawn_after:
        ld.fail_next("withdraw", status=503, times=withdrawn_after)
    asking.after(30)
    assert not asking.overriding
    asking.after(30)
    (approval,) = ld.approvals.values()
    assert (approval.status, asking.flip.state, asking.served) == ("withdrawn", "superseded", halves)
    assert asking.answered == [405]


def test_a_request_that_may_not_be_filed_fails_the_flip(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """403: after five tries a person is told, and the override lasts as long as the incident."""
    ld.need_approval(PRIMARY_PROVIDER)
    ld.fail_next("ask", status=403, times=REFUSALS)
    house.outage()
    house.after(60, rounds=6)
    assert (house.flip.state, house.told, ld.approvals) == ("failed", ["flip_failed"], {})
    assert "(HTTP 403)" in (house.flip.cause or "")
    assert (house.served, house.obeyed) == ("stripe", True)


def test_a_request_whose_answer_was_lost_is_not_filed_twice(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The one that is there is found again: nobody else would ever withdraw it."""
    ld.need_approval(PRIMARY_PROVIDER)
    ld.fail_next("ask", how="cut", acts=True)
    house.outage()
    house.after(60)
    (approval,) = ld.approvals.values()
    assert (house.flip.state, house.flip.approval, house.obeyed) == ("needs approval", approval.id, True)
    house.incident_over()
    assert (approval.status, house.flip.state) == ("withdrawn", "superseded")


# ---------------------------------------------------------------- away


def test_away_for_the_whole_incident_the_override_holds_and_the_flip_completes_when_it_is_back(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """It is asked less and less often, a person is told once."""
    ld.away()
    house.outage()
    house.after(60)
    house.after(60, rounds=8)
    assert (house.flip.state, house.told) == ("overriding", ["flip_waits"])
    assert house.flip.tries > 3
    assert house.obeyed
    ld.back()
    house.after(76)
    assert (house.flip.state, house.served, house.answered) == ("confirmed", "adyen", [200])
    house.caught_up()
    house.after(5)
    assert (house.overriding, house.last.primary) == (True, "adyen")  # another process may have no stream yet
    house.after(35)
    assert (house.overriding, house.last.primary) == (False, "adyen")
    assert house.told == ["flip_waits", "flip_confirmed"]


def test_away_until_the_incident_is_over_the_flip_is_superseded(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The override ends with the incident, without LaunchDarkly; what it missed is not written later."""
    ld.away()
    house.outage()
    house.after(60, rounds=3)
    assert house.obeyed
    house.incident_over()
    assert (house.flip.state, house.overriding, house.last.first) == ("superseded", False, "stripe")
    assert house.flip.cause == f"the incident {house.flip.incident} is over"
    ld.back()
    house.after(60, rounds=2)
    assert (house.served, house.patches, house.told) == ("stripe", [], ["flip_waits", "flip_superseded"])


@pytest.mark.parametrize(
    ("known", "over"),
    [(False, False), (True, False), (True, True)],
    ids=["nothing-known", "last-known", "last-known-superseded"],
)
def test_away_at_start_the_router_starts_and_flips_by_what_is_known(
    tmp_path: Path, sandbox: Sandbox, ld: FakeLaunchDarkly, known: bool, over: bool
) -> None:
    """Within its bound, with the ledger's last flags or the defaults; the override needs no LaunchDarkly."""
    rule = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": ["CHF"], "negate": False}
    ld.update(PRIMARY_PROVIDER, rules=[{"id": "swiss", "variation": 1, "clauses": [rule]}])
    if known:
        with open_house(tmp_path, sandbox, ld=ld) as before:
            before.caught_up()
    ld.away()
    begun = time.monotonic()
    with open_house(tmp_path, sandbox, ld=ld) as house:
        assert time.monotonic() - begun < 3 * START_WAIT_S + 3
        status = house.shop.core.flags.status()
        assert status.serves == ("last known" if known else "defaults")
        assert house.pay(currency="CHF").primary == ("adyen" if known else "stripe")
        house.outage()
        house.after(60, rounds=3)
        assert (house.flip.state, house.told) == ("overriding", ["flip_waits"])
        assert house.obeyed
        if over:
            house.incident_over()
            assert (house.flip.state, house.overriding, house.last.first) == ("superseded", False, "stripe")
        ld.back()
        house.caught_up()
        house.after(60)
        assert house.shop.core.flags.status().serves == "current"
        ends = ("superseded", "stripe", 0) if over else ("confirmed", "adyen", 1)
        assert (house.flip.state, house.served, house.writes) == ends
        house.after(5)
        assert house.overriding == (not over)  # another process may have no stream yet
        house.after(35)
        assert (house.overriding, house.last.primary) == (False, "stripe" if over else "adyen")
        house.check_payments()


def _fail(ld: FakeLaunchDarkly, call: str, fault: str, *, times: int = 1, acts: bool = False, skip: int = 0) -> None:
    """The next calls of that name fail so, after `skip` that do not."""

    def fail() -> None:
        if fault.isdigit():
            ld.fail_next(call, status=int(fault), times=times, acts=acts)
        else:
            ld.fail_next(call, how=fault, times=times, acts=acts)

    if skip:
        ld.before(call, fail, skip=skip)
    else:
        fail()
