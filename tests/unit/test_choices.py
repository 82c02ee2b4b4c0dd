"""Whom `best-value` keeps to, for each kind of payment: one merchant's limits are no other's."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest

from flags.contract import RoutingFlags, RoutingTuning
from providers.fees import FeeBook, FeeLine
from router.appraisal import Appraiser
from router.choices import REMEMBERED, Choices
from router.clock import ManualClock, SequentialIds
from router.planning import Planner
from router.policy import Offer, decide
from router.scores import Scores
from router.segments import Segment, segment
from router.value import Terms
from tests.fakes.flags import FakeFlags
from tests.fakes.house import a_health, an_order
from tests.fakes.ledger import MemoryStore
from tests.fakes.providers import FakeProvider

BEST = RoutingFlags(primary="stripe", strategy="best-value", tuning=RoutingTuning(explore=0.0))
VISA = segment(1999, "visa", "DE", "card")
PERCENT = {"stripe": Decimal("1.00"), "adyen": Decimal("0.98")}
NAMES = tuple(PERCENT)
LISTS: Mapping[str, tuple[str, ...]] = {"only-adyen": ("adyen",), "only-stripe": ("stripe",)}


class House:
    """A planner for merchants with lists of their own. Adyen is a little cheaper, by less than a switch takes."""

    def __init__(self) -> None:
        self.flags = FakeFlags(BEST)
        self.clock = ManualClock()
        providers = {name: FakeProvider(name) for name in NAMES}
        lines = [FeeLine(name, (None, None, None, None), percent) for name, percent in PERCENT.items()]
        self.planner = Planner(
            providers=providers,
            flags=self.flags,
            health=a_health(NAMES, store=MemoryStore(), clock=self.clock, actor="test"),
            appraiser=Appraiser(NAMES, scores=Scores(NAMES), fees=FeeBook(lines)),
            ids=SequentialIds(),
            allowed=lambda merchant: LISTS.get(merchant, NAMES),
        )

    def order(self, merchant: str) -> list[str]:
        return list(self.planner.plan("pay_1", merchant, an_order(), self.clock.now()).decision.order)


def test_what_a_merchant_is_limited_to_is_no_choice_of_the_others() -> None:
    """Or the traffic of those with a list would move the payments of all who have none."""
    house = House()
    assert house.order("any") == ["stripe", "adyen"]
    assert house.order("only-adyen") == ["adyen"]
    assert house.order("any") == ["stripe", "adyen"]
    assert house.order("only-stripe") == ["stripe"]
    assert house.order("any") == ["stripe", "adyen"]


def test_what_is_switched_off_for_some_is_no_choice_of_the_others() -> None:
    """A kill switch may be targeted at one merchant, or thrown for everyone for a while."""
    house = House()
    house.flags.flags = RoutingFlags(
        primary="stripe", strategy="best-value", tuning=BEST.tuning, enabled={"stripe": False, "adyen": True}
    )
    assert house.order("any") == ["adyen"]
    house.flags.flags = BEST
    assert house.order("any") == ["stripe", "adyen"]


@pytest.mark.parametrize(
    ("primary", "kind", "barred", "kept"),
    [
        ("stripe", VISA, frozenset(), "adyen"),
        ("adyen", VISA, frozenset(), None),
        ("stripe", VISA._replace(country="FR"), frozenset(), None),
        ("stripe", VISA, frozenset({"third"}), None),
    ],
)
def test_a_choice_is_kept_for_its_kind(primary: str, kind: Segment, barred: frozenset[str], kept: str | None) -> None:
    """A team that changes the primary asks anew."""
    choices = Choices()
    offers = [Offer("stripe", Terms(0.5, 1.0, 0.0, 0.0)), Offer("adyen", Terms(0.9, 1.0, 0.0, 0.0))]
    choices.made(decide(offers, BEST, 20.0), VISA)
    assert choices.of(primary, kind, barred) == kept


def test_choices_are_bounded() -> None:
    """Whatever checkout writes."""
    choices = Choices()
    decision = decide([Offer("stripe", Terms(0.5, 1.0, 0.0, 0.0))], BEST, 20.0)
    for number in range(REMEMBERED + 1):
        choices.made(decision, VISA._replace(country=str(number)))
    assert len(choices._choices) == 1
