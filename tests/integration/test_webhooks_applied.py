"""What webhooks do once they are stored: amounts fall with an alert, late approvals are undone, early ones wait."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from providers.sandbox.server import Sandbox
from router import notices
from router.audit import verify
from tests.integration.desk import MANUAL, OTHER, SECRETS, Desk, LetterBox, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.letters import approval, elsewhere
from tests.integration.lives import copy_of, state
from tests.integration.shop import HANG_READ_TIMEOUT_S, LOG, Shop, open_shop

pytestmark = pytest.mark.either_database

GIVEN_UP_S = 1000
DEAD_S = 16 * 60
ORDERS_BY_HTTP = 6


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in OTHER], ids="-".join)
def told_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shop, str]]:
    """A router that believes its providers, over each ledger, with each provider as the primary."""
    backend, primary = request.param
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
        **SECRETS,
    }
    folder = tmp_path_factory.mktemp("applied")
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary


@pytest.fixture
def desk(told_shop: tuple[Shop, str], sandbox: Sandbox) -> Desk:
    """The worker, with an empty inbox, both providers well and their books empty."""
    desk = Desk(told_shop[0])
    with desk.shop.core.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM webhooks")
    return desk


@pytest.fixture
def primary(told_shop: tuple[Shop, str]) -> str:
    return told_shop[1]


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


def pay(desk: Desk, **changed: Any) -> dict[str, Any]:
    return dict(desk.shop.pay(**changed).json or {})


def tell(desk: Desk, box: LetterBox) -> list[dict[str, Any]]:
    """Everything that the provider has to say is stored and applied; the errors that were logged meanwhile."""
    begun = LOG.tell()
    box.forward_all()
    desk.read_notices()
    logged = [json.loads(line) for line in LOG.getvalue()[begun:].splitlines() if line.startswith("{")]
    return [each for each in logged if each["level"] == "error"]


def sound(desk: Desk, payment_id: str) -> None:
    """As `pointsman ledger verify` says; but for what a test changed by hand."""
    found = [each for progress in verify(desk.shop.core.database) for each in progress.differences]
    assert [each for each in found if each.payment_id == payment_id and each.column != "told"] == []


# ---------------------------------------------------------------- amounts that fall


@pytest.mark.parametrize("mishap", ["capture_failed", "refund_failed", "refund_reversed", "dispute_opened"])
def test_what_lowers_an_amount_raises_one_alert(desk: Desk, primary: str, box: LetterBox, mishap: str) -> None:
    """An error in the log that names the payment; good news raises none."""
    body = pay(desk)
    refunds = mishap.startswith("refund")
    if refunds:
        assert desk.ask(body["id"], "refunds", {"amount": 500}, key=f"{body['id']}-r").status_code == 200
    assert tell(desk, box) == []
    assert desk.shop.read(body["id"])["amount_refunded"] == (500 if refunds else 0)
    desk.happen(primary, body["reference"], mishap)
    alarms = tell(desk, box)
    assert {(each["event"], each["payment"]) for each in alarms} == {("alarm", body["id"])}
    assert len(alarms) == 1
    now = desk.shop.read(body["id"])
    failed = mishap == "capture_failed"
    assert (now["status"], now["amount_captured"], now["amount_refunded"]) == (
        ("authorized", 0, 0) if failed else ("captured", 1999, 0)
    )
    sound(desk, body["id"])


def test_a_dispute_is_recorded_to_its_end_and_changes_no_amount(desk: Desk, primary: str, box: LetterBox) -> None:
    """In the payment's row, its events, and what is answered of it."""
    body = pay(desk)
    for mishap, stage in (("dispute_opened", "opened"), ("dispute_lost", "lost")):
        desk.happen(primary, body["reference"], mishap)
        tell(desk, box)
        dispute = desk.row(body["id"])["dispute"]
        assert (dispute["reason"], set(dispute)) == (stage, {"reason", "notice", "at", "each"})
    now = desk.shop.read(body["id"])
    assert (body["dispute"], now["dispute"]["reason"]) == (None, "lost")
    assert now == body | {"capture_pending": False, "dispute": now["dispute"]}
    sound(desk, body["id"])


# ---------------------------------------------------------------- approvals that come too late


