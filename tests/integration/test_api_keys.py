"""API keys: made, listed, replaced and ended over the API; nobody passes on more than they have."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from werkzeug.test import TestResponse

from router.api.key_ring import KNOWN_KEY_FOR_S, KeyRing
from router.clock import ManualClock, SystemClock
from router.key_format import is_impossible
from router.key_keeping import KEYS_AT_MOST
from router.ledger.engine import Database
from router.ledger.keys import Caller, KeyLedger, digest, id_of
from tests.integration.shop import API_KEY, LOG, Shop

pytestmark = pytest.mark.either_database

OPERATOR = "operator-of-the-shop"


def make(shop: Shop, api_key: str = API_KEY, **body: Any) -> TestResponse:
    return shop.send("POST", "/v1/api-keys", api_key=api_key, json={"scopes": ["payments"]} | body)


def made(shop: Shop, api_key: str = API_KEY, **body: Any) -> dict[str, Any]:
    answer = make(shop, api_key, **body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json or {})


def kind(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, str(answer.get_json(force=True)["type"]).rpartition(":")[2]


def test_a_key_is_shown_once_works_at_once_and_is_kept_as_a_digest(shop: Shop) -> None:
    one = made(shop, merchant="books", label="checkout")
    key = one.pop("key")
    assert not is_impossible(key)
    assert key.startswith(one["hint"].removesuffix("…"))
    assert shop.pay(api_key=key).status_code == 201
    assert shop.send("GET", "/v1/api-keys", api_key=key).status_code == 403
    listed = shop.send("GET", "/v1/api-keys?merchant=books").json
    assert listed == {"api_keys": [one], "next": None}
    assert (one["merchant"], one["scopes"], one["state"]) == ("books", ["payments"], "valid")
    (row,) = shop.rows("SELECT * FROM api_keys")
    assert key not in str(row)
    assert key not in LOG.getvalue()
    assert shop.send("GET", f"/v1/api-keys/{one['id']}").json == one


def test_nobody_passes_on_more_than_they_have(shop: Shop) -> None:
    """An operator makes keys of its own merchant with its own scopes; the bootstrap key, anybody's."""
    shop.add_key(OPERATOR, merchant="books", scopes=("operate", "payments"))
    assert made(shop, OPERATOR)["merchant"] == "books"
    assert made(shop, OPERATOR, merchant="books", scopes=["operate"])["scopes"] == ["operate"]
    assert kind(make(shop, OPERATOR, scopes=["reports"])) == (403, "forbidden")
    assert kind(make(shop, OPERATOR, merchant="toys")) == (403, "forbidden")
    others = made(shop, merchant="toys", scopes=["payments"])
    for method, path in (
        ("GET", ""),
        ("GET", "/changes"),
        ("POST", "/rotate"),
        ("POST", "/revoke"),
    ):
        answer = shop.send(method, f"/v1/api-keys/{others['id']}{path}", api_key=OPERATOR)
        assert kind(answer) == (404, "not-found")
    assert kind(shop.send("GET", "/v1/api-keys?merchant=toys", api_key=OPERATOR)) == (403, "forbidden")
    more = made(shop, merchant="books", scopes=["reports"])
    # Replacing a key hands out its scopes; ending it does not.
    assert kind(shop.send("POST", f"/v1/api-keys/{more['id']}/rotate", api_key=OPERATOR)) == (403, "forbidden")
    assert shop.send("POST", f"/v1/api-keys/{more['id']}/revoke", api_key=OPERATOR).status_code == 200
    seen = shop.send("GET", "/v1/api-keys", api_key=OPERATOR).json or {}
    assert {each["merchant"] for each in seen["api_keys"]} == {"books"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"label": "a\nb"}, "label"),
        ({"label": "x" * 256}, "label"),
        ({"merchant": " "}, "merchant"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_wrong_is_named(standing_shop: Shop, body: dict[str, Any], field: str) -> None:
    answer = make(standing_shop, **body)
    assert kind(answer) == (422, "invalid-request")
    assert answer.get_json(force=True)["errors"][0]["field"].startswith(field)


def test_a_replaced_key_works_on_for_its_grace_and_not_longer(shop: Shop) -> None:
    old = made(shop, merchant="books", label="checkout")
    answer = shop.send("POST", f"/v1/api-keys/{old['id']}/rotate", json={"grace_hours": 2})
    new = answer.json or {}
    assert (answer.status_code, new["label"], new["scopes"]) == (201, "checkout", ["payments"])
    for key in (old["key"], new["key"]):
        assert shop.pay(api_key=key).status_code == 201
    was = shop.send("GET", f"/v1/api-keys/{old['id']}").json or {}
    assert (was["replaced_by"], was["state"]) == (new["id"], "valid")
    ends = dt.datetime.fromisoformat(was["expires_at"]) - dt.datetime.fromisoformat(new["created_at"])
    assert ends == dt.timedelta(hours=2)
    assert kind(shop.send("POST", f"/v1/api-keys/{old['id']}/rotate")) == (409, "state-conflict")
    at_once = shop.send("POST", f"/v1/api-keys/{new['id']}/rotate", json={"grace_hours": 0}).json or {}
    assert KeyLedger(shop.core.database).find(new["key"], shop.core.clock.now()) is None
    assert KeyLedger(shop.core.database).find(at_once["key"], shop.core.clock.now()) is not None


def test_who_did_what_is_on_record(shop: Shop) -> None:
    one = made(shop, merchant="books")
    new = shop.send("POST", f"/v1/api-keys/{one['id']}/rotate").json or {}
    shop.send("POST", f"/v1/api-keys/{one['id']}/revoke", json={"reason": "it leaked"})
    shop.send("POST", f"/v1/api-keys/{one['id']}/revoke", json={"reason": "again"})
    changes = (shop.send("GET", f"/v1/api-keys/{one['id']}/changes").json or {})["changes"]
    assert [each["what"] for each in changes] == ["created", "rotated", "revoked"]
    assert {each["by"] for each in changes} == {"default: bootstrap key (bootstrap)"}
    assert changes[2]["detail"] == "it leaked"
    assert new["id"] in changes[1]["detail"]


def test_a_merchant_has_not_more_keys_than_it_can_look_after(shop: Shop) -> None:
    ledger, now = KeyLedger(shop.core.database), shop.core.clock.now()
    for number in range(KEYS_AT_MOST):
        ledger.add(f"k{number}", merchant="books", scopes=["payments"], label="", now=now)
    assert kind(make(shop, merchant="books")) == (409, "too-many-keys")
    assert make(shop, merchant="toys").status_code == 201
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = shop.send("GET", f"/v1/api-keys?merchant=books{cursor and '&cursor=' + cursor}").json or {}
        seen += [each["id"] for each in page["api_keys"]]
        cursor = page["next"]
    assert sorted(seen) == sorted(id_of(digest(f"k{number}")) for number in range(KEYS_AT_MOST))


def test_keys_of_before_this_version_are_listed_and_replaced(database: Database) -> None:
    """The version before still adds keys meanwhile: columns that it does not name have defaults."""
    with database.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO api_keys (digest, merchant, scopes, label, created_at)"
            f" VALUES ('{digest('pm_old')}', 'books', '[\"payments\"]', 'old', 1)"
        )
    ledger, now = KeyLedger(database), SystemClock().now()
    (found,) = ledger.page(merchant="books", with_revoked=True, limit=9, after=None)
    assert (found.label, found.hint, found.is_valid(now)) == ("old", "", True)
    assert ledger.find("pm_old", now) == Caller("books", frozenset({"payments"}), "old", found.id)
    assert ledger.rotate(found.id, "new", hint="", by="me", now=now, old_until=now) is not None
    assert ledger.find("pm_old", now) is None


