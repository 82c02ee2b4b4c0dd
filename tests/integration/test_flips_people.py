"""A flip among people at LaunchDarkly: their changes win, their rules and targets stay, and the record says so.

After every round a customer pays, and the fixture looks at every payment in the end: captured once, none lost, none
sent to the failing provider after its circuit had opened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flags.contract import AUTO_FLIP_ENABLED, PRIMARY_PROVIDER
from providers.sandbox.server import Sandbox
from router.flip_ending import UNHEARD_AFTER_S
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.integration.flip_house import FlipHouse, open_house, version

HALVES = {"stripe": 50_000, "adyen": 50_000}

ByPerson = Callable[[FakeLaunchDarkly], None]


def to_adyen(ld: FakeLaunchDarkly) -> None:
    ld.person_sets(PRIMARY_PROVIDER, "adyen")


def to_stripe(ld: FakeLaunchDarkly) -> None:
    ld.person_sets(PRIMARY_PROVIDER, "stripe")


def to_halves(ld: FakeLaunchDarkly) -> None:
    ld.person_sets_rollout(PRIMARY_PROVIDER, HALVES)


def superseded_by_a_person(house: FlipHouse) -> None:
    """So it is on record and told, and nothing is in force."""
    assert (house.flip.state, house.overriding, house.told[-1]) == ("superseded", False, "flip_superseded")
    cause = house.flip.cause or ""
    assert "person" in cause
    assert cause in house.alerts[-1].text
    assert "in place of" not in house.last.why[0]


# ---------------------------------------------------------------- before the flip


def test_a_person_who_has_moved_the_flag_already_leaves_nothing_to_do(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The flag serves another: the failing provider is nobody's primary."""
    house.outage()
    to_adyen(ld)
    house.caught_up()
    house.after(60, rounds=3)
    assert (house.flips.newest(limit=1), house.told, house.patches) == ([], [], [])
    assert (house.last.primary, house.served) == ("adyen", "adyen")


