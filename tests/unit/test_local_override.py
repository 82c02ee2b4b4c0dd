"""The override in force, as every process obeys it."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

import pytest

from flags.contract import RoutingFlags
from router.ledger.flips import Override
from router.ledger.unavailable import LedgerUnavailableError
from router.local_override import LocalOverride
from router.policy import decide, refusals
from tests.unit.test_policy import an_offer

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
TO_ADYEN = Override("flip_1", "stripe", "adyen", NOW)


class Table:
    """What the ledger has in force."""

    def __init__(self, *rows: Override) -> None:
        self.rows: Sequence[Override] = rows
        self.away = False

    def __call__(self) -> Sequence[Override]:
        if self.away:
            raise LedgerUnavailableError("OperationalError")
        return self.rows


def test_whom_the_flag_sends_to_the_failing_provider_goes_to_the_other() -> None:
    """And nobody else; the flags are otherwise as they were read."""
    override = LocalOverride(Table(TO_ADYEN))
    assert override.apply(RoutingFlags()) == (RoutingFlags(), None)
    assert override.refresh() == 1
    assert override.refresh() == 0
    flags = RoutingFlags(strategy="best-value", maintenance_notice="soon")
    assert override.apply(flags) == (
        dataclasses.replace(flags, primary="adyen"),
        "primary in place of stripe (flip_1)",
    )
    elsewhere = RoutingFlags(primary="third")
    assert override.apply(elsewhere) == (elsewhere, None)


def test_of_two_overrides_the_newest_that_fits_is_applied_and_only_it() -> None:
    """They cannot send a payment in a circle."""
    back = Override("flip_2", "adyen", "stripe", NOW)
    override = LocalOverride(Table(back, TO_ADYEN))
    override.refresh()
    assert override.apply(RoutingFlags())[0].primary == "adyen"
    assert override.apply(RoutingFlags(primary="adyen"))[0].primary == "stripe"


def test_while_the_ledger_is_away_what_was_seen_last_holds() -> None:
    """A database that restarts does not send payments back."""
    table = Table(TO_ADYEN)
    override = LocalOverride(table)
    override.refresh()
    table.away = True
    with pytest.raises(LedgerUnavailableError):
        override.refresh()
    assert override.apply(RoutingFlags())[0].primary == "adyen"
    table.away, table.rows = False, ()
    override.refresh()
    assert override.apply(RoutingFlags())[0].primary == "stripe"


def test_the_decision_says_that_the_primary_is_not_the_flags_own() -> None:
    """Beside the provider that stands in; it is no refusal."""
    flags, why = RoutingFlags(primary="adyen"), "primary in place of stripe (flip_1)"
    decision = decide([an_offer("stripe"), an_offer("adyen", possible=False)], flags, 0.0, overridden=why)
    reasons = {each.provider: decision.reasons(each) for each in decision.candidates}
    assert reasons["adyen"][0] == why
    assert "primary" not in reasons["stripe"]
    assert why not in refusals(decision)["adyen"]
