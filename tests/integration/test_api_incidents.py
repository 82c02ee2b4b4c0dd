"""`GET /v1/incidents`: what went wrong with the providers, over both databases."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from router.api.operator_views import IncidentList
from router.api.paging import PAGE
from router.ledger.circuits import CircuitLedger
from router.ledger.flips import Flip, FlipLedger
from router.transitions import State, Transition, following
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop

pytestmark = pytest.mark.either_database

FIGURES = {"calls": 10, "failures": 10}


def gone_through(
    shop: Shop, provider: str, *steps: tuple[State, float], ago: dt.timedelta = dt.timedelta(hours=1)
) -> Transition:
    """A circuit's moves, each so many seconds after the one before, the first so long ago."""
    ledger = CircuitLedger(shop.core.database)
    at, last = shop.core.clock.now() - ago, next(iter(ledger.latest([provider])), None)
    for state, after_s in steps:
        at += dt.timedelta(seconds=after_s)
        last = following(
            last,
            state,
            provider=provider,
            at=at,
            actor="worker",
            reason=f"to {state.value}",
            evidence=FIGURES if state is State.OPEN else None,
        )
        assert ledger.append(last)
    assert last is not None
    return last


def listed(shop: Shop, **query: str) -> dict[str, Any]:
    """A page, as the document promises it."""
    answer = shop.send("GET", "/v1/incidents", query_string=query)
    assert answer.status_code == 200
    page: dict[str, Any] = answer.json or {}
    IncidentList.model_validate(page, strict=True)
    return page


def shown(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_an_incident_is_told_from_its_first_opening_to_its_end(shop: Shop) -> None:
    """A short closing in it does not end it, nor is it open time; the flip that it led to is named."""
    assert listed(shop) == {"incidents": [], "next": None}
    last = gone_through(
        shop,
        "stripe",
        (State.OPEN, 0),
        (State.HALF_OPEN, 10),
        (State.SLOW_START, 1),
        (State.CLOSED, 29),
        (State.OPEN, 20),
        (State.HALF_OPEN, 10),
        (State.CLOSED, 2),
    )
    began = last.at - dt.timedelta(seconds=72)
    flip = Flip("flip_1", "f", "stripe", "adyen", "confirmed", "inc_stripe_1", "why", {}, began)
    assert FlipLedger(shop.core.database).claim(flip)
    assert listed(shop) == {
        "incidents": [
            {
                "id": "inc_stripe_1",
                "provider": "stripe",
                "started_at": shown(began),
                "closed_at": shown(last.at),
                "ended_at": shown(last.at + dt.timedelta(minutes=5)),
                "open_seconds": 52.0,
                "reason": "to open",
                "evidence": FIGURES,
                "flip": "flip_1",
            }
        ],
        "next": None,
    }


def test_an_incident_that_goes_on_has_no_end(shop: Shop) -> None:
    """Open: not closed; closed for four minutes: not over; and its time is still counted while it is open."""
    gone_through(shop, "stripe", (State.OPEN, 0), ago=dt.timedelta(minutes=10))
    gone_through(shop, "adyen", (State.OPEN, 0), (State.CLOSED, 60), ago=dt.timedelta(minutes=5))
    adyen, stripe = listed(shop)["incidents"]
    assert (stripe["provider"], stripe["closed_at"], stripe["ended_at"], stripe["flip"]) == (
        "stripe",
        None,
        None,
        None,
    )
    assert 600 <= stripe["open_seconds"] < 660
    assert (adyen["closed_at"] is None, adyen["ended_at"], adyen["open_seconds"]) == (False, None, 60.0)


def test_a_circuit_names_its_incident_only_while_it_goes_on(shop: Shop) -> None:
    """Three days after it was over, `/v1/providers` still named it."""
    gone_through(shop, "stripe", (State.OPEN, 0), (State.CLOSED, 60), ago=dt.timedelta(minutes=6))
    gone_through(shop, "adyen", (State.OPEN, 0), (State.CLOSED, 60), ago=dt.timedelta(minutes=5))
    shop.core.health.sync_once()
    page = (shop.send("GET", "/v1/providers").json or {})["providers"]
    assert {each["name"]: each["incident"] for each in page} == {"stripe": None, "adyen": "inc_adyen_1"}


def test_pages_go_on_where_the_last_one_ended(shop: Shop) -> None:
    """Newest first over both providers, each once."""
    hour = dt.timedelta(hours=1)
    for n in range(2 * PAGE - 10, 0, -2):
        for provider, k in (("stripe", 0), ("adyen", 1)):
            gone_through(shop, provider, (State.OPEN, 0), (State.CLOSED, 60), ago=(n - k) * hour)
    first = listed(shop)
    assert len(first["incidents"]) == PAGE
    assert first["next"] == first["incidents"][-1]["id"]
    second = listed(shop, cursor=first["next"])
    assert second["next"] is None
    started = [each["started_at"] for each in first["incidents"] + second["incidents"]]
    assert len(started) == len(set(started)) == 2 * PAGE - 10
    assert started == sorted(started, reverse=True)
    assert listed(shop, cursor="inc_nobody_7") == {"incidents": [], "next": None}


@pytest.mark.parametrize(("scope", "code"), [("operate", 200), ("reports", 200), ("payments", 403)])
def test_it_is_for_those_who_operate_or_report(shops: OpenShop, scope: str, code: int) -> None:
    """Checkout needs none of it."""
    shop = shops()
    assert (
        shop.send(
            "GET", "/v1/incidents", api_key=shop.add_key("one", merchant="default", scopes=(scope,))
        ).status_code
        == code
    )
    assert shop.send("GET", "/v1/incidents", api_key=None).status_code == 401