def test_of_two_rotations_at_once_one_comes_about(database: Database) -> None:
    ledger, now = KeyLedger(database), SystemClock().now()
    one = ledger.add("old", merchant="books", scopes=["payments"], label="", now=now)
    start, found = threading.Barrier(4), []

    def rotate(number: int) -> None:
        start.wait()
        found.append(ledger.rotate(one.id, f"new{number}", hint="", by="me", now=now, old_until=now))

    threads = [threading.Thread(target=rotate, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(each is not None for each in found) == 1
    assert ledger.count("books") == 2


def test_an_end_that_was_set_is_not_outlived_by_rotating(database: Database) -> None:
    ledger, now = KeyLedger(database), SystemClock().now()
    hour = dt.timedelta(hours=1)
    one = ledger.add("old", merchant="books", scopes=["payments"], label="", now=now, expires_at=now + hour)
    new = ledger.rotate(one.id, "new", hint="", by="me", now=now, old_until=now + 2 * hour)
    old = ledger.get(one.id)
    assert new is not None
    assert old is not None
    assert new.expires_at == old.expires_at == now + hour
    assert ledger.find("new", now + hour) is None


def test_uses_are_written_by_a_batch_and_expired_keys_end_for_those_who_ask_for_revoked_ones(
    database: Database,
) -> None:
    clock = ManualClock()
    ledger = KeyLedger(database)
    now, hour = clock.now(), dt.timedelta(hours=1)
    one = ledger.add("one", merchant="books", scopes=["payments"], label="", now=now, expires_at=now + hour)
    two = ledger.add("two", merchant="books", scopes=["payments"], label="", now=now)
    ring = KeyRing(lambda key: ledger.find(key, clock.now()), bootstrap=None, clock=clock)
    assert ring.caller("one") is not None
    ledger.used(ring.take_used())
    ledger.used({one.id: now - hour})
    assert [each and each.last_used_at for each in (ledger.get(one.id), ledger.get(two.id))] == [now, None]
    assert ring.take_used() == {}
    assert ledger.end_expired(now) == 0
    clock.advance(3600)
    assert ledger.end_expired(clock.now()) == 1
    over = ledger.get(one.id)
    assert over is not None
    assert over.revoked_at == now + hour
    assert ledger.count("books") == 1


def test_a_revoked_key_is_refused_after_the_time_that_it_is_trusted(database: Database) -> None:
    clock, ledger = ManualClock(), KeyLedger(database)
    one = ledger.add("one", merchant="books", scopes=["payments"], label="", now=clock.now())
    ring = KeyRing(lambda key: ledger.find(key, clock.now()), bootstrap=None, clock=clock)
    assert ring.caller("one") is not None
    assert ledger.revoke(one.id, by="me", reason="", now=clock.now())
    assert not ledger.revoke(one.id, by="me", reason="", now=clock.now())
    clock.advance(KNOWN_KEY_FOR_S)
    assert ring.caller("one") is None


def test_while_keys_are_replaced_under_load_no_request_fails(shop: Shop) -> None:
    """Four tills pay; the key is replaced again and again, each till takes the new one when it likes; then the last
    old one is ended and the new one goes on."""
    current = made(shop, merchant="books")
    keys, stop, answers = [current["key"]], threading.Event(), []

    def till() -> None:
        while not stop.is_set():
            answers.append(shop.send("GET", "/v1/payments?reference=none", api_key=keys[-1]).status_code)

    tills = [threading.Thread(target=till) for _ in range(4)]
    for each in tills:
        each.start()
    for _ in range(5):
        current = shop.send("POST", f"/v1/api-keys/{current['id']}/rotate").json or {}
        keys.append(current["key"])
    before = len(answers)
    while len(answers) < before + 40:
        threading.Event().wait(0.01)
    stop.set()
    for each in tills:
        each.join()
    assert set(answers) == {200}


def test_a_key_that_was_ended_ends_and_makes_no_other(shop: Shop) -> None:
    """A process takes it for five seconds more: time enough for a thief to make one that nobody knows of."""
    thief = made(shop, merchant="books", scopes=["operate", "payments"])
    other = made(shop, merchant="books")
    assert shop.send("GET", "/v1/api-keys", api_key=thief["key"]).status_code == 200  # remembered
    assert shop.send("POST", f"/v1/api-keys/{thief['id']}/revoke").status_code == 200
    assert kind(make(shop, thief["key"])) == (401, "unauthenticated")
    for action in ("rotate", "revoke"):
        answer = shop.send("POST", f"/v1/api-keys/{other['id']}/{action}", api_key=thief["key"])
        assert kind(answer) == (401, "unauthenticated")
    assert [each["state"] for each in _keys_of(shop, "books")] == ["valid"]


def test_nobody_makes_a_key_that_outlives_his_own(shop: Shop) -> None:
    """Neither one that was to end, nor one that was replaced and works on for its grace."""
    until = (shop.core.clock.now() + dt.timedelta(hours=1)).strftime("%FT%TZ")
    later = (shop.core.clock.now() + dt.timedelta(hours=2)).strftime("%FT%TZ")
    lasting = made(shop, merchant="books", scopes=["operate", "payments"])
    guest = made(shop, merchant="books", scopes=["operate", "payments"], expires_at=until)
    ends = dt.datetime.fromisoformat(until)
    assert dt.datetime.fromisoformat(made(shop, guest["key"])["expires_at"]) == ends
    assert kind(make(shop, guest["key"], expires_at=later)) == (403, "forbidden")
    answer = shop.send("POST", f"/v1/api-keys/{lasting['id']}/rotate", api_key=guest["key"])
    assert kind(answer) == (403, "forbidden")
    replaced = shop.send(
        "POST", f"/v1/api-keys/{guest['id']}/rotate", api_key=guest["key"], json={"grace_hours": 0.5}
    )
    assert dt.datetime.fromisoformat((replaced.json or {})["expires_at"]) == ends
    # The grace's end is the replaced key's own, which it hands on.
    assert dt.datetime.fromisoformat(made(shop, guest["key"])["expires_at"]) < ends
    assert shop.send("POST", f"/v1/api-keys/{lasting['id']}/rotate", api_key=lasting["key"]).status_code == 201
    assert dt.datetime.fromisoformat(made(shop, lasting["key"])["expires_at"]) > ends


def _keys_of(shop: Shop, merchant: str) -> list[dict[str, Any]]:
    return list((shop.send("GET", f"/v1/api-keys?merchant={merchant}").json or {})["api_keys"])
