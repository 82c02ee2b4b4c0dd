"""A whole router over each ledger: no token in its bytes, and keys that come and go under load."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.app.web import build_endpoints
from router.audit import verify
from router.cli import main
from router.key_file import KeyFile
from router.ledger.engine import Database
from router.ledger.sealed_rows import SealedRows
from router.ledger.tables import webhook_endpoints
from router.ledger.webhook_endpoints import secrets_in_force
from router.resealing import keys_in_use
from router.sealing import Ring, key_id, new_key
from router.webhooks_out_endpoints import Endpoints
from tests.integration.conftest import OpenShop
from tests.integration.shop import ABSENT, ENCRYPTION_KEY, Shop, paying_with

ADYEN = "8415718415172204"
STRIPE = "pm_card_visa"
CUSTOMER = "cus_planted_1"
THREE_D = "pm_card_authenticationRequired"
KINDS: dict[str, Any] = {
    "captured": {"payment_method": paying_with(stripe={"payment_method": STRIPE, "customer": CUSTOMER}, adyen=ADYEN)},
    "authorized": {"capture": "manual", "payment_method": paying_with(stripe=STRIPE, adyen=ADYEN)},
    "requires_action": {"payment_method": paying_with(stripe=THREE_D), "return_url": ABSENT},
    "declined": {"payment_method": paying_with(stripe="pm_card_chargeDeclined")},
}


def a_payment_of_each_kind(shop: Shop) -> dict[str, dict[str, Any]]:
    """Each has its tokens in the ledger, and one its client secret."""
    found = {status: shop.pay(**changed).json or {} for status, changed in KINDS.items()}
    shop.fault("stripe", "lose_reply")
    found["processing"] = shop.pay(payment_method=paying_with(stripe=STRIPE)).json or {}
    shop.fault("stripe", "ok")
    assert {status: each["status"] for status, each in found.items()} == {status: status for status in found}
    return found


def planted(found: dict[str, dict[str, Any]]) -> list[str]:
    return [ADYEN, STRIPE, CUSTOMER, THREE_D, "pm_card_chargeDeclined", client_secret(found)]


def client_secret(found: dict[str, dict[str, Any]]) -> str:
    return str(found["requires_action"]["next_action"]["client_secret"])


def raw_bytes(shop: Shop) -> bytes:
    """The files of an SQLite ledger, write-ahead log and all; of PostgreSQL, every row of every table."""
    if shop.core.database.is_sqlite:
        path = Path(str(shop.core.database.engine.url.database))
        return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    with shop.core.database.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = [connection.execute(sa.text(f"SELECT t::text FROM {name} t")).scalars().all() for name in tables]
    return "\n".join(row for each in rows for row in each).encode()


def test_no_token_and_no_secret_is_in_the_ledgers_bytes(shop: Shop) -> None:
    """After payments of each kind, a webhook endpoint and the router's own secrets; the reference is there."""
    found = a_payment_of_each_kind(shop)
    endpoint = {"url": "https://one.example/in", "event_types": [], "description": ""}
    made = shop.send("POST", "/v1/webhook-endpoints", json=endpoint)
    assert made.status_code == 201, made.text
    secret = (made.json or {})["secret"]
    raw = raw_bytes(shop)
    assert found["captured"]["reference"].encode() in raw
    assert [word for word in [*planted(found), secret] if word.encode() in raw] == []
    plain = [
        row["value"] for row in shop.rows("SELECT value FROM secrets") if not row["value"].startswith("sealed:v1:")
    ]
    assert plain == []
    assert [each for progress in verify(shop.core.database) for each in progress.differences] == []
    assert shop.read(found["requires_action"]["id"])["next_action"]["client_secret"] == client_secret(found)


