"""The one table of flags, and what a person may type on the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flags.contract import (
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_TUNING,
    FlagWriteError,
    RoutingTuning,
    provider_enabled_key,
)
from flags.definitions import TUNING_BOUNDS, definition, definitions, show

PROVIDERS = ("stripe", "adyen")


def test_the_table_has_every_flag_of_the_design() -> None:
    """The keys that product teams see are a promise."""
    assert set(definitions(PROVIDERS)) == {
        "payments-primary-provider",
        "payments-provider-stripe-enabled",
        "payments-provider-adyen-enabled",
        "payments-routing-strategy",
        "payments-routing-tuning",
        "payments-cascade-on-soft-decline",
        "payments-unknown-outcome-policy",
        "payments-auto-flip-enabled",
        "payments-maintenance-notice",
    }


def test_every_flag_allows_its_own_values() -> None:
    """A new flag cannot be created wrong."""
    for flag in definitions(PROVIDERS).values():
        assert flag.description
        assert all(flag.problem(value) is None for value in (*flag.variations, flag.default, flag.off))


def test_a_switch_that_is_off_serves_false() -> None:
    """Switching the flag off in LaunchDarkly and setting it to false mean the same."""
    assert definitions(PROVIDERS)[provider_enabled_key("stripe")].off is False


def test_every_number_of_the_tuning_has_bounds_and_a_default_within_them() -> None:
    """A key added to the contract without bounds would be refused for ever."""
    defaults = {name: getattr(RoutingTuning(), name) for name in RoutingTuning.__slots__}
    assert set(defaults) == set(TUNING_BOUNDS)
    assert all(
        value is None or low <= value <= high
        for (low, high), value in ((TUNING_BOUNDS[name], value) for name, value in defaults.items())
    )


def test_there_must_be_a_provider() -> None:
    """A primary of nobody cannot be served."""
    with pytest.raises(ValueError, match="at least one provider"):
        definitions(())


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        (PRIMARY_PROVIDER, "adyen", "adyen"),
        (provider_enabled_key("adyen"), "false", False),
        (provider_enabled_key("adyen"), "True", True),
        (ROUTING_TUNING, '{"margin": 0.2}', {"margin": 0.2}),
        (MAINTENANCE_NOTICE, "true", "true"),
        (MAINTENANCE_NOTICE, "", ""),
    ],
)
def test_a_command_line_text_becomes_a_value_of_the_flags_kind(key: str, text: str, value: object) -> None:
    """`false` is a boolean for a switch and four letters for a notice."""
    parsed = definition(key, PROVIDERS).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        (PRIMARY_PROVIDER, "paypal", "stripe or adyen"),
        (provider_enabled_key("adyen"), "no", "true or false"),
        (ROUTING_TUNING, "{margin: 1}", "not JSON"),
        (ROUTING_TUNING, "[]", "a JSON object"),
        (ROUTING_TUNING, '{"margin": 2}', "margin is outside 0 to 1"),
        (ROUTING_TUNING, '{"margni": 0.2}', "margni is not a known key"),
    ],
)
def test_a_wrong_text_is_refused_naming_what_is_allowed(key: str, text: str, says: str) -> None:
    """Whoever mistypes during an outage is told what to type."""
    with pytest.raises(FlagWriteError, match=says) as refused:
        definition(key, PROVIDERS).parse(text)
    assert key in str(refused.value)


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    """A typo in the key is the commonest mistake."""
    with pytest.raises(FlagWriteError, match="did you mean payments-primary-provider"):
        definition("payment-primary-provider", PROVIDERS)


def test_a_shown_value_is_at_most_eighty_characters() -> None:
    """Even one that cannot be written as JSON."""
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    assert [len(show(value)) <= 80 for value in ("ü" * 500, ["x"] * 500, {1: object()}, deep)] == [True] * 4


def test_the_table_and_the_writer_do_not_load_the_sdk() -> None:
    """`pointsman flags` answers at once, and nothing is built at import."""
    code = "import sys, flags.definitions, flags.filewriter; sys.exit('ldclient' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
