"""A payment of the ledger read for a replay, and decided anew: the log's own words give the log's own decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest

from flags.contract import RoutingFlags, RoutingTuning
from router.ledger.decision_log import LogEntry, Tried
from router.policy import Draws, Lane, Offer, decide
from router.replay.asking import Asked, Redecider
from router.replay.holdout import Holdout
from router.replay.logged import LeftOut, Logged, read
from router.replay.report import replay
from router.transitions import State
from router.value import Terms

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
BEST = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0.02))
ORDER = {"payment_method": {"type": "card", "card": {"brand": "visa", "country": "DE"}}}


def offers(stripe: float = 0.80, adyen: float = 0.90, **changed: Any) -> Sequence[Offer]:
    """Three providers, of which the third is worth little; `changed` is adyen's."""
    return [
        Offer("stripe", Terms(stripe, 0.999, 0.64, 0.0)),
        Offer("adyen", Terms(adyen, 0.999, 0.50, 0.13))._replace(**changed),
        Offer("third", Terms(0.4, 0.9, 0.10, 0.05)),
    ]


def an_entry(
    asked: Sequence[Offer] | None = None,
    flags: RoutingFlags = BEST,
    *,
    status: str = "captured",
    tried: Sequence[Tried] | None = None,
    draws: Draws | None = None,
    currency: str = "EUR",
    incumbent: str | None = None,
    **decision: Any,
) -> LogEntry:
    """A payment of 60.00 as the ledger has it, approved by its first choice."""
    made = decide(asked or offers(), flags, 60.0, draws=draws or Draws(), incumbent=incumbent)
    first = made.order[0] if made.order else None
    if tried is None:
        tried = [Tried("att_1", first, "approved", True)] if first else []
    told = {"margin": flags.tuning.margin, "explore": flags.tuning.explore, "holdout": flags.tuning.holdout}
    return LogEntry(
        "pay_1", "shop", NOW, status, 6000, currency, first, "att_1", ORDER, {"tuning": told},
        made.to_json() | decision, tried,
    )  # fmt: skip


def logged(*arguments: Any, **changed: Any) -> Logged:
    found = read(an_entry(*arguments, **changed))
    assert isinstance(found, Logged)
    return found


@pytest.mark.parametrize("incumbent", [None, "adyen"])
@pytest.mark.parametrize(
    "changed",
    [{}, {"share": 0.3}, {"circuit": State.OPEN}, {"obstacle": "no token for this provider"}, {"busy": True}],
)
@pytest.mark.parametrize("strategy", ["best-value", "primary-first"])
def test_asked_for_nothing_the_log_decides_as_it_did(
    incumbent: str | None, changed: dict[str, Any], strategy: Any
) -> None:
    """Its order, its propensities and its obstacles come back from what it wrote."""
    flags = RoutingFlags(primary="stripe", strategy=strategy, tuning=RoutingTuning(explore=0.05, holdout=0.1))
    near = offers(adyen=0.802, **changed)
    case = Redecider(Asked()).case(logged(near, flags, incumbent=incumbent))
    assert case.agrees
    assert sum(each.logged for each in case.options) == pytest.approx(1.0, abs=1e-5)
    assert case.options[case.first].provider == decide(near, flags, 60.0, incumbent=incumbent).order[0]
    assert case.gain == pytest.approx(6.0)
    assert (case.amount, case.currency) == (60.0, "EUR")
    assert case.segment == ("visa", "DE", "<200", "card")


def test_another_primary_strategy_and_tuning_are_what_is_asked() -> None:
    """Each of the three moves the probabilities as the policy says."""
    at = {
        each.provider: each
        for each in Redecider(Asked(strategy="primary-first", primary="third")).case(logged()).options
    }
    # Its tuning stays, and explores 2% under any strategy.
    assert at["third"].asked == pytest.approx(0.98 + 0.02 / 3, abs=1e-6)
    assert at["adyen"].logged == pytest.approx(0.98 + 0.02 / 3, abs=1e-6)
    held = Redecider(Asked(tuning=RoutingTuning(margin=0.2, explore=0.0, switch_advantage_pp=90.0))).case(logged())
    assert {each.provider: each.asked for each in held.options} == {"stripe": 1.0, "adyen": 0.0, "third": 0.0}
    assert held.gain == pytest.approx(12.0)
    assert held.first == [each.provider for each in held.options].index("adyen")