@pytest.mark.parametrize("capture", ["automatic", "manual"])
@pytest.mark.parametrize("closed", ["held dead", "failed"])
def test_an_approval_that_comes_too_late_is_undone_by_itself(
    desk: Desk, primary: str, box: LetterBox, closed: str, capture: str
) -> None:
    """Held dead by the resolver, or nothing as an operator said: voided or refunded, with an alert, still closed."""
    desk.shop.fault(primary, "drop_request")
    body = pay(desk, capture=capture)
    attempt_id = body["attempts"][0]["id"]
    desk.shop.fault(primary, "ok")
    if closed == "failed":
        verdict = {"outcome": "not_executed", "evidence": "nothing in the dashboard"}
        assert desk.ask(body["id"], "resolve", verdict, key=f"{body['id']}-x").status_code in (200, 201)
    else:
        desk.forget_checkout(body["id"], GIVEN_UP_S + DEAD_S)
        with desk.shop.core.database.write() as connection:
            # Adyen has said so of a void before; Stripe's own list says so.
            connection.exec_driver_sql("UPDATE attempts SET reason = 'original_payment_not_found'")
        desk.resolve()
        assert desk.shop.read(body["id"])["attempts"][0]["reason"] == "held_dead"
    status = {"held dead": "canceled", "failed": "failed"}[closed]
    assert desk.shop.read(body["id"])["status"] == status

    core = desk.shop.core
    (attempt,) = (core.ledger.get(body["id"]) or (None, []))[1]
    timeouts = core.sender.timeouts(5.0)
    core.providers[primary].authorize(core.ledger.params_of(attempt), idempotency_key=attempt_id, timeouts=timeouts)
    begun = LOG.tell()
    tell(desk, box)
    assert desk.shop.read(body["id"])["attempts"][0]["outcome"] == "approved"
    desk.resolve()
    assert "orphan_approval" in LOG.getvalue()[begun:]
    assert [each["status"] for each in desk.books(body["reference"])] == [
        "refunded" if capture == "automatic" else "canceled"
    ]
    tell(desk, box)
    now = desk.shop.read(body["id"])
    assert (now["status"], now["amount_captured"] - now["amount_refunded"]) == (status, 0)
    assert desk.row(body["id"])["resolve_at"] is None
    desk.resolve()
    assert len(desk.operations(body["id"])) == 1
    sound(desk, body["id"])


# ---------------------------------------------------------------- notices that are early, or nobody's


def test_a_notice_ahead_of_our_own_answer_waits_for_it(desk: Desk, primary: str, box: LetterBox) -> None:
    """While a request works on the payment nothing is changed under its hands; then it applies."""
    body = pay(desk, **MANUAL)
    tell(desk, box)
    assert desk.ask(body["id"], "capture", key=f"{body['id']}-c").status_code == 200
    soon = round(desk.shop.core.clock.now().timestamp() * 1e6) + 60_000_000
    desk.change_all(f"lease_holder = 'me', lease_until = {soon} WHERE id = '{body['id']}'")
    desk.happen(primary, body["reference"], "capture_failed")
    before = desk.row(body["id"])
    tell(desk, box)
    assert desk.row(body["id"]) == before
    waiting = "SELECT count(*) FROM webhooks WHERE applied_at IS NULL AND tries = 1"
    assert desk.scalar(waiting) > 0
    desk.change_all(f"lease_holder = NULL, lease_until = NULL WHERE id = '{body['id']}'")
    desk.read_notices()
    assert desk.scalar(waiting) == 0
    assert desk.shop.read(body["id"])["status"] == "authorized"
    sound(desk, body["id"])


def test_what_is_nobodys_waits_and_ends_unmatched_and_holds_nobody_up(
    desk: Desk, primary: str, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than a round takes: one of ours that came last is applied all the same, within a few rounds."""
    monkeypatch.setattr(notices, "ROUND", 3)
    for _ in range(7):
        assert box.forward(elsewhere(primary)).status_code == 200
    body = pay(desk)
    desk.happen(primary, body["reference"], "dispute_opened")
    box.forward_all()
    worker = desk.notices()
    for _ in range(5):
        worker.run_once()
    assert desk.row(body["id"])["dispute"]["reason"] == "opened"
    theirs = "SELECT count(*) FROM webhooks WHERE applied_at IS NULL AND tries > 0"
    assert desk.scalar(theirs) == 7
    with desk.shop.core.database.write() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET received_at = 0")
    monkeypatch.setattr(notices, "ROUND", 200)
    begun = LOG.tell()
    assert desk.read_notices() == 7
    assert LOG.getvalue()[begun:].count('"event": "notice_unmatched"') == 7
    assert desk.scalar("SELECT count(*) FROM webhooks WHERE result = 'unmatched'") == 7
    assert desk.read_notices() == 0


# ---------------------------------------------------------------- orders, through the door


def test_a_life_told_by_http_in_any_order_comes_to_the_same(desk: Desk, primary: str, box: LetterBox) -> None:
    """Everything that the real stand-in sent, shuffled, each delivered twice, with a worker's round now and then."""
    body = pay(desk, **MANUAL)
    attempt = body["attempts"][0]
    for number, (what, amount) in enumerate([("capture", 1800), ("refunds", 400), ("refunds", 300)]):
        assert desk.ask(body["id"], what, {"amount": amount}, key=f"{body['id']}-{number}").status_code == 200
    for mishap in ("refund_failed", "dispute_opened", "dispute_won"):
        desk.happen(primary, body["reference"], mishap)
    letters = box.all_told()
    letters.append(approval(primary, attempt["id"], attempt["provider_reference"], captured=False))
    put_back, draw, ends = copy_of(desk, body["id"]), random.Random(3), []
    for _ in range(ORDERS_BY_HTTP):
        put_back()
        for letter in draw.sample(letters * 2, 2 * len(letters)):
            assert box.forward(letter).status_code == 200
            if draw.random() < 0.3:
                desk.read_notices()
        for _ in letters:
            desk.read_notices()
        assert desk.scalar("SELECT count(*) FROM webhooks WHERE applied_at IS NULL") == 0
        with desk.shop.core.database.read() as connection:
            ends.append(state(connection, body["id"]))
        sound(desk, body["id"])
    assert all(each == ends[0] for each in ends)
    assert (ends[0]["status"], ends[0]["amount_captured"], ends[0]["amount_refunded"]) == ("captured", 1800, 400)
    assert (ends[0]["dispute"], ends[0]["capture_pending"]) == ("won", False)
