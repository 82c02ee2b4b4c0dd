"""Stripe's calls on the wire: what the SDK would send, without the SDK's work where nothing goes wrong.

The SDK takes longer to word a request (it formats log lines that nobody reads, and asks the platform its version each
time) than the network to carry it. So a POST is worded here: under the very headers that the SDK makes, which it is
asked for once, and in the same form. An answer that is a success is its JSON. Any other answer is handed to the SDK,
as if it had come to it, so that every error is the SDK's own.
"""

from __future__ import annotations

import contextvars
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote_plus

import stripe

from providers.transport import Answer, Transport

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*", re.ASCII)
_quoted = lru_cache(maxsize=512)(quote_plus)
"""For names of fields, which are always the same few."""


class StripeWire:
    """Thread-safe; one transport."""

    def __init__(self, transport: Transport, *, api_key: str, base_url: str) -> None:
        self._transport = transport
        self._base_url = base_url
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": base_url},
            http_client=_PooledClient(transport),
            max_network_retries=0,
        )
        self._headers = self._headers_of_a_post()

    def post(self, path: str, params: Mapping[str, Any], key: str) -> object:
        """One POST under that idempotency key; the answer's JSON. Raises SendFailed, a StripeError, or whatever the
        SDK trips over. To be called within `sending_within`.
        """
        headers = {**self._headers, "Idempotency-Key": key}
        answer = self._transport.send("POST", self._base_url + path, headers, form(params))
        if 200 <= answer.status < 300:
            try:
                return json.loads(answer.body)
            except ValueError:
                pass
        token = _instead.set(answer)
        try:
            return self._client.raw_request("post", path, **params, idempotency_key=key).data
        finally:
            _instead.reset(token)

    def get(self, path: str, params: Mapping[str, Any]) -> object:
        """One GET; as `post`."""
        return self._client.raw_request("get", path, **params).data

    def _headers_of_a_post(self) -> Mapping[str, str]:
        """Those that the SDK makes, but for the idempotency key."""
        seen: dict[str, str] = {}
        asked, instead = _seen.set(seen), _instead.set(Answer(200, {}, b"{}"))
        try:
            self._client.raw_request("post", "/v1/payment_intents", idempotency_key="none")
        finally:
            _instead.reset(instead)
            _seen.reset(asked)
        return {name: value for name, value in seen.items() if name != "Idempotency-Key"}


def form(params: Mapping[str, Any]) -> str:
    """The body of a POST, as the SDK writes it: `a[b]=1&c[0]=x`, with plain brackets."""
    return "&".join(f"{_quoted(name, '[]')}={_value(value)}" for name, value in _pairs(params))


def _value(value: object) -> str:
    text = str(value)
    # As the SDK does, which puts plain brackets back in the whole body.
    return text if _PLAIN.fullmatch(text) else quote_plus(text, "[]")


def _pairs(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in params.items():
        name = f"{prefix}[{key}]" if prefix else key
        if type(value) is str:  # most of them; a question after a mapping is a slow one
            yield name, value
        elif value is None:
            continue
        elif isinstance(value, Mapping):
            yield from _pairs(value, name)
        elif isinstance(value, list | tuple):
            yield from _pairs({str(number): each for number, each in enumerate(value)}, name)
        else:
            yield name, ("true" if value else "false") if isinstance(value, bool) else value


_instead: contextvars.ContextVar[Answer | None] = contextvars.ContextVar("the answer that came already", default=None)
_seen: contextvars.ContextVar[dict[str, str] | None] = contextvars.ContextVar("where headers are noted", default=None)


class _PooledClient(stripe.HTTPClient):
    """The SDK's HTTP client, over our pool. A SendFailed leaves the SDK as it is: it catches its own errors only.

    Where an answer has come already (`_instead`), that is the answer, and nothing is sent.
    """

    name = "urllib3"

    def __init__(self, transport: Transport) -> None:
        super().__init__()
        self._transport = transport

    def request(  # type: ignore[override]  # the SDK says str for the body and handles bytes, as its own clients send
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, **_: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        seen = _seen.get()
        if seen is not None:
            seen.update(headers or {})
        answer = _instead.get()
        if answer is None:
            answer = self._transport.send(method.upper(), url, headers or {}, post_data)
        return answer.body, answer.status, answer.headers

    def close(self) -> None:
        self._transport.close()
