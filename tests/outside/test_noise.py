"""What no description foresees: webhooks of noise, signed and not, headers of noise, and bytes that are no HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.sandbox.server import Sandbox
from tests.e2e.house import House
from tests.integration.desk import SECRETS, Desk
from tests.integration.letters import ACCOUNT, adyen_letter, item, stripe_headers
from tests.integration.shop import Shop, open_shop, order

NOISE = int(os.environ.get("NOISE", "60"))
"""Tries of each kind; `make outside` takes more."""
usual = settings(
    max_examples=NOISE,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

TEXT = st.text(max_size=30)
WORDS = st.sampled_from(
    [
        *("payment_intent.succeeded", "charge.refunded", "charge.dispute.created", "refund.updated", "event", "eur"),
        *("AUTHORISATION", "CAPTURE", "CANCELLATION", "REFUND", "CHARGEBACK", "TECHNICAL_CANCEL", "pi_1", "true", ""),
    ]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT | WORDS
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | WORDS, inner, max_size=4),
    max_leaves=12,
)
STRIPE = st.fixed_dictionaries(
    {},
    optional={
        "id": LEAVES,
        "object": st.just("event") | LEAVES,
        "type": WORDS | LEAVES,
        "created": LEAVES,
        "livemode": LEAVES,
        "data": JSON
        | st.fixed_dictionaries(
            {
                "object": st.fixed_dictionaries(
                    {},
                    optional={
                        **dict.fromkeys(
                            ("id", "amount", "currency", "status", "payment_intent", "amount_received"), LEAVES
                        ),
                        **dict.fromkeys(("metadata", "last_payment_error", "latest_charge", "charges"), JSON),
                        "object": st.sampled_from(["payment_intent", "charge", "refund", "dispute"]) | LEAVES,
                    },
                )
            }
        ),
    },
)
ADYEN_FIELDS = {
    **dict.fromkeys(("eventDate", "merchantReference", "originalReference", "pspReference", "reason"), TEXT),
    "eventCode": WORDS,
    "success": st.sampled_from(["true", "false", "", "maybe"]),
    "amount": st.fixed_dictionaries({"currency": TEXT, "value": st.integers()}),
    "merchantAccountCode": st.just(ACCOUNT) | TEXT,
}
# What a header may hold: the server below refuses the rest before the service sees it.
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=300)


@pytest.fixture(scope="module")
def shop(sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One router for all the noise."""
    folder = tmp_path_factory.mktemp("noise")
    sandbox_process.reset()
    with open_shop(f"sqlite:///{folder / 'ledger.db'}", sandbox_process, folder, **SECRETS) as shop:
        yield shop


def stands(shop: Shop) -> None:
    """The worker gets through what was believed, and a payment is still paid."""
    Desk(shop).read_notices()
    assert shop.pay().status_code == 201


@usual
@given(body=st.binary(max_size=300), header=HEADER, provider=st.sampled_from(["stripe", "adyen"]))
def test_noise_is_never_believed(shop: Shop, body: bytes, header: str, provider: str) -> None:
    """A refusal, whatever it is, and nothing is stored."""
    before = shop.counts()
    headers = {"Stripe-Signature": header, "Content-Type": header}
    answer = shop.send("POST", f"/webhooks/{provider}", api_key=None, data=body, headers=headers)
    assert answer.status_code in (400, 413)
    assert shop.counts() == before


@usual
@given(event=STRIPE | JSON)
def test_signed_senselessness_of_stripe_is_taken_or_refused_and_harms_nothing(shop: Shop, event: Any) -> None:
    """With the right signature: the vendor may send what we have never seen."""
    body = json.dumps(event).encode()
    answer = shop.send("POST", "/webhooks/stripe", api_key=None, data=body, headers=stripe_headers(body))
    assert answer.status_code in (200, 202, 400), answer.text


@usual
@given(fields=st.fixed_dictionaries({}, optional=ADYEN_FIELDS))
def test_signed_senselessness_of_adyen_is_taken_or_refused_and_harms_nothing(shop: Shop, fields: Any) -> None:
    """Field by field, each item signed as Adyen signs."""
    _, headers, body = adyen_letter(item(fields.pop("eventCode", "AUTHORISATION"), **fields))
    answer = shop.send("POST", "/webhooks/adyen", api_key=None, data=body, headers=headers)
    assert answer.status_code in (200, 202, 400), answer.text


def test_after_all_that_noise_the_worker_still_works(shop: Shop) -> None:
    """What was believed is applied or set aside; a payment is paid."""
    stands(shop)


@usual
@given(key=HEADER, authorization=HEADER, trace=HEADER, accept=HEADER, encoding=HEADER)
def test_headers_of_noise_end_in_an_answer(
    shop: Shop, key: str, authorization: str, trace: str, accept: str, encoding: str
) -> None:
    """Of a payment: created, or refused by name; never a fault of ours."""
    headers = {"traceparent": trace, "X-Request-Id": trace, "Accept": accept, "Accept-Encoding": encoding}
    answer = shop.send("POST", "/v1/payments", key=key, json=order(), headers=headers)
    assert answer.status_code in (201, 202, 400, 409, 422), answer.text
    refused = shop.send(
        "POST",
        "/v1/payments",
        key="k",
        api_key=None,
        json=order(),
        headers={**headers, "Authorization": authorization},
    )
    assert refused.status_code == 401


KEY = "the-key-of-this-test"
PAY = b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nIdempotency-Key: noise\r\n"
LINES = {
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two lengths": PAY + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}abc",
    "a length and chunks": PAY + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a length below nothing": PAY + b"Content-Length: -1\r\n\r\n",
    "a broken chunk": PAY + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
    "a folded header": PAY + b"X-Folded: one\r\n two\r\nContent-Length: 2\r\n\r\n{}",
    "a zero byte in a header": PAY + b"X-Zero: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": PAY + b"X-Space : a\r\nContent-Length: 2\r\n\r\n{}",
    "a header of a megabyte": PAY + b"X-Long: " + b"a" * 1_000_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    "ten thousand headers": PAY + b"X-Many: a\r\n" * 10_000 + b"Content-Length: 2\r\n\r\n{}",
    "a body cut short": PAY + b"Content-Length: 500\r\n\r\n{",
    "another version": PAY.replace(b"HTTP/1.1", b"HTTP/9.9") + b"Content-Length: 2\r\n\r\n{}",
    "a path of noise": b"GET /v1/payments/%ff%00/../..//etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "an address for a path": b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.processes
def test_bytes_that_are_no_request_harm_nobody_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A refusal or a closed connection; the next customer pays, and nothing was charged by the noise."""
    house = House(tmp_path_factory.mktemp("bytes"))
    try:
        where = urlsplit(house.url)
        for name, lines in LINES.items():
            told = _told(str(where.hostname), int(where.port or 0), lines.replace(b"%s", KEY.encode()))
            status = int(told.split(b" ", 2)[1]) if told.startswith(b"HTTP/1.1 ") else 400
            assert 400 <= status < 500, (name, told[:200])
        assert house.pay()[0] == 201
        assert house.control("GET", "/stripe")["authorizations"] == 1
    finally:
        house.stop()


def _told(host: str, port: int, lines: bytes) -> bytes:
    """What is answered before the connection is closed, by whichever side."""
    found = b""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(lines)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            found += part
    return found
