"""Thousands of transcripts with card numbers planted in them, through a real router: does one survive anywhere?

`make transcripts` plants 100,000; the suite some hundreds. Each transcript is one exchange: a request of checkout's,
an answer or a webhook of a provider's, an exception of an SDK's or a line that a library logs, with a card number in
it, in one of many places and written in one of many ways. Searched afterwards, by other means than the router's own:
every answer (problem documents among them), the log, what went to Sentry over a real socket, and the raw bytes of
the SQLite file and its WAL.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import html
import itertools
import json
import logging
import random
import re
import sys
import tempfile
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
import sentry_sdk
import structlog
from pydantic import SecretStr

from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET, Sandbox
from router.telemetry import faults
from tests.integration import letters
from tests.integration.desk import Letter
from tests.integration.shop import LOG, Shop, Spy, open_shop, order, paying_with

# ---------------------------------------------------------------- card numbers, and how they are written


def card_number(draw: random.Random) -> str:
    """Any number that the rule calls a card number, of a scheme's length."""
    while True:
        length = draw.choice((13, 14, 15, 16, 16, 16, 16, 17, 18, 19))
        body = draw.choice(("4", "51", "55", "2221", "2720", "34", "37", "36", "6011", "62", "6759", "3566"))
        body += "".join(draw.choices("0123456789", k=length - 1 - len(body)))
        total = 0
        for place, digit in enumerate(reversed(body)):
            number = int(digit) * (2 if place % 2 == 0 else 1)
            total += number - 9 if number > 9 else number
        return body + str(-total % 10)


def _fours(pan: str, separator: str) -> str:
    return separator.join(pan[at : at + 4] for at in range(0, len(pan), 4))


def _script(pan: str, zero: int) -> str:
    return "".join(chr(zero + int(digit)) for digit in pan)


WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": lambda pan: pan,
    "blanks": lambda pan: _fours(pan, " "),
    "dashes": lambda pan: _fours(pan, "-"),
    "dots": lambda pan: _fours(pan, "."),
    "slashes": lambda pan: _fours(pan, "/"),
    "underscores": lambda pan: _fours(pan, "_"),
    "each apart": " ".join,
    "each dotted": ".".join,
    "no-break": lambda pan: _fours(pan, "\u00a0"),
    "thin": lambda pan: _fours(pan, "\u2009"),
    "en dash": lambda pan: _fours(pan, "\u2013"),
    "zero width": lambda pan: _fours(pan, "\u200b"),
    "tabs": lambda pan: _fours(pan, "\t"),
    "lines": lambda pan: _fours(pan, "\n"),
    "full-width": lambda pan: _script(pan, 0xFF10),
    "Arabic": lambda pan: _script(pan, 0x0660),
    "bold": lambda pan: _script(pan, 0x1D7CE),
    "percent": lambda pan: "".join(f"%{ord(digit):02X}" for digit in pan),
    "percent full-width": lambda pan: quote(_script(pan, 0xFF10)),
    "full-width bytes": lambda pan: repr(_script(pan, 0xFF10).encode()),
    "thin bytes": lambda pan: repr(_fours(pan, "\u2009").encode()),
    "percent blanks": lambda pan: _fours(pan, "%20"),
    "percent twice": lambda pan: "".join(f"%25{ord(digit):02x}" for digit in pan),
    "JSON escapes": lambda pan: "".join(f"\\u{ord(digit):04x}" for digit in pan),
    "bytes escapes": lambda pan: "".join(f"\\x{ord(digit):02x}" for digit in pan),
    "HTML": lambda pan: "".join(f"&#{ord(digit)};" for digit in pan),
    "sentence": lambda pan: f"the card {pan}, please",
    "address": lambda pan: f"https://shop.example/pay?card={pan}&x=1",
    "JSON": lambda pan: json.dumps({"card": {"number": pan, "exp": "12/29"}}),
    "JSON twice": lambda pan: json.dumps(json.dumps({"number": _fours(pan, " ")})),
    "repr of bytes": lambda pan: repr(pan.encode()),
    "track": lambda pan: f";{pan}=29121010000000000000?",
}

