"""The Flags page's rows: what is read, what is the default, what is wrong."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from flags.changes import FlagChange
from flags.contract import RoutingFlags, RoutingTuning
from flags.definitions import definitions
from router.console.page_flags import row_of

FLAGS = definitions(("stripe", "adyen"))


def told(**new: Any) -> FlagChange:
    return FlagChange(1, "flag", "key", 1, None, new, dt.datetime(2026, 11, 21, tzinfo=dt.UTC), "web:1")


@pytest.mark.parametrize(
    ("key", "new", "wrong"),
    [
        ("payments-primary-provider", {"on": True, "serves": "paypal"}, ['"paypal" is not one of stripe, adyen']),
        ("payments-primary-provider", {"on": False, "serves": "paypal", "off": "adyen"}, []),
        ("payments-primary-provider", {"on": True, "serves": {"per_cent": {"stripe": 90, "paypal": 10}}}, ["paypal"]),
        ("payments-provider-adyen-enabled", {"on": True, "serves": "yes"}, ["not true or false"]),
        ("payments-routing-tuning", {"on": True, "serves": {"margin": 7}}, ["margin is outside 0 to 1"]),
        ("payments-routing-tuning", {"on": True, "serves": {"margin": 0.2}}, []),
    ],
)
def test_a_wrong_value_is_named_where_somebody_is_served_it(key: str, new: dict[str, Any], wrong: list[str]) -> None:
    """Of a rollout each value; of a flag that is off only what it serves then."""
    found = row_of(FLAGS[key], RoutingFlags(), told(**new)).wrong
    assert len(found) == len(wrong)
    assert all(word in sentence for word, sentence in zip(wrong, found, strict=True))


def test_each_flag_shows_what_is_read_beside_its_default() -> None:
    """A switch that is off, a changed number, an empty notice."""
    read = RoutingFlags(enabled={"stripe": False, "adyen": True}, tuning=RoutingTuning(margin=0.3))
    rows = {key: row_of(flag, read, None) for key, flag in FLAGS.items()}

    assert rows["payments-provider-stripe-enabled"].read == "false"
    assert not rows["payments-provider-stripe-enabled"].is_default
    assert rows["payments-provider-adyen-enabled"].is_default
    assert "margin 0.3" in rows["payments-routing-tuning"].read
    assert "margin 0.1," in rows["payments-routing-tuning"].default
    assert rows["payments-maintenance-notice"].read == "(empty)"