def test_enabled_switches_off_and_on_what_a_flag_can() -> None:
    """A circuit stays open whatever the flag says; one that was switched off is where the log has no support."""
    only = Redecider(Asked(enabled=frozenset({"stripe"}))).case(logged())
    assert {each.provider: each.asked for each in only.options} == {"stripe": 1.0, "adyen": 0.0, "third": 0.0}
    off = RoutingFlags(primary="adyen", strategy="primary-first", enabled={"adyen": False})
    back = Redecider(Asked(enabled=frozenset({"stripe", "adyen"}))).case(logged(offers(), off))
    assert {each.provider: (each.logged, each.asked) for each in back.options if each.provider != "third"} == {
        "adyen": (0.0, 1.0),
        "stripe": (1.0, 0.0),
    }
    both = logged(offers(circuit=State.OPEN), off)
    assert [each.asked for each in Redecider(Asked(enabled=frozenset({"stripe", "adyen"}))).case(both).options] == [
        1.0
    ]
    none = Redecider(Asked(enabled=frozenset())).case(logged())
    assert none.nobody
    assert not none.agrees


def test_the_asked_policy_keeps_choices_of_its_own_per_segment() -> None:
    """Once it has left the primary it stays where it went, within the advantage; a segment of its own asks anew."""
    redecider = Redecider(Asked(tuning=RoutingTuning(explore=0.0, switch_advantage_pp=2.0)))
    near = offers(stripe=0.90, adyen=0.892)

    def leads(asked: Sequence[Offer], **order: Any) -> str:
        entry = an_entry(asked)._replace(**order)
        found = read(entry)
        assert isinstance(found, Logged)
        return max(redecider.case(found).options, key=lambda each: each.asked).provider

    assert leads(near) == "stripe"
    assert leads(offers()) == "adyen"
    assert leads(offers(stripe=0.890, adyen=0.892)) == "adyen"
    assert leads(offers(stripe=0.890, adyen=0.892), amount=100) == "stripe"
    # Nor does the choice of those who have one provider less say anything to the others, an outage's does.
    barred, alike = Terms(0.1, 0.999, 0.64, 0.0), offers(stripe=0.890, adyen=0.892)
    assert leads([Offer("stripe", barred, obstacle="no token for this provider"), *alike[1:]], amount=200) == "adyen"
    assert leads(alike, amount=200) == "stripe"
    assert leads([Offer("stripe", barred, State.OPEN), *alike[1:]], amount=200) == "adyen"
    assert leads(alike, amount=200) == "adyen"


def test_it_begins_with_the_logs_choice_and_goes_its_own_way() -> None:
    """Under the log's primary only: another primary is a question of its own."""
    tuning = RoutingTuning(explore=0.0, switch_advantage_pp=2.0)
    for primary, leads in ((None, ["third", "third"]), ("adyen", ["adyen", "adyen"])):
        redecider = Redecider(Asked(primary=primary, tuning=tuning))
        # All alike but the primary, which is a little behind: it is not taken back, nor is anybody else ahead.
        alike = [
            each._replace(terms=Terms(0.889 if each.provider == (primary or "stripe") else 0.890, 0.999, 0.64, 0.0))
            for each in offers()
        ]
        seen = [logged(alike, incumbent=before) for before in ("third", "stripe")]
        found = [max(redecider.case(each).options, key=lambda option: option.asked).provider for each in seen]
        assert found == leads


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        *[({"status": status}, LeftOut.OPEN) for status in ("processing", "requires_action", "parked")],
        ({"candidates": [{"provider": "stripe", "eligible": True}]}, LeftOut.NO_PROPENSITIES),
        ({"candidates": None}, LeftOut.UNREADABLE),
        ({"strategy": "round-robin"}, LeftOut.UNREADABLE),
        ({"lane": "fast"}, LeftOut.UNREADABLE),
        ({"amount": "much"}, LeftOut.UNREADABLE),
    ],
)
def test_what_tells_nothing_is_left_out_for_a_reason(changed: dict[str, Any], why: LeftOut) -> None:
    """And counted by it in the report."""
    entry = an_entry(**changed)
    assert read(entry) is why
    report = replay([entry, an_entry()], Asked())
    assert (report.read, dict(report.left_out)) == (2, {why: 1})
    assert f"left out: 1, {why.value}" in report.to_text()