# ---------------------------------------------------------------- looking for them, by other means


class Searcher:
    """Finds planted numbers in text: decodes it every way there is, and looks at any digits near to each other."""

    _near = re.compile(r"\d(?:\D{0,4}\d){12,}")

    def __init__(self) -> None:
        self.planted: set[str] = set()

    def found(self, text: str) -> set[str]:
        """The planted numbers that can be read in this text."""
        readings = {text}
        once = text
        for _ in range(3):
            once = unquote(once)
            readings.add(once)
        readings |= {html.unescape(each) for each in readings}
        readings |= {_unescaped(each) for each in list(readings)}
        readings |= {_folded(each) for each in list(readings) if not each.isascii()}
        return {number for each in readings for number in self._in(each)}

    def _in(self, text: str) -> Iterator[str]:
        for run in self._near.finditer(text):
            digits = re.sub(r"\D", "", run.group())
            for at in range(len(digits) - 12):
                for length in range(13, 20):
                    if digits[at : at + length] in self.planted:
                        yield digits[at : at + length]

    def in_file(self, path: Path) -> set[str]:
        """The planted numbers in a file's raw bytes, read in overlapping pieces."""
        found: set[str] = set()
        with path.open("rb") as file:
            before = b""
            while piece := file.read(1 << 20):
                data = before + piece
                found |= self.found(data.decode("utf-8", errors="replace").replace("\x00", ""))
                before = data[-4096:]
        return found


def _unescaped(text: str) -> str:
    text = re.sub(
        r"(?:\\+x[0-9a-fA-F]{2})+",
        lambda each: bytes.fromhex(re.sub(r"\\+x", "", each[0])).decode(errors="replace"),
        text,
    )
    return re.sub(r"\\+u([0-9a-fA-F]{4})", lambda each: chr(int(each[1], 16)), text)


def _folded(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in text)


# ---------------------------------------------------------------- providers that repeat them, and Sentry's end


