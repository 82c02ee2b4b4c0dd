"""`payments-unknown-outcome-policy: void-and-fail-over`: never two captures, and none before every orphan is void."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from tests.integration.desk import OTHER, SECRETS, Desk, LetterBox, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop, open_shop

pytestmark = pytest.mark.either_database

LOSE = {"mode": "lose_reply", "calls": "authorize"}


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in OTHER], ids="-".join)
def voiding_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router under that policy, over each ledger, with each provider as the primary."""
    backend, primary = request.param
    settings: dict[str, Any] = {
        "flags": {
            "payments-primary-provider": primary,
            "payments-unknown-outcome-policy": "void-and-fail-over",
        },
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
        **SECRETS,
    }
    folder = tmp_path_factory.mktemp("voiding")
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def desk(voiding_shop: tuple[Shop, str], sandbox: Sandbox) -> Desk:
    """The worker, with both providers well and their books empty."""
    return Desk(voiding_shop[0])


@pytest.fixture
def primary(voiding_shop: tuple[Shop, str]) -> str:
    return voiding_shop[1]


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


@contextlib.contextmanager
def never_two_captures(desk: Desk) -> Iterator[None]:
    """Polls both books all the time: no reference is ever captured in two places."""
    over, seen = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.002):
            rows = desk.shop.charges("stripe") + desk.shop.charges("adyen")
            captured = [each["reference"] for each in rows if each["status"] == "captured"]
            seen.append(len(captured) - len(set(captured)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert seen
    assert max(seen) == 0


def by_provider(desk: Desk, reference: str) -> dict[str, str]:
    """How each provider's books have it."""
    found = desk.books(reference)
    assert len(found) == len({each["provider"] for each in found})
    return {each["provider"]: each["status"] for each in found}


def test_the_usual_payment_is_authorized_and_then_captured(desk: Desk, primary: str) -> None:
    """Two calls, three commits, one charge; at once in the request."""
    answer = desk.shop.pay()
    body = answer.json or {}
    assert (answer.status_code, body["status"], body["provider"]) == (201, "captured", primary)
    assert body["amount_captured"] == 1999
    assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]
    (operation,) = desk.operations(body["id"])
    assert operation == ("capture", {"stripe": "done", "adyen": "received"}[primary], 1999)
    assert desk.row(body["id"])["version"] == 3
    assert desk.row(body["id"])["resolve_at"] is None


def test_a_manual_capture_stays_with_checkout(desk: Desk, primary: str) -> None:
    """Authorized and no more."""
    body = desk.shop.pay(capture="manual").json or {}
    assert (body["status"], body["amount_captured"]) == ("authorized", 0)
    assert desk.shop.charged(body["reference"]) == [(primary, "authorized", 1999)]
    assert desk.operations(body["id"]) == []


def test_a_lost_reply_is_authorized_at_the_second_voided_at_the_first_and_then_captured(
    desk: Desk, primary: str, box: LetterBox
) -> None:
    """Captured at the second, the orphan canceled in the first one's books, never two captures at any poll."""
    desk.shop.fault(primary, **LOSE)
    with never_two_captures(desk):
        answer = desk.shop.pay()
        body = answer.json or {}
        assert (answer.status_code, body["status"], body["provider"]) == (202, "processing", OTHER[primary])
        assert by_provider(desk, body["reference"]) == {primary: "authorized", OTHER[primary]: "authorized"}
        settled = desk.resolve(2)
        if primary == "adyen":
            assert settled == 0
            assert desk.shop.read(body["id"])["status"] == "processing"
            assert by_provider(desk, body["reference"]) == {"adyen": "canceled", "stripe": "authorized"}
            box.forward_all()
            desk.read_notices()
            settled = desk.resolve()
        assert settled == 1
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"], now["amount_captured"]) == ("captured", OTHER[primary], 1999)
    assert by_provider(desk, body["reference"]) == {primary: "canceled", OTHER[primary]: "captured"}
    outcomes = {each["provider"]: each["outcome"] for each in now["attempts"]}
    assert outcomes == {primary: "canceled", OTHER[primary]: "approved"}


def test_a_void_that_is_not_confirmed_leaves_the_second_authorization_uncaptured(desk: Desk, primary: str) -> None:
    """However long: nobody has said that the first one is void, so nothing is captured."""
    desk.shop.fault(primary, "lose_reply")  # look-ups and voids lose their replies as well
    body = desk.shop.pay().json or {}
    assert desk.resolve(4) == 0
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"], now["amount_captured"]) == ("processing", OTHER[primary], 0)
    assert by_provider(desk, body["reference"])[OTHER[primary]] == "authorized"
    # By our own id, where there is no look-up: one operation, asked for again and again.
    assert desk.operations(body["id"]) == ([("void", "unknown", 1999)] if primary == "adyen" else [])


def test_a_primary_that_never_got_it_is_not_believed_to_be_void(desk: Desk, primary: str, box: LetterBox) -> None:
    """Not found proves nothing: the request may be on its way. Mended, the re-send tells, and it is released."""
    desk.shop.fault(primary, "drop_request", calls="authorize")
    body = desk.shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("processing", OTHER[primary])
    assert desk.resolve(2) == 0
    box.forward_all()
    desk.read_notices()
    assert desk.resolve() == 0
    assert by_provider(desk, body["reference"]) == {OTHER[primary]: "authorized"}
    desk.shop.fault(primary, "ok")
    with never_two_captures(desk):
        for _ in range(3):
            desk.resolve()
            box.forward_all()
            desk.read_notices()
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"]) == ("captured", OTHER[primary])
    assert by_provider(desk, body["reference"]) == {primary: "canceled", OTHER[primary]: "captured"}


def test_with_both_in_doubt_one_is_captured_and_the_other_void(desk: Desk, primary: str, box: LetterBox) -> None:
    """Each loses its replies: when they are mended there is one capture, wherever."""
    for name in OTHER:
        desk.shop.fault(name, **LOSE)
    with never_two_captures(desk):
        body = desk.shop.pay().json or {}
        assert body["status"] == "processing"
        for name in OTHER:
            desk.shop.fault(name, "ok")
        for _ in range(4):
            desk.resolve()
            box.forward_all()
            desk.read_notices()
    now = desk.shop.read(body["id"])
    assert (now["status"], now["amount_captured"]) == ("captured", 1999)
    assert sorted(by_provider(desk, body["reference"]).values()) == ["canceled", "captured"]
    assert desk.row(body["id"])["resolve_at"] is None


def test_a_decline_at_the_second_leaves_the_first_to_be_found_out(desk: Desk, primary: str, box: LetterBox) -> None:
    """The second issuer said no; the first one's authorization is found, and captured there: one charge."""
    desk.shop.fault(primary, **LOSE)
    code = {"stripe": "do_not_honor", "adyen": "2"}[OTHER[primary]]
    desk.shop.fault(OTHER[primary], "decline", decline_code=code)
    body = desk.shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("processing", primary)
    desk.shop.fault(primary, "ok")
    for _ in range(2):
        desk.resolve()
        box.forward_all()
        desk.read_notices()
    now = desk.shop.read(body["id"])
    assert (now["status"], now["provider"]) == ("captured", primary)
    assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]


def test_a_capture_whose_reply_is_lost_is_made_once(desk: Desk, primary: str) -> None:
    """The second call of the usual payment is in doubt: 202, and the re-send of the same capture settles it."""
    desk.shop.fault(primary, "lose_reply", rate=0)
    body = desk.shop.pay(capture="manual").json or {}
    desk.shop.fault(primary, "lose_reply")
    answer = desk.ask(body["id"], "capture", key=f"c-{body['id']}")
    assert answer.status_code == 202
    assert [kind[:2] for kind in desk.operations(body["id"])] == [("capture", "unknown")]
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1
    now = desk.shop.read(body["id"])
    assert (now["status"], now["amount_captured"]) == ("captured", 1999)
    assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]
