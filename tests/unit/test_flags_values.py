"""Whatever a person types into a flag, a payment is routed, and the person is told once."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flags.contract import (
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_STRATEGY,
    ROUTING_TUNING,
    RoutingFlags,
    RoutingTuning,
    provider_enabled_key,
)
from flags.definitions import TUNING_BOUNDS, definitions
from flags.values import REMEMBERED_REPORTS, REPORTS_PER_TUNING, ValueChecker, WrongValue

PROVIDERS = ("stripe", "adyen")
DEFAULTS = {key: flag.default for key, flag in definitions(PROVIDERS).items()}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
tunings = json_values | st.dictionaries(st.sampled_from([*TUNING_BOUNDS, "other"]), json_values)


class Reports(list[WrongValue]):
    """A reporter that keeps what it was told."""

    def __call__(self, wrong: WrongValue) -> None:
        self.append(wrong)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def checker(reports: Reports) -> ValueChecker:
    return ValueChecker(PROVIDERS, reports)


def check(checker: ValueChecker, **changed: Any) -> RoutingFlags:
    return checker.check({**DEFAULTS, **{key.replace("_", "-"): value for key, value in changed.items()}})


def test_defaults_are_the_contracts_defaults(checker: ValueChecker, reports: Reports) -> None:
    """The table's defaults and the contract's cannot drift apart."""
    assert checker.defaults == RoutingFlags(enabled={"stripe": True, "adyen": True})
    assert reports == []


def test_the_default_primary_is_a_provider_that_exists(reports: Reports) -> None:
    """A shop without Stripe must not be routed to Stripe by a default."""
    assert ValueChecker(("adyen", "other"), reports).defaults.primary == "adyen"
    assert reports == []


def test_right_values_pass_and_nothing_is_reported(checker: ValueChecker, reports: Reports) -> None:
    """Each kind of value reaches the payment as it was set."""
    flags = checker.check(
        {
            **DEFAULTS,
            PRIMARY_PROVIDER: "adyen",
            provider_enabled_key("stripe"): False,
            ROUTING_STRATEGY: "best-value",
            ROUTING_TUNING: {"margin": 0.2, "explore": 0, "approval_half_life_h": 12},
            MAINTENANCE_NOTICE: "Cards are slow today.",
        }
    )
    assert (flags.primary, flags.strategy, flags.maintenance_notice) == (
        "adyen",
        "best-value",
        "Cards are slow today.",
    )
    assert not flags.is_enabled("stripe")
    assert flags.is_enabled("adyen")
    assert flags.tuning == RoutingTuning(margin=0.2, explore=0.0, approval_half_life_h=12.0)
    assert reports == []


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        (PRIMARY_PROVIDER, 7),
        (PRIMARY_PROVIDER, "Stripe"),
        (PRIMARY_PROVIDER, ["stripe"]),
        (provider_enabled_key("stripe"), "false"),
        (provider_enabled_key("stripe"), 0),
        (ROUTING_STRATEGY, "cheapest"),
        (MAINTENANCE_NOTICE, {"text": "down"}),
        (ROUTING_TUNING, "margin=1"),
        (PRIMARY_PROVIDER, None),
    ],
)
def test_a_wrong_value_falls_back_to_its_default_and_is_reported_once(
    checker: ValueChecker, reports: Reports, key: str, wrong: Any
) -> None:
    """Ten thousand payments with one wrong flag are one line in the log."""
    for value in (wrong, wrong, json.loads(json.dumps(wrong))):
        assert checker.check({**DEFAULTS, key: value}) == checker.defaults
    assert [report.key for report in reports] == [key]
    assert key in str(reports[0])


def test_a_second_wrong_value_is_reported_too(checker: ValueChecker, reports: Reports) -> None:
    """Someone who mends a typo with another typo is told again."""
    for value in ("adyn", "stripe", "adyan", "adyn"):
        check(checker, payments_primary_provider=value)
    assert [report.value for report in reports] == ['"adyn"', '"adyan"']
    assert "not one of stripe, adyen" in reports[0].reason


def test_wrong_keys_of_the_tuning_are_ignored_one_by_one(checker: ValueChecker, reports: Reports) -> None:
    """One wrong number does not throw away the right ones beside it."""
    raw = {
        "margin": 0.3,
        "explore": 0.5,
        "holdout": True,
        "switch_advantage_pp": math.nan,
        "approval_half_life_h": 10**400,
        "marign": 1,
    }
    for _ in range(3):
        assert check(checker, payments_routing_tuning=raw).tuning == RoutingTuning(margin=0.3)
    assert [report.reason.split(";")[0] for report in reports] == [
        '"explore" is outside 0 to 0.1',
        '"holdout" is not a number',
        '"switch_advantage_pp" is outside 0 to 100',
        '"approval_half_life_h" is outside 0.1 to 720',
        '"marign" is not a known key',
    ]


def test_a_report_is_short_and_there_are_not_many_of_one_value(checker: ValueChecker, reports: Reports) -> None:
    """A pasted novel becomes 80 characters, and a thousand wrong keys become twenty lines."""
    check(checker, payments_primary_provider="x" * 10_000)
    assert len(reports.pop().value) <= 80
    check(checker, payments_routing_tuning={f"key{number}": number for number in range(1000)})
    assert len(reports) == REPORTS_PER_TUNING
    assert all(len(report.value) <= 80 for report in reports)


def test_what_was_reported_is_remembered_within_a_bound(checker: ValueChecker, reports: Reports) -> None:
    """A flag that is wrong in ever new ways does not eat the memory."""
    for number in range(3 * REMEMBERED_REPORTS):
        check(checker, payments_primary_provider=f"nobody{number}", payments_routing_tuning={"margin": 2 + number})
    assert len(reports) == 6 * REMEMBERED_REPORTS
    assert len(checker._reported) <= REMEMBERED_REPORTS
    assert len(checker._tunings) <= 64


def test_a_reporter_that_fails_does_not_fail_the_payment() -> None:
    """The log is down; the payment is not."""

    def broken(wrong: WrongValue) -> None:
        raise OSError("disk full")

    checker = ValueChecker(PROVIDERS, broken)
    assert check(checker, payments_primary_provider=1) == checker.defaults


@settings(deadline=None)  # a busy machine is no failure
@given(raw=tunings)
def test_any_json_gives_a_tuning_within_bounds(raw: Any) -> None:
    """No value that JSON can hold raises or gets a number past its bounds."""
    checker = ValueChecker(PROVIDERS, Reports())
    tuning = check(checker, payments_routing_tuning=raw).tuning
    for name, (low, high) in TUNING_BOUNDS.items():
        number = getattr(tuning, name)
        assert (name == "explore" and number is None) or (isinstance(number, float) and low <= number <= high)


@settings(deadline=None)  # a busy machine is no failure
@given(value=json_values, key=st.sampled_from(list(DEFAULTS)))
def test_any_json_in_any_flag_gives_allowed_values(value: Any, key: str) -> None:
    """No value in any flag raises, and each flag is allowed or its default afterwards."""
    checker = ValueChecker(PROVIDERS, Reports())
    flags = checker.check({**DEFAULTS, key: value})
    assert flags.primary in PROVIDERS
    assert flags.strategy in ("primary-first", "best-value")
    assert flags.unknown_outcome_policy in ("hold", "void-and-fail-over")
    assert all(isinstance(on, bool) for on in (*flags.enabled.values(), flags.cascade_on_soft_decline))
    assert isinstance(flags.maintenance_notice, str)


def test_flags_are_kept_with_a_payment_field_by_field() -> None:
    """As the standard library takes a dataclass apart: what a replay of decisions reads back."""
    flags = RoutingFlags(primary="adyen", enabled={"stripe": False}, tuning=RoutingTuning(margin=0.2, explore=0.01))
    assert flags.to_json() == dataclasses.asdict(flags)
    assert list(flags.to_json()) == list(dataclasses.asdict(flags))
