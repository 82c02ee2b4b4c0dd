"""Webhooks are stored before they are acknowledged, once each, and survive whoever was to apply them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from providers.sandbox.server import SANDBOX_STRIPE_WEBHOOK_SECRET
from router.ledger import engine
from router.ledger.inbox import Inbox
from router.ledger.payments import PaymentLedger
from tests.integration.conftest import OpenShop
from tests.integration.desk import MANUAL, OTHER, SECRETS, Desk, Letter, letter_box
from tests.integration.letters import adyen_letter, approval, intent, item, stripe_headers, stripe_letter
from tests.integration.shop import LOG, Shop
from tests.unit.webhook_receiver import Receiver, until

pytestmark = pytest.mark.either_database


class Killed(BaseException):
    """The process is gone at this point."""


@pytest.fixture
def outage(
    ledger_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Another process holds SQLite's write lock; PostgreSQL throws everybody out and lets nobody in."""
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 40)

    @contextlib.contextmanager
    def away() -> Iterator[None]:
        if not ledger_url.startswith("sqlite"):
            server = request.getfixturevalue("postgres")
            server.take_away(ledger_url)
            try:
                yield
            finally:
                server.give_back(ledger_url)
            return
        holder = sa.create_engine(ledger_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        with holder.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            try:
                yield
            finally:
                connection.exec_driver_sql("ROLLBACK")

    return away


class Wire(Receiver):
    """The way from the stand-ins to the router's own route; keeps each answer."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self.shop = shop
        self.answers: list[int] = []

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        kept = {name: value for name, value in headers.items() if name.lower() not in ("host", "content-length")}
        answer = self.shop.send("POST", f"/webhooks{path}", api_key=None, data=body, headers=kept)
        self.answers.append(answer.status_code)
        return answer.status_code


def die(inner: Callable[..., Any] | None) -> Callable[..., Any]:
    """The same, and then no more; None: no more at once."""

    def dies(*args: Any, **named: Any) -> Any:
        if inner is not None:
            inner(*args, **named)
        raise Killed

    return dies


def send(shop: Shop, letter: Letter) -> tuple[int, str]:
    provider, headers, body = letter
    answer = shop.send("POST", f"/webhooks/{provider}", api_key=None, data=body, headers=headers)
    return answer.status_code, answer.text


def inbox(shop: Shop) -> list[dict[str, Any]]:
    return shop.rows("SELECT notice_id, name, result, tries FROM webhooks ORDER BY number")


def failed_capture(shop: Shop, provider: str) -> tuple[str, Letter]:
    """A payment that shows as captured, and the news that it is not."""
    body = shop.pay().json or {}
    assert (body["status"], body["provider"]) == ("captured", provider)
    reference = body["attempts"][0]["provider_reference"]
    if provider == "adyen":
        return body["id"], adyen_letter(item("CAPTURE_FAILED", originalReference=reference))
    error = {"code": "capture_charge_authorization_expired", "type": "card_error"}
    thing = intent(reference, body["attempts"][0]["id"], "requires_payment_method", last_payment_error=error)
    return body["id"], stripe_letter("payment_intent.payment_failed", thing)


@pytest.fixture(params=OTHER)
def primary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(shops: OpenShop, primary: str) -> Shop:
    return shops(flags={"payments-primary-provider": primary}, **SECRETS)


def test_a_webhook_that_cannot_be_stored_is_not_acknowledged(
    shop: Shop, primary: str, outage: Callable[[], contextlib.AbstractContextManager[None]]
) -> None:
    """503 while the ledger is away, and the provider's own retry is stored when it is back."""
    wire = Wire(shop)
    try:
        body = shop.pay(**MANUAL).json or {}
        with outage():
            shop.control("PUT", f"/control/{primary}/webhooks", json={"url": f"{wire.url}/{primary}", "delay_ms": 0})
            charge = shop.charges(primary, body["reference"])[0]["id"]
            shop.core.providers[primary].void(charge, idempotency_key="v", timeouts=shop.core.sender.timeouts(5.0))
            until(lambda: len(wire.answers) >= 2, 10)
            assert set(wire.answers) == {503}
        until(lambda: 200 in wire.answers, 10)
        assert len(inbox(shop)) == 1
        Desk(shop).read_notices()
        assert shop.read(body["id"])["status"] == "canceled"
    finally:
        shop.control("PUT", f"/control/{primary}/webhooks", json={"url": None})
        wire.close()


def test_what_is_acknowledged_is_in_the_ledger(shop: Shop, primary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it stores has not acknowledged; what it has acknowledged, others find."""
    _, letter = failed_capture(shop, primary)
    with monkeypatch.context() as patch:
        patch.setattr(Inbox, "store", die(None))
        with pytest.raises(Killed):
            send(shop, letter)
    assert inbox(shop) == []
    assert send(shop, letter) == (200, "[accepted]" if primary == "adyen" else "ok")
    assert [each["result"] for each in inbox(shop)] == [None]


@pytest.mark.parametrize("place", ["before", "in between", "after"])
def test_a_stored_notice_survives_the_worker_that_dies(
    shop: Shop, primary: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is applied, before that is written to the inbox, or just after: it is applied once in the end."""
    desk = Desk(shop)
    payment_id, letter = failed_capture(shop, primary)
    assert send(shop, letter)[0] == 200
    version = desk.row(payment_id)["version"]
    applied, change = Inbox.applied, PaymentLedger.change
    with monkeypatch.context() as patch:
        match place:
            case "before":
                patch.setattr(PaymentLedger, "change", die(None))
            case "in between":
                patch.setattr(PaymentLedger, "change", die(change))
            case "after":
                patch.setattr(Inbox, "applied", die(applied))
        with pytest.raises(Killed):
            desk.read_notices()
    desk.read_notices()
    assert [each["result"] for each in inbox(shop)] == ["nothing new" if place == "in between" else "applied"]
    row = desk.row(payment_id)
    assert (row["status"], row["amount_captured"], row["version"]) == ("authorized", 0, version + 1)
    assert desk.read_notices() == 0


# ---------------------------------------------------------------- once each


def test_an_event_that_is_delivered_three_times_is_stored_and_applied_once(shop: Shop, primary: str) -> None:
    """Each delivery is acknowledged; Stripe signs a later one anew. One alert, one event."""
    desk = Desk(shop)
    payment_id, letter = failed_capture(shop, primary)
    again = (letter[0], stripe_headers(letter[2], age_s=100) if primary == "stripe" else letter[1], letter[2])
    version, logged_before = desk.row(payment_id)["version"], LOG.tell()
    assert [send(shop, letter)[0] for _ in range(2)] == [200, 200]
    assert desk.read_notices() == 1
    assert send(shop, again)[0] == 200
    assert desk.read_notices() == 0
    assert [each["result"] for each in inbox(shop)] == ["applied"]
    assert desk.row(payment_id)["version"] == version + 1
    assert LOG.getvalue()[logged_before:].count('"event": "alarm"') == 1


def test_two_processes_told_at_the_same_instant_store_one(
    shops: OpenShop, primary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both past the question whether it is known, where the database allows that; both acknowledge."""
    both = [shops(**SECRETS) for _ in range(2)]
    at_once = threading.Barrier(2)

    def wait(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("INSERT INTO webhooks"):
            at_once.wait(5)

    for shop in both:
        # SQLite lets one write at a time: there they meet before they begin, as the pool starts them.
        if not shop.core.database.is_sqlite:
            sa.event.listen(shop.core.database.engine, "before_cursor_execute", wait)
    letters = [approval(primary, f"att_{number}", _reference(primary, number)) for number in range(5)]
    with ThreadPoolExecutor(2) as pool:
        for letter in letters:
            answers = list(pool.map(lambda shop, letter=letter: send(shop, letter)[0], both))
            assert answers == [200, 200]
    assert len(inbox(both[0])) == len(letters)


def _reference(provider: str, number: int) -> str:
    return f"pi_{number}" if provider == "stripe" else f"TWICE{number:011}"


def test_a_batch_with_one_known_item_stores_the_others(shops: OpenShop) -> None:
    """Adyen puts a retry into a new batch with what came since; the same item twice in one batch is one."""
    shop = shops(**SECRETS)
    old, new = item("CAPTURE"), [item("CAPTURE") for _ in range(3)]
    for batch, expected in (([old], 1), ([new[0], old, new[1]], 3), ([new[2], new[2], old], 4)):
        assert send(shop, adyen_letter(*batch))[0] == 200
        assert len(inbox(shop)) == expected


def test_a_retry_of_another_payment_is_another_event(shops: OpenShop) -> None:
    """Equal words about two payments are two notices; the stand-ins' own doubles are one."""
    shop = shops(**SECRETS)
    with letter_box(shop) as box:
        shop.control("PUT", "/control/stripe/webhooks", json={"url": f"{box.url}/stripe", "mode": "duplicate"})
        for _ in range(2):
            shop.pay()
        for letter in (letters := box.letters("stripe", 4)):
            box.forward(letter)
        assert (len(letters), len(inbox(shop))) == (4, 2)


def test_either_secret_of_a_rotation_is_believed(shops: OpenShop) -> None:
    """And no third one."""
    shop = shops(stripe_webhook_secret=f"whsec_new,{SANDBOX_STRIPE_WEBHOOK_SECRET}")
    secrets = (SANDBOX_STRIPE_WEBHOOK_SECRET, "whsec_new", "whsec_third")
    event = "payment_intent.succeeded"
    letters = [stripe_letter(event, intent("pi_t", "theirs", "succeeded"), secret=each) for each in secrets]
    assert [send(shop, each)[0] for each in letters] == [200, 200, 400]
    assert len(inbox(shop)) == 2
