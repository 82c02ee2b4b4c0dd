"""A decision explains itself: its printed terms recompute, and what is changed changes its own reason."""

from __future__ import annotations

import random
from decimal import Decimal

from flags.contract import RoutingFlags, RoutingTuning
from router.policy import Decision, Offer, decide, drawn
from router.transitions import State
from router.value import Terms
from tests.unit.printed_values import recomputed

NAMES = ("stripe", "adyen", "third")


def random_offers(rng: random.Random) -> list[Offer]:
    """Three providers, in whatever state."""
    return [
        Offer(
            name,
            Terms(
                rng.random(), rng.uniform(0.5, 1), rng.uniform(0, 3), rng.choice([0, 0.13]), rng.random() < 0.9
            ).rounded(),
            rng.choice([State.CLOSED, State.CLOSED, State.CLOSED, State.OPEN, State.SLOW_START]),
            rng.choice([None, None, None, "no token for this provider"]),
            busy=rng.random() < 0.1,
        )
        for name in NAMES
    ]


def random_flags(rng: random.Random) -> RoutingFlags:
    """Whatever a product team might set."""
    return RoutingFlags(
        primary=rng.choice(NAMES),
        strategy=rng.choice(["primary-first", "best-value"]),
        enabled={name: rng.random() < 0.9 for name in NAMES},
        tuning=RoutingTuning(
            margin=rng.choice([0.0, 0.01, 0.1, 0.125, 1.0]),
            explore=rng.choice([None, 0.1]),
            holdout=rng.choice([0, 0.1]),
            switch_advantage_pp=rng.choice([0.0, 0.5, 3]),
        ),
    )


def test_the_printed_terms_of_a_thousand_decisions_recompute_to_the_cent() -> None:
    """And the order is by the values that are printed, but for the leader."""
    rng = random.Random(5)
    for _ in range(1000):
        amount = round(rng.lognormvariate(4, 1.5), 2)
        flags = random_flags(rng)
        decision = decide(random_offers(rng), flags, amount, draws=drawn(flags, rng.random))
        shown = decision.to_json()["candidates"]
        for each in shown:
            name, value, made = recomputed(each["reasons"][-1])
            assert name == each["provider"]
            assert abs(value - made) <= Decimal("0.00501"), each["reasons"][-1]
            assert abs(Decimal(str(each["value"])) - made) <= Decimal("0.00011")
            if each["eligible"]:
                assert not {"disabled by flag", "circuit open", "too many calls under way"} & set(each["reasons"])
            else:
                assert len(each["reasons"]) > 1
        led = {decision.choice, *decision.order[:1]}
        behind = [each["value"] for each in shown if each["eligible"] and each["provider"] not in led]
        assert behind == sorted(behind, reverse=True)


def reasons(decision: Decision) -> dict[str, list[str]]:
    """By provider."""
    return {each.provider: decision.reasons(each) for each in decision.candidates}


def test_a_change_changes_the_right_reason_and_no_other() -> None:
    """A flag, a breaker, a fee, a score: each shows where it acts."""
    rng, changed = random.Random(6), 0
    for _ in range(1000):
        offers = [each._replace(circuit=State.CLOSED, obstacle=None, busy=False) for each in random_offers(rng)]
        flags = RoutingFlags(primary=rng.choice(NAMES), strategy=rng.choice(["primary-first", "best-value"]))
        before = reasons(decide(offers, flags, 60.0))
        victim = rng.randrange(len(NAMES))
        name, terms = NAMES[victim], offers[victim].terms
        what = rng.choice(["flag", "circuit", "fee", "approval"])
        if what == "flag":
            flags = RoutingFlags(primary=flags.primary, strategy=flags.strategy, enabled={name: False})
        else:
            new = {
                "circuit": offers[victim]._replace(circuit=State.OPEN),
                "fee": offers[victim]._replace(
                    terms=terms._replace(fee=terms.fee - 0.01 if terms.fee > 1 else terms.fee + 0.01)
                ),
                "approval": offers[victim]._replace(terms=terms._replace(approval=round(terms.approval / 2, 4))),
            }[what]
            offers[victim] = new
        after = reasons(decide(offers, flags, 60.0))
        fresh = set(after[name]) - set(before[name])
        expected = {"flag": "disabled by flag", "circuit": "circuit open", "fee": "fee ", "approval": "approval "}[
            what
        ]
        assert any(expected in reason for reason in fresh), (what, before[name], after[name])
        for other in NAMES:
            # What another provider is worth is its own affair; only where it stands may be told anew.
            if other != name and "guard" not in after[other][-1] + before[other][-1]:
                assert after[other][-1] == before[other][-1]
        changed += 1
    assert changed == 1000