@dataclass(slots=True)
class Desk:
    """An HTTP server: what it is told to answer next, and what it was sent."""

    answers: list[tuple[int, bytes, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""


@contextlib.contextmanager
def desk() -> Iterator[Desk]:
    """Answers as it is told; keeps the bodies that it was sent."""
    told = Desk()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            told.bodies.append(self._body())
            status, body, kind = told.answers.pop(0) if told.answers else (200, b"{}", "application/json")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        do_GET = do_POST = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield told
    server.shutdown()
    server.server_close()


# ---------------------------------------------------------------- transcripts

_numbers = itertools.count(1)


def _answer_json(status: int, body: Any) -> tuple[int, bytes, str]:
    return status, json.dumps(body).encode(), "application/json"


def stripe_answers(pan: str) -> list[tuple[int, bytes, str]]:
    """What Stripe, or something in front of it, could say with a card number in it."""
    intent: dict[str, Any] = {
        "id": f"pi_told{next(_numbers)}",
        "object": "payment_intent",
        "status": "succeeded",
        "amount": 1999,
        "currency": "eur",
        "description": pan,
        "metadata": {"note": pan, pan: "x"},
        "latest_charge": {"billing_details": {"name": pan}, "outcome": {"seller_message": pan}},
    }
    declined = {"type": "card_error", "code": "card_declined", "message": pan, "param": pan}
    stopped = intent | {"status": "requires_payment_method", "last_payment_error": {"message": pan, "code": pan}}
    redirect = {"type": "redirect_to_url", "redirect_to_url": {"url": f"https://hooks.example/r?c={pan}"}}
    return [
        _answer_json(200, intent),
        _answer_json(200, stopped),
        _answer_json(200, intent | {"status": "requires_action", "next_action": redirect}),
        _answer_json(200, intent | {"status": "requires_action", "client_secret": pan}),
        _answer_json(200, intent | {"status": pan}),
        _answer_json(200, intent | {"id": pan}),
        _answer_json(402, {"error": declined | {"decline_code": "do_not_honor", "payment_intent": stopped}}),
        _answer_json(402, {"error": declined | {"decline_code": pan}}),
        _answer_json(402, {"error": declined | {"network_decline_code": pan, "network_advice_code": pan}}),
        _answer_json(402, {"error": declined | {"advice_code": pan, "doc_url": pan}}),
        _answer_json(400, {"error": {"type": "invalid_request_error", "message": pan, "param": pan, "code": pan}}),
        _answer_json(401, {"error": {"message": f"Invalid API Key: {pan}"}}),
        (400, f"<html>bad request: {pan}</html>".encode(), "text/html"),
        (200, f"not json {pan}".encode(), "application/json"),
    ]


def adyen_answers(pan: str) -> list[tuple[int, bytes, str]]:
    """The same of Adyen."""
    told = {"pspReference": f"TOLD{next(_numbers):012}", "additionalData": {"cardNumber": pan, pan: "x"}}
    refused = told | {"resultCode": "Refused", "refusalReason": pan}
    action = {"type": "sdk", "paymentData": pan, "nested": [{"deep": pan}], "url": f"https://3ds.example/{pan}"}
    return [
        _answer_json(200, told | {"resultCode": "Authorised", "merchantReference": pan}),
        _answer_json(200, refused | {"refusalReasonCode": "2"}),
        _answer_json(200, refused | {"refusalReasonCode": pan}),
        _answer_json(
            200, refused | {"refusalReasonCode": "2", "additionalData": {"refusalReasonRaw": f"{pan} : no"}}
        ),
        _answer_json(200, refused | {"refusalReasonCode": "2", "additionalData": {"merchantAdviceCode": pan}}),
        _answer_json(200, told | {"resultCode": pan}),
        _answer_json(200, told | {"resultCode": "ChallengeShopper", "action": action}),
        _answer_json(200, told | {"resultCode": "RedirectShopper", "action": {"type": "redirect", "url": pan}}),
        _answer_json(422, {"status": 422, "errorCode": pan, "message": pan, "errorType": "validation"}),
        _answer_json(403, {"status": 403, "errorCode": "901", "message": f"Invalid Merchant Account {pan}"}),
        (422, f"<html>{pan}</html>".encode(), "text/html"),
    ]


def stripe_letters(pan: str, draw: random.Random) -> Letter:
    """Webhooks of Stripe's with a card number in them, rightly signed."""
    kind, thing = draw.choice(
        [
            (
                "payment_intent.payment_failed",
                letters.intent(None, "att_x", "requires_payment_method", last_payment_error={"code": pan}),
            ),
            ("payment_intent.payment_failed", letters.intent(None, "att_x", pan, description=pan)),
            ("payment_intent.succeeded", letters.intent(None, "att_x", "succeeded", metadata={"a": pan})),
            ("payment_intent.succeeded", letters.intent(None, pan, "succeeded")),
            ("payment_intent.succeeded", letters.intent(pan, "att_x", "succeeded")),
            ("refund.failed", letters.refund("pi_x", 100, "failed", failure_reason=pan)),
            ("charge.dispute.created", letters.dispute("pi_x", pan)),
            (pan, {"id": pan, "object": pan}),
        ]
    )
    return letters.stripe_letter(kind, thing)


def adyen_letters(pan: str, draw: random.Random) -> Letter:
    """The same of Adyen's."""
    changed: dict[str, Any] = draw.choice(
        [
            {"event": "AUTHORISATION", "success": "false", "reason": pan},
            {"event": "AUTHORISATION", "reason": f"123456:{pan}:12/2029"},
            {"event": "REFUND", "success": "false", "reason": pan},
            {"event": "CAPTURE_FAILED", "reason": pan, "originalReference": "X"},
            {"event": "CHARGEBACK", "reason": pan},
            {"event": "AUTHORISATION", "merchantReference": pan},
            {"event": pan},
        ]
    )
    return letters.adyen_letter(letters.item(changed.pop("event"), **changed))


class World:
    """The router and those around it, and one transcript after the other."""

    def __init__(
        self, shop: Shop, stripe: Desk, adyen: Desk, spies: Mapping[str, list[Spy]], draw: random.Random
    ) -> None:
        self.shop, self.stripe, self.adyen, self.draw = shop, stripe, adyen, draw
        self._client = shop.app.test_client()
        self._raise: str | None = None
        for found in spies.values():
            for spy in found:
                spy.before.append(self._look)
        self.kinds: dict[str, tuple[int, Callable[[str, str], str]]] = {
            "request": (46, self.request),
            "header": (14, self.header),
            "address": (12, self.address),
            "answer": (12, self.answer),
            "webhook": (10, self.webhook),
            "exception": (3, self.exception),
            "library": (3, self.library),
        }

    def _look(self, _key: str, _params: Any) -> None:
        if self._raise is not None:
            text, self._raise = self._raise, None
            card = {"number": text}  # a local of a frame that a report shows
            raise ValueError(f"the SDK failed with {card['number']}")

    def one(self, kind: str, pan: str, written: str) -> str:
        """Play one transcript; all that was answered."""
        return self.kinds[kind][1](pan, written)

    def _send(self, method: str, path: str, **more: Any) -> str:
        headers = {"Authorization": "Bearer bootstrap-key-of-the-tests", "Idempotency-Key": f"k-{next(_numbers)}"}
        headers |= more.pop("headers", {})
        with contextlib.suppress(ValueError):  # what no client can send: a line break in a header
            answer = self._client.open(path, method=method, headers=headers, **more)
            return f"{answer.status}\n{answer.headers}\n{answer.get_data(as_text=True)}"
        return ""

    def request(self, pan: str, written: str) -> str:
        """A card number in a body: of a payment, a decision, an operation, an endpoint."""
        places: list[dict[str, Any]] = [
            {"reference": written},
            {"metadata": {"note": written}},
            {"metadata": {written: "note"}},
            {"customer": {"id": written, "country": "DE"}},
            {"customer": {"id": "c", "email": written}},
            {"customer": {"id": "c", "ip": written}},
            {"return_url": f"https://shop.example/return?c={written}"},
            {"payment_method": paying_with(stripe=written)},
            {"payment_method": paying_with(adyen={"stored_payment_method_id": written, "shopper_reference": "x"})},
            {"payment_method": {"type": written}},
            {"payment_method": {"type": "card", "number": int(pan)}},
            {"browser": {"user_agent": written, "accept_header": "*/*"}},
            {"expires_at": written},
            {"currency": written},
            {"amount": int(pan)},
            {"amount": float(pan)},
            {written: written},
            {"unknown": [[{"deep": {written: [written]}}]]},
        ]
        body = order(**self.draw.choice(places))
        path, body = self.draw.choice(
            [
                ("/v1/payments", body),
                ("/v1/payments", body),
                ("/v1/decisions", body),
                ("/v1/payments/pay_x/capture", {"amount": written}),
                ("/v1/payments/pay_x/refunds", {"amount": int(pan)}),
                ("/v1/payments/pay_x/complete", {"details": {"redirectResult": written}}),
                ("/v1/payments/pay_x/resolve", {"outcome": "approved", "evidence": written}),
                ("/v1/webhook-endpoints", {"url": f"https://shop.example/{written}", "description": written}),
                ("/v1/providers/stripe/breaker", {"mode": "forced_open", "reason": written}),
            ]
        )
        data = json.dumps(body, ensure_ascii=self.draw.random() < 0.5)
        if self.draw.random() < 0.05:
            data = data[: -self.draw.randrange(1, 9)]  # cut off
        return self._send("POST", path, data=data.encode(), content_type="application/json")

    def header(self, pan: str, written: str) -> str:
        """A card number in a header, of a request that is well otherwise."""
        name = self.draw.choice(
            [
                *("Idempotency-Key", "X-Request-Id", "User-Agent", "Cookie", "Authorization", "traceparent"),
                *("X-Forwarded-For", "Referer", "Accept", "Content-Type", "X-Card", "Host", "Stripe-Signature"),
            ]
        )
        value = {"Authorization": f"Bearer {written}", "Cookie": f"pointsman_session={written}"}.get(name, written)
        value = value.encode("utf-8").decode("latin-1")
        path = self.draw.choice(["/v1/payments/pay_x/cancel", "/v1/decisions", "/v1/nothing", "/webhooks/stripe"])
        return self._send("POST", path, headers={name: value}, json={})

    def address(self, pan: str, written: str) -> str:
        """A card number in a path or a query, of the API, the console, or nowhere."""
        part = written if "%" in written else quote(written, safe="")
        path = self.draw.choice(
            [
                f"/v1/payments/{part}",
                f"/v1/payments?reference={part}",
                f"/v1/payments?{part}=1",
                f"/v1/reports/routing?from={part}",
                f"/v1/decisions/{part}/outcome",
                f"/{part}",
                f"/console/{part}",
                f"/console/payments?q={part}",
                f"/webhooks/{part}",
            ]
        )
        return self._send(self.draw.choice(["GET", "GET", "POST"]), path)

    def answer(self, pan: str, written: str) -> str:
        """A provider whose answer repeats a card number, and what checkout reads of the payment then."""
        self.stripe.answers[:] = [self.draw.choice(stripe_answers(written)) for _ in range(4)]
        self.adyen.answers[:] = [self.draw.choice(adyen_answers(written)) for _ in range(4)]
        told = self._send("POST", "/v1/payments", json=order())
        found = re.search(r"pay_[0-9a-z]{26}", told)
        return told + (self._send("GET", f"/v1/payments/{found[0]}") if found else "")

    def webhook(self, pan: str, written: str) -> str:
        """A notification with a card number in it, rightly signed."""
        make = self.draw.choice([stripe_letters, adyen_letters])
        provider, headers, body = make(written, self.draw)
        return self._send("POST", f"/webhooks/{provider}", headers=dict(headers), data=body)

    def exception(self, pan: str, written: str) -> str:
        """An SDK that raises with a card number in its message and in a variable of its frame."""
        self._raise = written
        return self._send("POST", "/v1/payments", json=order())

    def library(self, pan: str, written: str) -> str:
        """A library that logs one: in its message, its arguments, its exception; and a line of our own that does."""
        name = self.draw.choice(["urllib3.connectionpool", "stripe", "ldclient.util", "sqlalchemy.pool", "_granian"])
        try:
            secret = {"card": written, int(pan): written.encode()}
            raise ValueError(f"unexpected {secret}")
        except ValueError:
            match self.draw.randrange(4):
                case 0:
                    logging.getLogger(name).exception("failed with %s", written)
                case 1:
                    logging.getLogger(name).warning("%s %r", written, secret)
                case 2:
                    structlog.get_logger("x").error("mistake", note=written, number=int(pan), deep=[{written: pan}])
                case _:
                    structlog.get_logger("x").exception("mistake", body=json.dumps(secret | {int(pan): written}))
        return ""


# ---------------------------------------------------------------- the run


@dataclass(slots=True)
class Found:
    """What was searched, and what was found there: nothing, if all is well."""

    planted: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    survivors: list[str] = field(default_factory=list)
    searched_bytes: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    rows: dict[str, int] = field(default_factory=dict)


def run(
    count: int,
    seed: int,
    folder: Path,
    url: str,
    sandbox: Sandbox,
    *,
    say: Callable[[str], None] = lambda _line: None,
    seconds: float = 1e9,
) -> Found:
    """Play so many transcripts, and search everywhere."""
    draw, searcher, found = random.Random(seed), Searcher(), Found()
    spies: dict[str, list[Spy]] = {"stripe": [], "adyen": []}
    with desk() as stripe, desk() as adyen, desk() as sentry, contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # Every report is to be seen, not one in a minute.
        patch.setattr(faults, "Flood", functools.partial(faults.Flood, one_every_s=0.0, most_a_minute=10**9))
        shop = stack.enter_context(
            open_shop(
                url,
                sandbox,
                folder,
                spies=spies,
                stripe_base_url=stripe.url,
                adyen_base_url=adyen.url,
                sentry_dsn=SecretStr(sentry.url.replace("http://", "http://key@") + "/1"),
                stripe_webhook_secret=SecretStr(SANDBOX_STRIPE_WEBHOOK_SECRET),
                adyen_hmac_key=SecretStr(SANDBOX_ADYEN_HMAC_KEY),
            )
        )
        for provider in ("stripe", "adyen"):
            # Faults are planted by the thousand: no circuit is to be in the way of the next.
            ordered = {"mode": "bypass", "reason": "transcripts"}
            answer = shop.send("POST", f"/v1/providers/{provider}/breaker", key="order", json=ordered)
            assert answer.status_code == 200, answer.text
        world = World(shop, stripe, adyen, spies, draw)
        names, weights = list(world.kinds), [weight for weight, _ in world.kinds.values()]
        logged_to, began = LOG.tell(), time.monotonic()
        for number in range(1, count + 1):
            last = number == count or time.monotonic() - began > seconds
            pan, (way, write) = card_number(draw), draw.choice(list(WRITTEN.items()))
            kind = draw.choices(names, weights)[0]
            searcher.planted.add(pan)
            answered = world.one(kind, pan, write(pan))
            found.kinds[kind] += 1
            found.kinds[f"written: {way}"] += 1
            found.refused += "card-number-refused" in answered
            found.searched_bytes["answers"] += len(answered)
            if searcher.found(answered):
                found.survivors.append(f"answer to {kind}, {way}: {answered[:2000]}")
            if number % 500 == 0 or last:
                sentry_sdk.flush(10)
                for where, text in (
                    ("log", LOG.getvalue()[logged_to:]),
                    ("Sentry", b"\n".join(sentry.bodies).decode()),
                ):
                    found.searched_bytes[where] += len(text)
                    for line in text.splitlines():
                        if searcher.found(line):
                            found.survivors.append(f"{where}: {line[:2000]}")
                LOG.seek(0)
                LOG.truncate()
                logged_to = 0
                sentry.bodies.clear()
            found.planted = number
            if last:
                break
            if number % 2000 == 0:
                say(f"{number} planted, {len(found.survivors)} survived, {time.monotonic() - began:.0f} s")
                for each in found.survivors[-3:]:
                    say(each[:600])
        found.rows = shop.counts()
        for path in sorted(folder.glob("*")):
            if path.is_file():
                found.searched_bytes[path.name] += path.stat().st_size
                survived = searcher.in_file(path)
                found.survivors += [f"{path.name}: {each}" for each in sorted(survived)]
    sentry_sdk.init()
    return found


def main() -> int:
    """`make transcripts`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--seconds", type=float, default=1e9, help="end after so long, however many were planted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0)
        sandbox.start()
        try:
            path = Path(folder)
            found = run(
                options.count,
                options.seed,
                path,
                f"sqlite:///{path / 'ledger.db'}",
                sandbox,
                say=lambda line: print(line, file=sys.stderr, flush=True),
                seconds=options.seconds,
            )
        finally:
            sandbox.stop()
    print(f"planted {found.planted}, refused {found.refused}, survived {len(found.survivors)}")
    print("searched, bytes:", dict(found.searched_bytes))
    print("transcripts:", {name: n for name, n in found.kinds.items() if ":" not in name})
    print("rows:", {name: n for name, n in found.rows.items() if n})
    for each in found.survivors[:40]:
        print("SURVIVED", each[:600])
    return 1 if found.survivors else 0


if __name__ == "__main__":
    sys.exit(main())