def test_propensities_that_do_not_add_up_are_none() -> None:
    """A log that was tampered with, or of another meaning."""
    decision = an_entry().decision
    half = [each | {"propensity": each["propensity"] / 2} for each in decision["candidates"]]
    assert read(an_entry(candidates=half)) is LeftOut.UNREADABLE


def test_cost_is_the_takers_fee_and_an_attempt_fee_for_each_that_was_carried_out() -> None:
    """What was proved not executed costs nothing, and neither does a decline but for its attempt."""
    failed = Tried("att_0", "third", "not_executed", False)
    declined = Tried("att_2", "third", "declined", False)
    taken = Tried("att_1", "adyen", "approved", True)
    assert logged(tried=[failed, declined, taken]).cost == pytest.approx(0.50 + 0.13 + 0.05)
    lost = logged(tried=[declined], status="declined")
    assert not lost.approved
    assert lost.cost == pytest.approx(0.05)
    voided = logged(tried=[taken], status="canceled")
    given_up = logged(tried=[Tried("att_1", "adyen", "canceled", False)], status="canceled")
    assert (voided.approved, given_up.approved) == (True, False)
    assert logged(status="failed", tried=[]).cost == 0.0


def test_nothing_of_use_is_said_to_be_nothing() -> None:
    """No payments, or none with propensities."""
    report = replay([], Asked())
    assert "cannot tell: no payment of the period can be used" in report.to_text()
    assert report.to_json()["can_tell"] is False


def test_the_report_shows_no_estimate_that_it_cannot_tell() -> None:
    """Primary-first that never explored, asked about another primary; and about itself, which is the truth."""
    first = RoutingFlags(primary="stripe", strategy="primary-first")
    entries = [an_entry(offers(), first) for _ in range(50)]
    untold = replay(entries, Asked(primary="adyen"))
    body = untold.to_json()
    assert (body["can_tell"], body["currencies"]["EUR"]["without_support"]) == (False, 1.0)
    assert body["currencies"]["EUR"]["estimates"] is body["overall"]["estimates"] is None
    assert body["currencies"]["EUR"]["earned"]["approval"] == 1.0
    text = untold.to_text()
    assert "cannot tell: 100.00% of the payments would have gone first where the log never does" in text
    assert "would have had  " not in text
    told = replay(entries, Asked())
    assert told.to_json()["currencies"]["EUR"]["estimates"]["approval"]["doubly_robust"]["value"] == 1.0
    assert "would have had  " in told.to_text()


def test_the_strategy_is_compared_with_those_held_out_at_the_same_share() -> None:
    """Nine of ten against seven of ten; another share's days are weighed apart, and explorers are neither."""
    holdout, tuning = Holdout(), RoutingTuning(holdout=0.1, margin=0.10, explore=0.02)
    flags = RoutingFlags(primary="stripe", strategy="best-value", tuning=tuning)
    lanes = {Lane.HOLDOUT: (0.05, 7), Lane.STRATEGY: (0.5, 9), Lane.EXPLORE: (0.11, 0)}
    for lane, (draw, approvals) in lanes.items():
        for number in range(100):
            status = "captured" if number % 10 < approvals else "declined"
            found = logged(offers(), flags, status=status, draws=Draws(lane=draw))
            assert found.lane is lane
            holdout.add(found)
            holdout.add(logged(offers(), BEST, status="declined"))  # no holdout then
    uplift = holdout.by_currency()["EUR"]
    assert (uplift.strategy, uplift.held_out) == (100, 100)
    approval = uplift.measures["approval"]
    assert approval.value == pytest.approx(0.2)
    assert 0.05 < approval.low < 0.12
    assert 0.28 < approval.high < 0.35
    # adyen's fee and attempt of nine of ten, against stripe's fee of seven of ten.
    assert uplift.measures["cost"].value == pytest.approx(0.9 * 0.50 + 0.13 - 0.7 * 0.64)
    assert uplift.measures["net"].value == pytest.approx(0.2 * 6.0 - uplift.measures["cost"].value)
    overall = holdout.overall()
    assert overall is not None
    assert list(overall.measures) == ["approval"]
    assert Holdout().overall() is None