def test_a_person_who_has_decided_for_the_failing_provider_in_this_incident_is_obeyed(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """There and back again: no override, no write, and a record that says whose word it is."""
    house.outage()
    for change in (to_adyen, to_stripe):
        house.clock.advance(5)
        change(ld)
        house.caught_up()
    house.after(60, rounds=3)
    superseded_by_a_person(house)
    assert "(from adyen to stripe)" in (house.flip.cause or "")
    assert (house.served, house.patches, house.last.primary) == ("stripe", [], "stripe")


# ---------------------------------------------------------------- while it is written


@pytest.mark.parametrize(("change", "served"), [(to_adyen, "adyen"), (to_halves, HALVES)])
def test_a_change_between_the_look_and_the_write_stands(
    house: FlipHouse, ld: FakeLaunchDarkly, change: ByPerson, served: Any
) -> None:
    """Even where the failing provider keeps a part, and before the stream has told of it: nothing is written."""
    ld.before("get", lambda: change(ld), skip=1)
    house.outage()
    house.after(60)
    house.caught_up()
    house.after(60)
    superseded_by_a_person(house)
    assert (house.served, house.patches, house.flip.requested_at) == (served, [], None)


@pytest.mark.parametrize(("change", "served"), [(to_adyen, "adyen"), (to_halves, HALVES)])
def test_a_change_at_the_moment_of_the_write_stands(
    house: FlipHouse, ld: FakeLaunchDarkly, change: ByPerson, served: Any
) -> None:
    """LaunchDarkly refuses the later of the two (409)."""
    ld.during_patch(lambda: change(ld))
    house.outage()
    house.after(60)
    house.caught_up()
    house.after(60)
    superseded_by_a_person(house)
    assert (house.served, house.answered, house.writes) == (served, [409], 0)


def test_a_rule_that_a_person_adds_as_the_write_is_on_its_way_is_kept(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The write names the default rule and nothing else."""
    ld.before_patch(lambda: ld.update(PRIMARY_PROVIDER, rules=[_rule("CHF", "stripe")]))
    house.outage()
    house.after(60)
    assert (house.flip.state, house.served, house.answered) == ("confirmed", "adyen", [200])
    assert len(ld.flag(PRIMARY_PROVIDER)["rules"]) == 1


def test_a_change_in_the_milliseconds_between_the_last_look_and_the_write_is_overwritten_and_in_the_audit(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """LaunchDarkly knows no conditional change: what is left is to see it, in its audit and in ours."""
    ld.before_patch(lambda: to_halves(ld))
    house.outage()
    house.after(60)
    house.caught_up()
    assert (house.flip.state, version(house.flip.mark), version(house.flip.written)) == ("confirmed", "1", "3")
    assert (house.served, house.writes) == ("adyen", 1)
    changes = house.shop.rows("SELECT new FROM flag_changes WHERE key = :key ORDER BY number", key=PRIMARY_PROVIDER)
    told = [json.loads(row["new"])["serves"] for row in changes]
    assert told == ["stripe", {"per_cent": {"stripe": 50, "adyen": 50}}, "adyen"]


def test_a_person_who_undoes_a_write_whose_answer_was_lost_is_obeyed(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The look finds another mark, and the failing provider: not ours, and not written again."""
    ld.fail_next("patch", how="cut", acts=True)
    ld.before("get", lambda: to_stripe(ld), skip=2)
    house.outage()
    house.after(60)
    house.caught_up()
    house.after(60)
    superseded_by_a_person(house)
    assert (house.served, len(house.patches), house.writes) == ("stripe", 1, 1)


# ---------------------------------------------------------------- after it


@pytest.mark.parametrize("after_s", [0.5, 5], ids=["overriding", "dropped"])
def test_a_person_who_sets_the_flag_back_is_not_overruled_in_this_incident(
    house: FlipHouse, ld: FakeLaunchDarkly, after_s: float
) -> None:
    """The override goes with the next round, though the flag serves the failing provider; no second flip."""
    house.outage()
    house.after(60)
    house.caught_up()
    house.after(after_s)
    assert house.overriding is (after_s < 2)
    to_stripe(ld)
    house.caught_up()
    house.after(1)
    assert (house.overriding, house.last.primary) == (False, "stripe")
    house.after(60, rounds=10)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "stripe", 1)
    assert house.told == ["flip_confirmed"]


def test_a_stream_that_tells_nothing_keeps_the_override_for_its_bound(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Written, but not heard: payments go by the override meanwhile."""
    ld.stall()
    house.outage()
    house.after(60)
    assert (house.flip.state, house.served) == ("confirmed", "adyen")
    house.after(UNHEARD_AFTER_S - 1)
    assert house.obeyed
    ld.flow()
    house.caught_up()
    house.after(0.1)
    assert (house.overriding, house.last.primary) == (False, "adyen")


# ---------------------------------------------------------------- flips are switched off


def switch(house: FlipHouse, ld: FakeLaunchDarkly, *, on: bool) -> None:
    ld.person_switches(AUTO_FLIP_ENABLED, on=on)
    house.caught_up(AUTO_FLIP_ENABLED)


def test_switched_off_during_the_incident_there_is_no_flip_until_it_is_switched_on(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """Nothing is decided, and nothing asked of LaunchDarkly."""
    house.outage()
    switch(house, ld, on=False)
    house.after(60, rounds=3)
    assert (house.flips.newest(limit=1), ld.calls, house.last.primary) == ([], [], "stripe")
    switch(house, ld, on=True)
    house.after(1)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "adyen", 1)


@pytest.mark.parametrize("call", ["get", "patch"])
def test_switched_off_while_a_flip_waits_it_is_taken_back(house: FlipHouse, ld: FakeLaunchDarkly, call: str) -> None:
    """The override ends at once, also where the write is in doubt; on again, this incident has had its flip."""
    ld.fail_next(call, status=503, times=3)
    house.outage()
    house.after(60)
    assert house.obeyed
    switch(house, ld, on=False)
    house.after(2)
    assert (house.overriding, house.last.primary) == (False, "stripe")
    # A write in doubt may yet come, for half a minute.
    house.after(31)
    assert (house.flip.state, house.writes) == ("superseded", 0)
    assert house.flip.cause == "flips were switched off by the flag payments-auto-flip-enabled"
    switch(house, ld, on=True)
    house.after(60)
    assert (house.served, house.writes, house.told) == ("stripe", 0, ["flip_waits", "flip_superseded"])


def test_switched_off_after_the_flip_the_flag_stays(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """It is a person's to set back."""
    house.outage()
    house.after(60)
    switch(house, ld, on=False)
    house.after(60, rounds=2)
    assert (house.flip.state, house.served, house.overriding) == ("confirmed", "adyen", False)


# ---------------------------------------------------------------- rollouts, rules, targets, off


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"stripe": 70_000, "adyen": 30_000}, {"adyen": 100_000}),
        ({"adyen": 70_000, "stripe": 30_000}, {"adyen": 100_000}),
        ({"adyen": 20_000, "stripe": 70_000, "third": 10_000}, {"adyen": 90_000, "third": 10_000}),
    ],
    ids=["70-30", "30-70", "20-70-10"],
)
def test_of_a_rollout_only_the_failing_providers_weight_moves(
    house: FlipHouse, ld: FakeLaunchDarkly, before: dict[str, int], after: dict[str, int]
) -> None:
    """Whom it goes by stays, too; the record has what it was."""
    ld.update(PRIMARY_PROVIDER, variations=["stripe", "adyen", "third"])
    ld.person_sets_rollout(PRIMARY_PROVIDER, before, context_kind="customer")
    house.caught_up()
    house.outage()
    house.after(60)
    flip = house.flip
    assert (flip.state, flip.before) == ("confirmed", {"weights": before})
    assert flip.evidence["percent_moved"] == before["stripe"] / 1000
    assert (house.served, house.answered) == (after, [200])
    assert ld.flag(PRIMARY_PROVIDER)["fallthrough"]["rollout"]["contextKind"] == "customer"
    house.caught_up()
    house.after(UNHEARD_AFTER_S)
    assert not house.overriding