def test_with_sealing_off_they_are_and_a_rotation_takes_them_out(
    shops: OpenShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a ledger of the version before is. (SQLite's free pages keep what stood there: `VACUUM`, in the docs.)"""
    shop = shops(seal="off")
    found = a_payment_of_each_kind(shop)
    raw = raw_bytes(shop)
    assert all(word.encode() in raw for word in planted(found))
    monkeypatch.setenv("ROUTER_DATABASE_URL", shop.url)
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("ROUTER_ENCRYPTION_KEYS", ENCRYPTION_KEY)
    assert main(["keys", "rotate"]) == 0, capsys.readouterr().err
    if shop.core.database.is_sqlite:
        with Database(shop.url, pool_size=1).engine.connect() as connection:
            connection.connection.cursor().execute("VACUUM")
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw = raw_bytes(shop)
    assert [word for word in planted(found) if word.encode() in raw] == []
    assert main(["ledger", "verify"]) == 0, capsys.readouterr().err


def test_a_key_is_replaced_under_load_without_one_failed_request(
    shops: OpenShop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """new, promote, rotate, retire: while threads pay, and read a payment that awaits its customer."""
    file = KeyFile(tmp_path / "keys")
    old = new_key()
    file.write([old])
    shop = shops(encryption_keys=None, encryption_keys_file=file.path)
    awaiting = shop.pay(**KINDS["requires_action"]).json or {}
    monkeypatch.setenv("ROUTER_DATABASE_URL", shop.url)
    monkeypatch.setenv("ROUTER_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("ROUTER_ENCRYPTION_KEYS_FILE", str(file.path))
    wrong: list[str] = []
    done: list[str] = []
    stop = threading.Event()

    def pay() -> None:
        while not stop.is_set():
            answer = shop.pay()
            if answer.status_code != 201 or (answer.json or {})["status"] != "captured":
                wrong.append(answer.text)
            action = shop.send("GET", f"/v1/payments/{awaiting['id']}").json or {}
            if action.get("next_action") != awaiting["next_action"]:
                wrong.append(json.dumps(action))
            done.append(str((answer.json or {}).get("id")))

    threads = [threading.Thread(target=pay) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert main(["keys", "new"]) == 0
        new = capsys.readouterr().out.strip()
        assert main(["keys", "retire", key_id(old)]) == 1  # it is the one that seals
        assert main(["keys", "promote", new]) == 0, capsys.readouterr().err
        assert main(["keys", "retire", key_id(old)]) == 1
        assert "still needed" in capsys.readouterr().err
        assert main(["keys", "rotate"]) == 0, capsys.readouterr().err
        assert main(["keys", "retire", key_id(old)]) == 0, capsys.readouterr().err
        assert [key_id(each) for each in file.read()] == [new]
        until = len(done) + 4
        while len(done) < until and not wrong:
            stop.wait(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(done) > 4
    assert shop.core.keys.health()["key"] == new
    assert main(["keys", "list"]) == 0
    assert f"{key_id(old)}\tNOT HERE\tretired" in capsys.readouterr().out
    assert main(["ledger", "verify"]) == 0, capsys.readouterr().err


def test_a_webhook_secret_is_replaced_and_the_old_one_signs_on(shop: Shop) -> None:
    """Rotated while it is sealed: both are opened for a delivery, the newest first, and neither is in the bytes."""
    endpoints: Endpoints = build_endpoints(shop.core)
    endpoint, first = endpoints.create(merchant="default", url="https://one.example/in")
    second = endpoints.rotate(endpoint.id, "default", old_for_h=1.0)
    database = shop.core.database
    with database.read() as connection:
        row = connection.execute(webhook_endpoints.select()).mappings().one()
    assert secrets_in_force(row, shop.core.clock.now(), database.seals) == (second, first)
    raw = raw_bytes(shop)
    assert first.encode() not in raw
    assert second.encode() not in raw


def test_the_health_page_says_what_cannot_be_opened(shop: Shop) -> None:
    """With the id of the key that is missing, and without a word of what is sealed."""
    found = a_payment_of_each_kind(shop)
    seals = shop.core.keys.seals
    had, seals.ring = seals.ring, Ring([new_key()])
    try:
        answer = shop.send("GET", f"/v1/payments/{found['requires_action']['id']}")
        assert (answer.status_code, (answer.json or {})["type"].rpartition(":")[2]) == (503, "ledger-unavailable")
        assert "Retry-After" in answer.headers
        ready = shop.send("GET", "/readyz").json or {}
        assert ready["ready"] is True
        (line,) = ready["sealing"]["unreadable"]
        assert had is not None
        assert had.first in line
        assert shop.read(found["captured"]["id"])["status"] == "captured"
    finally:
        seals.ring = had
    assert shop.read(found["requires_action"]["id"])["status"] == "requires_action"
    assert (shop.send("GET", "/readyz").json or {})["sealing"]["unreadable"] == []


SEAL_LIKE = "sealed:v1:{}:gAAAAABhZmFrZQ=="


@pytest.mark.parametrize("seal", ["on", "off"])
def test_what_a_client_words_like_a_seal_is_a_text_like_any_other(shops: OpenShop, seal: str) -> None:
    """Nobody makes the ledger's keys look needed, nor his own payment look sealed, by what he sends."""
    shop = shops(seal=seal)
    old = key_id(new_key())
    seals = {"sealed": SEAL_LIKE.format(old), "note": SEAL_LIKE.format(old)}
    answer = shop.pay(metadata=seals)
    assert answer.status_code == 201, answer.text
    assert old not in keys_in_use(SealedRows(shop.core.database))
    refused = shop.pay(payment_method=paying_with(sealed=SEAL_LIKE.format(old), stripe="pm_card_visa"))
    assert refused.status_code == 422
    assert [each["field"] for each in refused.get_json(force=True)["errors"]] == ["payment_method.tokens"]
    assert shop.core.keys.seals.troubles() == {}
    in_use = keys_in_use(SealedRows(shop.core.database)).get(key_id(ENCRYPTION_KEY), {})
    assert {"payments.order", "attempts.params", "payment_events.changes"} <= in_use.keys() or seal == "off"
