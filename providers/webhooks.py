"""What the reading of every provider's webhooks has in common: a bounded body, strict JSON, headers, words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from providers.contract import WebhookRefusedError
from providers.faults import safe_word

MAX_BODY_BYTES = 1024 * 1024
"""A delivery is some kilobytes, a batch of them some dozen. Anybody can send one: nothing larger is even hashed."""

_OUR_OWN = re.compile(r"[!-~]{1,255}")


def text_of(body: bytes) -> str:
    """The body as text. Raises WebhookRefusedError where it is too large, or not UTF-8."""
    if len(body) > MAX_BODY_BYTES:
        raise WebhookRefusedError("the body is too large")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise WebhookRefusedError("the body is not UTF-8") from None


def json_object(text: str) -> Mapping[str, Any]:
    """A JSON object, strictly: no NaN, no name twice. Raises WebhookRefusedError, never with what was sent."""
    try:
        found = json.loads(text, parse_constant=_no_such_number, object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError):
        raise WebhookRefusedError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise WebhookRefusedError("the body is not a JSON object")
    return found


def header(headers: Mapping[str, str], name: str) -> str | None:
    """A header by its name, in whatever case it came."""
    return next((value for given, value in headers.items() if given.lower() == name.lower()), None)


def our_own(value: object) -> str | None:
    """An id or key of ours that a vendor carried along; None where it has not the shape of one."""
    return value if isinstance(value, str) and _OUR_OWN.fullmatch(value) else None


def word(value: object) -> str | None:
    """A vendor's code, or short sentence, as one machine-readable word; None where there is nothing to say."""
    if not isinstance(value, str) or value in ("", "null"):
        return None
    return safe_word(re.sub(r"[^a-z0-9]+", "_", value[:200].lower()).strip("_")[:64])


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(name)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found
