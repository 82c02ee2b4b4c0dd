"""`/v1/flips` and the undoing of one, over both databases."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from flags.contract import PRIMARY_PROVIDER
from router.api.operator_views import FlipList
from router.ledger.flips import Flip, FlipLedger, FlipState
from tests.fakes.threads import together
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database

AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def kept(shop: Shop, state: FlipState = "confirmed") -> FlipLedger:
    """The ledger, with one flip."""
    ledger = FlipLedger(shop.core.database)
    assert ledger.claim(Flip("flip_1", PRIMARY_PROVIDER, "stripe", "adyen", state, "inc_stripe_1", "why", {}, AT))
    return ledger


def test_of_two_flips_decided_at_once_for_two_incidents_one_is_begun(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looks when the first is on record; left to their snapshots, neither would see the other."""
    ledger = FlipLedger(shop.core.database)
    both = threading.Barrier(2)
    real = ledger._is_busy

    def meet(connection: sa.Connection, flag: str) -> bool:
        found = real(connection, flag)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.5)
        return found

    monkeypatch.setattr(ledger, "_is_busy", meet)

    def a_claim(flip: str) -> Callable[[], bool]:
        begun = Flip(flip, PRIMARY_PROVIDER, "stripe", "adyen", "overriding", f"inc_of_{flip}", "why", {}, AT)
        return lambda: ledger.claim(begun)

    together([a_claim("flip_1"), a_claim("flip_2")])
    assert len(ledger.overrides()) == 1


def test_a_flip_is_restored_on_an_operators_word(shop: Shop) -> None:
    """202 with the flip; asked twice, 409; of no such flip, 404."""
    kept(shop)
    answer = shop.send("POST", "/v1/flips/flip_1/restore", json={"reason": "stripe is well"})
    assert answer.status_code == 202
    assert answer.json is not None
    assert answer.json["state"] == "confirmed"
    assert answer.json["restore"]["reason"] == "stripe is well"
    assert answer.json["restore"]["asked_at"] is not None
    again = shop.send("POST", "/v1/flips/flip_1/restore", json={"reason": "now"})
    assert (again.status_code, (again.json or {})["detail"]) == (409, "Restoring it has been asked for already.")
    assert shop.send("POST", "/v1/flips/flip_9/restore", json={"reason": "x"}).status_code == 404
    page = shop.send("GET", "/v1/flips").json
    FlipList.model_validate(page, strict=True)


@pytest.mark.parametrize("state", ["overriding", "failed"])
def test_a_flip_that_was_not_written_is_superseded_and_its_override_ended(shop: Shop, state: FlipState) -> None:
    """At once: on-call's way out while the flag store is away."""
    ledger = kept(shop, state)
    answer = shop.send("POST", "/v1/flips/flip_1/restore", json={"reason": "stop"})
    assert answer.status_code == 202
    assert ((answer.json or {})["state"], ledger.overrides()) == ("superseded", [])
    assert (answer.json or {})["cause"].endswith(": stop")


@pytest.mark.parametrize("state", ["superseded", "restored"])
def test_a_flip_that_has_ended_cannot_be_restored(shop: Shop, state: FlipState) -> None:
    """The refusal says what it is."""
    kept(shop, state)
    answer = shop.send("POST", "/v1/flips/flip_1/restore", json={"reason": "x"})
    assert answer.status_code == 409
    assert state in (answer.json or {})["detail"]


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x", "by": "me"}])
def test_a_restore_needs_its_reason_and_nothing_else(shop: Shop, body: dict[str, str]) -> None:
    """422, naming the field."""
    kept(shop)
    assert shop.send("POST", "/v1/flips/flip_1/restore", json=body).status_code == 422


def test_the_override_in_force_is_named_by_readyz(shop: Shop) -> None:
    """And payments of this process obey it."""
    ledger = kept(shop, "overriding")
    shop.core.override.refresh()
    assert (shop.send("GET", "/readyz").json or {})["overrides"] == [
        {"flip": "flip_1", "from": "stripe", "to": "adyen", "since": "2026-11-21T00:00:00.000Z"}
    ]
    assert [each.flip for each in ledger.overrides()] == ["flip_1"]
