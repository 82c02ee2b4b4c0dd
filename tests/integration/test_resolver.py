"""Doubt under `hold`, end to end: within the request, by the resolver, by webhook; always at the same provider."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.desk import OTHER, SECRETS, Desk, LetterBox, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop, open_shop

pytestmark = pytest.mark.either_database

LOSE = {"mode": "lose_reply", "calls": "authorize"}


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in OTHER], ids="-".join)
def held_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router whose circuits do not open, over each ledger, with each provider as the primary."""
    backend, primary = request.param
    folder = tmp_path_factory.mktemp("held")
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
        **SECRETS,
    }
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def desk(held_shop: tuple[Shop, str], sandbox: Sandbox) -> Desk:
    """The worker, with both providers well and their books empty."""
    return Desk(held_shop[0])


@pytest.fixture
def primary(held_shop: tuple[Shop, str]) -> str:
    return held_shop[1]


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


def doubtful(desk: Desk, provider: str, **fault: Any) -> dict[str, Any]:
    """A payment that was answered with 202 because that provider is broken like this; it is still broken."""
    desk.shop.fault(provider, **fault)
    answer = desk.shop.pay()
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json or {}
    assert (body["status"], body["provider"]) == ("processing", provider)
    assert desk.shop.charges(OTHER[provider]) == []
    return body


def paid_once(desk: Desk, body: dict[str, Any], provider: str) -> dict[str, Any]:
    """Captured there, with one charge in all the books."""
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"], now["amount_captured"]) == ("captured", provider, 1999)
    assert desk.shop.charged(body["reference"]) == [(provider, "captured", 1999)]
    assert [each["outcome"] for each in now["attempts"]] == ["approved"]
    assert desk.row(body["id"])["resolve_at"] is None
    return now


@pytest.mark.parametrize("acts", [False, True])
def test_errors_now_and_then_are_settled_within_the_request(desk: Desk, primary: str, acts: bool) -> None:
    """Half of the calls fail, charged or not: nearly all payments are settled by a re-send, none charged twice."""
    desk.shop.fault(primary, "errors", rate=0.5, acts=acts)
    bodies = [desk.shop.pay().json or {} for _ in range(12)]
    assert {each["provider"] for each in bodies} == {primary}
    assert {each["status"] for each in bodies} <= {"captured", "processing"}
    assert sum(each["status"] == "captured" for each in bodies) >= 6
    assert desk.shop.charges(OTHER[primary]) == []
    assert desk.scalar("SELECT max(sends) FROM attempts") > 1
    desk.shop.fault(primary, "ok")
    desk.resolve()
    for body in bodies:
        assert desk.shop.read(body["id"])["status"] == "captured"
        assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]


@pytest.mark.parametrize("then", ["down", "rate_limited", "drop_request"])
def test_a_refused_re_send_of_the_worker_proves_nothing(desk: Desk, primary: str, then: str) -> None:
    """Unknown, then refused or limited for a long time: still unknown, and no other provider hears of it."""
    body = doubtful(desk, primary, mode="lose_reply")
    desk.shop.fault(primary, then)
    assert desk.resolve(3) == 0
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"], now["attempts"][0]["outcome"]) == ("processing", primary, "unknown")
    assert desk.shop.charges(OTHER[primary]) == []
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1
    paid_once(desk, body, primary)


@pytest.mark.parametrize(
    "fault",
    [
        {"mode": "lose_reply"},
        {"mode": "drop_request"},
        {"mode": "hang"},
        {"mode": "errors"},
        {"mode": "errors", "acts": True},
        {"mode": "garbage", "acts": True},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_doubt_ends_at_the_same_provider_once_it_is_well(desk: Desk, primary: str, fault: dict[str, Any]) -> None:
    """Whether it had charged or not: the re-send under the same key ends with one charge."""
    body = doubtful(desk, primary, **fault)
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1
    now = paid_once(desk, body, primary)
    assert now["attempts"][0]["id"] == body["attempts"][0]["id"]


def test_a_lost_reply_is_found_by_look_up_or_told_by_webhook(desk: Desk, primary: str, box: LetterBox) -> None:
    """Authorizations lose their replies for ever: Stripe's own list answers, Adyen's AUTHORISATION does."""
    body = doubtful(desk, primary, **LOSE)
    settled = desk.resolve()
    if primary == "adyen":
        assert settled == 0
        assert desk.shop.read(body["id"])["status"] == "processing"
        assert box.forward_all() == 1
        assert desk.read_notices() == 1
    else:
        assert settled == 1
    paid_once(desk, body, primary)
    if primary == "stripe":
        box.forward_all()
        desk.read_notices()
        paid_once(desk, body, primary)


def test_an_error_that_is_kept_for_its_key_is_settled_all_the_same(desk: Desk, primary: str, box: LetterBox) -> None:
    """It charged and answered 503, and so will every re-send: the look-up (or the webhook) knows."""
    body = doubtful(desk, primary, mode="errors", acts=True, stored=True, calls="authorize")
    desk.shop.fault(primary, "ok")
    desk.resolve()
    if primary == "adyen":
        box.forward_all()
        desk.read_notices()
    paid_once(desk, body, primary)


def test_a_worker_asks_less_and_less_often(desk: Desk, primary: str) -> None:
    """Each round without an answer doubles the wait, up to a minute; nothing is due before."""
    body = doubtful(desk, primary, mode="drop_request")
    waits = []
    for _ in range(8):
        desk.resolve()
        row = desk.row(body["id"])
        waits.append(round((row["resolve_at"] - row["updated_at"]) / 1e6))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1


def test_a_decline_is_found_out_as_well(desk: Desk, primary: str) -> None:
    """The answer that was lost was the issuer's no: declined, and nobody else is asked any more."""
    body = doubtful(desk, primary, mode="drop_request")
    code = {"stripe": "stolen_card", "adyen": "5"}[primary]
    desk.shop.fault(primary, "decline", decline_code=code)
    assert desk.resolve() == 1
    now = desk.shop.read(body["id"])
    assert (now["status"], now["decline"]["class"]) == ("declined", "hard")
    assert desk.shop.charged(body["reference"]) == []
    assert desk.shop.charges(OTHER[primary]) == []


def test_many_doubts_are_settled_by_several_workers_once_each(desk: Desk, primary: str) -> None:
    """Three workers at once: each doubt has one charge, and the versions have no gap."""
    bodies = [doubtful(desk, primary, mode="lose_reply") for _ in range(4)]
    desk.shop.fault(primary, "ok")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: desk.resolve(), range(3)))
    # On a busy machine a read timeout of a quarter of a second may end a send of theirs: then it is in doubt again.
    for _ in range(10):
        if all(desk.row(body["id"])["resolve_at"] is None for body in bodies):
            break
        desk.resolve()
    for body in bodies:
        paid_once(desk, body, primary)
