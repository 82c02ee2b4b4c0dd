"""What must not leave is taken out of text and values, however it is written; what helps is left as it is."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from router.clock import SystemClock, TimeOrderedIds
from router.key_format import new_key
from router.pan_written import holds_pan, places
from router.settings import Settings
from router.telemetry.scrubbing import DEEPEST, REMOVED, Scrubber, secrets_of
from tests.integration.transcripts import WRITTEN, Searcher, card_number

SCRUBBER = Scrubber()
NUMBERS = st.integers(0, 2**32).map(lambda seed: card_number(random.Random(seed)))
WAYS = st.sampled_from(sorted(WRITTEN))
AROUND = st.text(st.characters(codec="utf-8", categories=("Lu", "Ll", "Po", "Zs", "Sm", "Cc")), max_size=20)


def _nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return (
            inner.map(lambda each: [1, each, None])
            | inner.map(lambda each: {"a": 1, "note": each})
            | inner.map(lambda each: json.dumps(each, default=repr))
            | inner.map(ValueError)
            | inner.map(lambda each: {str(each): 1})
            | inner.map(lambda each: repr(each).encode())
            | inner.map(lambda each: (each, {each} if isinstance(each, str) else each))
        )

    return st.recursive(leaf, around, max_leaves=4)


@given(NUMBERS, WAYS, AROUND, AROUND)
def test_no_card_number_survives_in_a_text(number: str, way: str, before: str, after: str) -> None:
    """In each way of writing it, between any words and marks. The search is not the scrubber's own."""
    searcher = Searcher()
    searcher.planted.add(number)
    scrubbed = SCRUBBER.text(f"{before} x {WRITTEN[way](number)} x {after}")
    assert not searcher.found(scrubbed)


@given(st.data())
def test_no_card_number_survives_in_a_value(data: st.DataObject) -> None:
    """Nested in lists, names, bytes, exceptions, JSON inside text."""
    number = data.draw(NUMBERS)
    value = data.draw(_nested(st.just(WRITTEN[data.draw(WAYS)](number))))
    searcher = Searcher()
    searcher.planted.add(number)
    scrubbed = SCRUBBER.value({"event": value, "text": f"{value!r}"})
    assert not searcher.found(json.dumps(scrubbed)), value
    assert not searcher.found(json.dumps(scrubbed, ensure_ascii=False)), value


@given(NUMBERS, WAYS)
def test_what_stands_around_a_card_number_is_kept(number: str, way: str) -> None:
    """A traceback with a number in its message is a traceback still."""
    scrubbed = SCRUBBER.text(f"File a.py, line 12: {WRITTEN[way](number)} (in pay_01m7y28hams3x8)")
    assert scrubbed.startswith("File a.py, line 12: ")
    assert scrubbed.endswith("(in pay_01m7y28hams3x8)")