@pytest.fixture(params=[False, True], ids=["pins-stay", "pins-move"])
def pinned(request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox, ld: FakeLaunchDarkly) -> Any:
    """A rule and a target keep some at the failing provider; and whether the setting has them moved."""
    ld.update(
        PRIMARY_PROVIDER,
        rules=[_rule("CHF", "stripe")],
        contextTargets=[{"contextKind": "merchant", "variation": 0, "values": ["big-shop"]}],
    )
    with open_house(tmp_path, sandbox, ld=ld, flip_moves_pins=request.param) as house:
        yield house, request.param
        house.check_payments()


def test_rules_and_targets_of_the_failing_provider_are_named_and_moved_only_where_the_setting_says_so(
    pinned: tuple[FlipHouse, bool], ld: FakeLaunchDarkly
) -> None:
    """In the record and in the alert; the override leaves those whom they place, and the circuit keeps them safe."""
    house, moves = pinned
    ld.fail_next("get", status=503, times=3)
    house.outage()
    house.after(60)
    assert house.obeyed
    swiss = house.pay(currency="CHF")
    assert (swiss.primary, swiss.first) == ("stripe", "adyen")
    house.after(2)
    named = ['target: merchant "big-shop"', 'rule 1: payment currency is "CHF"']
    assert (house.flip.state, house.flip.pins) == ("confirmed", named)
    assert house.flip.evidence["pins_moved"] is moves
    alert = house.alerts[-1]
    assert (alert.kind, alert.detail["pins"]) == ("flip_confirmed", named)
    assert ("still on stripe: " + ", ".join(named) in alert.text) is not moves
    assert (house.served, house.answered) == ("adyen", [200])
    flag = ld.flag(PRIMARY_PROVIDER)
    provider = 1 if moves else 0
    assert (flag["rules"][0]["variation"], flag["contextTargets"][0]["variation"]) == (provider, provider)
    house.caught_up()
    assert house.pay(currency="CHF").primary == ("adyen" if moves else "stripe")


def test_a_flag_that_is_off_and_serves_the_failing_provider_is_overridden_and_left_alone(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """Nothing that is written would move anyone: the record and the alert say so."""
    ld.person_switches(PRIMARY_PROVIDER, on=False)
    house.caught_up()
    house.outage()
    house.after(60)
    assert (house.flip.state, house.told, house.patches) == ("failed", ["flip_failed"], [])
    assert house.flip.cause == "the flag is off: nothing that is written moves anyone"
    assert house.obeyed
    house.incident_over()
    assert (house.overriding, house.last.first) == (False, "stripe")


def test_a_flag_that_is_off_and_serves_another_is_as_a_person_wants_it(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """The failing provider is nobody's primary."""
    ld.update(PRIMARY_PROVIDER, on=False, offVariation=1)
    house.caught_up()
    house.outage(by_payments=False)
    house.after(60, rounds=2)
    assert (house.flips.newest(limit=1), house.patches, house.last.primary) == ([], [], "adyen")


def test_a_flag_that_is_switched_off_while_a_flip_waits_is_a_persons(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Off, it serves the failing provider; whoever did that has decided."""
    ld.fail_next("get", status=503, times=3)
    house.outage()
    house.after(60)
    ld.person_switches(PRIMARY_PROVIDER, on=False)
    house.caught_up()
    house.after(2)
    superseded_by_a_person(house)
    assert (house.patches, house.last.primary) == ([], "stripe")


def _rule(currency: str, provider: str) -> dict[str, Any]:
    clause = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": [currency], "negate": False}
    return {"id": currency, "variation": ["stripe", "adyen"].index(provider), "clauses": [clause]}