SECRETS = {
    "Stripe's secret key": "sk_" + "live_51AbCdEfGhIjKlMnOpQrStUv",
    "Stripe's restricted key": "rk_" + "test_51AbCdEfGhIjKlMn",
    "a webhook's secret": "whsec_" + "abc123DEF456/+=",
    "a bearer": "Bearer " + "abcDEF123-_.~+/=",
    "basic": "Basic dXNlcjpwYXNzd29yZA==",
    "Adyen's API key": "AQEyhmfxL43JaxZEw0m/n3Q5qf3VaY9UCJ1+XWZe9W27jmlZiv4=-lUKXT9IQ5GZ6d6RH4nnuOG4Bu/=-<,x~;y",
    "LaunchDarkly's SDK key": "sdk-12345678-1234-1234-1234-123456789abc",
    "LaunchDarkly's API token": "api-12345678-1234-1234-1234-123456789abc",
    "a payment method": "pm_1AbCdEfGhIjKlMnOp",
    "a test payment method": "pm_card_visa",
    "a token": "tok_1AbCdEf",
    "a source": "src_1AbCdEf",
    "a key of ours": "pm_" + "Zm9vYmFyYmF6cXV4LXF1dXgtY29yZ2UtZ3JhdWx0_A-",
    "a private key": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIIG=\n-----END EC PRIVATE KEY-----",
    "half a private key": "-----BEGIN PRIVATE KEY-----\nMHcCAQEE",
    "a web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_123",
    "a session": "pointsman_session=abcdef.123456",
    "a cookie": "Cookie: a=b; session=deadbeef",
    "a password in an address": "postgresql://app:hunter2@db/ledger",
    "a DSN": "https://0123abcd@sentry.example/1",
    "a field of JSON": '{"password": "correct horse"}'.replace(" horse", "horse"),
    "a field of JSON in JSON": json.dumps(json.dumps({"api_key": "planted99"})),
    "a field of a query": "https://x.example/?a=1&access_token=planted99&b=2",
    "an encoded field": "access_token%3Dplanted99",
    "a header": "X-API-Key: planted99",
}
PLANTED = {
    "a password in an address": "hunter2",
    "a DSN": "0123abcd",
    "a field of JSON": "correcthorse",
    "a session": "abcdef",
    "a cookie": "deadbeef",
    "a bearer": "abcDEF",
    "basic": "dXNlc",
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_known_by_its_shape(name: str) -> None:
    """In the middle of a sentence, and in a repr."""
    secret = SECRETS[name]
    planted = PLANTED.get(name, "planted99" if "planted99" in secret else secret[8:16])
    for text in (f"it failed: {secret}", repr({"note": secret}), json.dumps({"note": secret})):
        scrubbed = SCRUBBER.text(text)
        assert planted not in scrubbed, scrubbed
        assert REMOVED in scrubbed


def test_a_client_secret_loses_its_secret_and_keeps_its_payment() -> None:
    """The payment's id is what the log is read for."""
    assert SCRUBBER.text("pi_3AbC_secret_9xYz12 failed") == f"pi_3AbC_secret_{REMOVED} failed"


def test_a_secret_that_looks_like_nothing_is_known_by_its_value() -> None:
    """Whatever this process was given as a secret is taken out wherever it turns up."""
    settings = Settings.model_validate(
        {
            "adyen_hmac_key": "AB12CD34" * 8 + "," + "EF56AB78" * 8,
            "api_key": "an-unusual-phrase",
            "database_url": "postgresql://app:blue-monday@db/ledger",
        }
    )
    scrubber = Scrubber(secrets_of(settings))
    for planted in ("AB12CD34" * 8, "EF56AB78" * 8, "an-unusual-phrase", "blue-monday"):
        assert scrubber.text(f"x{planted}y") == f"x{REMOVED}y"


IDS = [
    *(
        "pi_3MtwBwLkdIwHu7ix28a3tqPa",
        "ch_3MmlLrLkdIwHu7ix0snN0B15",
        "re_1Nispe2eZvKYlo2Cd31jOCgZ",
        "cus_NffrFeUfNV2Hib",
    ),
    *(
        "evt_1NG8Du2eZvKYlo2CUI79vXWy",
        "NC6HT9CRT65ZGN82",
        "8536214160615591",
        "8415718415172204",
        "ORD-20261121-123456",
    ),
    *("2026-11-21T02:03:04.567890Z", "2026-11-21 02:03:04.567890+00:00", "127.0.0.1:8080", "req_01m7y28hams3x8"),
    *("0.123456789012", "23.4567890123456", "1999 EUR", "10.0.0.1,10.0.0.2", "1/2/3", "sha256:" + "0f" * 32),
    *("attempts 1, 2, 3 of 4", "https://api.stripe.com/v1/payment_intents/pi_1", "token bucket empty", "no key"),
]


@pytest.mark.parametrize("text", IDS)
def test_ids_times_and_figures_are_left_as_they_are(text: str) -> None:
    """Providers' references, order numbers, our ids, addresses: what a log is read for."""
    assert SCRUBBER.text(f"about {text}: done") == f"about {text}: done"


@given(st.uuids())
def test_a_uuid_is_left_as_it_is(value: uuid.UUID) -> None:
    """Unless it has no letter, and reads like a card number."""
    text = str(value)
    assert SCRUBBER.text(text) == text or text.replace("-", "").isdigit()


def test_our_own_ids_are_left_as_they_are() -> None:
    """Ten thousand of them: one in a million may have thirteen digits in a row that pass."""
    ids = TimeOrderedIds(SystemClock())
    changed = [each for each in (ids.new("pay") for _ in range(10_000)) if SCRUBBER.text(each) != each]
    assert changed == []


def test_what_is_nested_without_end_is_cut_off() -> None:
    """A log may not exhaust the stack."""
    value: Any = "x"
    for _ in range(10_000):
        value = [value]
    shown = SCRUBBER.value(value)
    depth = 0
    while isinstance(shown, list):
        shown, depth = shown[0], depth + 1
    assert (shown, depth) == (REMOVED, DEEPEST + 1)


def test_an_object_that_cannot_be_shown_is_no_fault() -> None:
    """A stranger's __repr__ may raise anything."""

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert SCRUBBER.value({"x": Odd()}) == {"x": "<Odd>"}


def test_places_are_told_exactly() -> None:
    """Begins and ends in the text as written; two numbers are two places."""
    text = "a 4111%201111%201111%201111 b 5555-5555-5555-4444 c"
    assert [text[begin:end] for begin, end in places(text)] == ["4111%201111%201111%201111", "5555-5555-5555-4444"]


@pytest.mark.parametrize("text", ["2026.11.21.123456789", "45_123456789012", "1.2.3.4.5.6.7.8", "4.111111111111111"])
def test_figures_between_marks_are_no_cards_unless_grouped_like_one(text: str) -> None:
    """Order numbers and figures: a payment refused for them could never be paid."""
    assert not holds_pan(text)


@pytest.mark.parametrize("before", ["", "key ", "'", "/v1/", "x-", "Xy", "_"])
def test_a_key_of_our_own_is_taken_out_wherever_it_stands(before: str) -> None:
    """As `pointsman api-keys` makes them: alone in a text, and with nothing that says what it is."""
    key = new_key(random.Random(before).randrange)
    assert SCRUBBER.text(f"{before}{key} was refused") in (f"{before}{REMOVED} was refused", f"{REMOVED} was refused")
    assert key not in json.dumps(SCRUBBER.value({"event": "odd", "path": f"{before}{key}"}))


def test_passwords_in_addresses_are_known_as_they_stand_and_as_they_are_read() -> None:
    settings = Settings(
        limits_store=SecretStr("redis://limits:hunter2hunter2@store:6379/0"),
        database_url="postgresql://ledger:p%40ssw0rd99@db/ledger",
    )
    scrubber = Scrubber(secrets_of(settings))
    for password in ("hunter2hunter2", "p%40ssw0rd99", "p@ssw0rd99"):
        assert scrubber.text(f"cannot log in with {password}") == f"cannot log in with {REMOVED}"
