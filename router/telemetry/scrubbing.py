"""What must not leave the process, taken out of whatever is about to: card numbers, secrets, tokens.

Three ways, because none finds all: by a field's name (most secrets look like nothing), by a secret's own shape
(a vendor's key in a message), and by value (the secrets that this process was given, wherever they turn up).
Provider references, order numbers, UUIDs and our own ids stay: without them a log helps nobody.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, SecretStr
from sentry_sdk.scrubber import DEFAULT_DENYLIST, DEFAULT_PII_DENYLIST

from router.pan import SHORTEST, contains_pan
from router.pan_written import places

REMOVED = "[removed]"
DEEPEST = 24
"""Nested deeper than that it is shown to nobody, and must not exhaust the stack."""
LEAST_KNOWN_CHARS = 8
"""A secret shorter than that is a word, which stands in other places as well."""

# Known by their field, because no pattern finds them: Luhn alone misses nine digits in ten.
_SECRET_WORDS = (
    *("authorization", "api_key", "apikey", "secret", "token", "password", "passwd", "cookie", "dsn", "params"),
    *("private_key", "hmac_key", "credential", "cvc", "cvv", "card_number", "cardnumber"),
)
# Sentry's own scrubber is off once `data_collection` is set: what it knew by name is scrubbed here.
_SECRET_NAMES = frozenset(name.lower() for name in (*DEFAULT_DENYLIST, *DEFAULT_PII_DENYLIST))

_BEFORE = r"(?<![A-Za-z0-9_])"
_SHAPES = re.compile(
    "|".join(
        [
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            # Stripe's secret, restricted, publishable and webhook keys; its payment methods, tokens and sources.
            # Ours of earlier versions begin as its payment methods do.
            _BEFORE
            + r"(?:(?:sk|rk|pk)_(?:live|test)_|whsec_|(?:pm|tok|src|btok|ek_live|ek_test)_)[A-Za-z0-9_\-+/=]+",
            r"pman_[A-Za-z0-9_]+",  # those that `pointsman api-keys` makes, whatever stands before
            r"(?<=_secret_)[A-Za-z0-9]{4,}",  # a client secret: the intent's id before it stays
            _BEFORE + r"AQE[A-Za-z0-9+/=.\-]{12,}[^\s\"'\\]*",  # Adyen's API keys
            _BEFORE + r"(?:sdk|api|mob|rel)-[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}",  # LaunchDarkly's
            _BEFORE + r"eyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]*)?",  # a JSON Web Token
            r"(?i:(?<=bearer )|(?<=basic ))\s*[A-Za-z0-9+/=._~\-]{6,}",
            r"(?i:(?<=bearer%20)|(?<=basic%20))[A-Za-z0-9+/=._~%\-]{6,}",
            r"(?<=://)[^\s/@\"'<>]+(?=@)",  # a name and a password, or a DSN's key, in an address
            # The rest of a header's line; in the text of a mapping, its value.
            r"(?i:(?<=cookie: )|(?<=cookie=)|(?<=cookie\": \")|(?<=cookie': '))[^\r\n\"']+",
            r"(?<=pointsman_session=)[^\s;\"']+|(?<=pointsman_login=)[^\s;\"']+",
        ]
    ),
    re.DOTALL,
)
_NAMED = re.compile(
    r"(?i)(?P<name>(?:api[_\-]?key|secret|passw(?:or)?d|token|authorization|hmac[_\-]?key|private[_\-]?key|signature|cvc)"
    r"[\\\"']{0,4}\s*(?:=>|%3D|[=:])\s*)(?P<quote>\\*[\"']?)(?!\[removed\])(?:(?:bearer|basic|sharedkey)\s+)?"
    r"(?P<value>[^\s\"'\\,;&(){}\[\]]{3,})"
)
"""`api_key=…`, `"token": "…"`, `token%3D…`: a field and its value within a text."""
_MAY_BE_NAMED = re.compile(r"(?i)key|secret|passw|token|auth|signature|cvc")
_MAY_HAVE_SHAPE = re.compile(
    r"(?i)-----BEGIN|[skpm]_|pman_|whsec_|tok_|src_|_secret_|AQE|-[0-9a-f]{4}-|eyJ|bearer|basic|://|cookie|session=|login="
)

_WORD = re.compile(r"(?!(?:pm|tok|src|btok|sk|rk|pk|ek|whsec)_)[a-z]+(?:_[a-z]+)*|[A-Z]{3}", re.ASCII)
"""Most of what is logged: statuses, providers, currencies. No card number, and of no secret's shape."""
_SMALL = 10 ** (SHORTEST - 1)
"""A figure below it has fewer digits than any card number."""
_NAMES = 2048
"""Names of fields that are remembered; there are some hundreds."""
_LONGEST_NAME = 40


class Scrubber:
    """Scrubs text and values; knows the secrets that it was given by their value."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        secrets = sorted({each for each in known if len(each) >= LEAST_KNOWN_CHARS}, key=len, reverse=True)
        self._names: set[str] = set()
        """Names of fields that were looked at, and are harmless."""
        self._known = re.compile("|".join(map(re.escape, secrets))) if secrets else None

    def text(self, text: str) -> str:
        """The text without what must not leave the process."""
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        if _WORD.fullmatch(text):
            return text
        if _MAY_HAVE_SHAPE.search(text):
            text = _SHAPES.sub(REMOVED, text)
        if _MAY_BE_NAMED.search(text):
            text = _NAMED.sub(rf"\g<name>\g<quote>{REMOVED}", text)
        for begin, end in reversed(places(text)):
            text = f"{text[:begin]}{REMOVED}{text[end:]}"
        # What is left is looked at once more by the plain rule: of two readings of one text, neither may leak.
        return REMOVED if contains_pan(text) else text

    def value(self, value: Any, name: str = "", depth: int = 0) -> Any:
        """The same value, scrubbed by its field's name and by what it holds. Its shape stays; tuples become lists."""
        if name and _is_secret(name):
            return REMOVED
        if type(value) is str:
            return self.text(value)
        if value is None or value is True or value is False:
            return value
        if type(value) in (int, float) and -_SMALL < value < _SMALL:
            return value
        if depth > DEEPEST:
            return REMOVED
        return self._odd(value, name, depth)

    def _odd(self, value: Any, name: str, depth: int) -> Any:
        """What is not most of what is logged."""
        match value:
            case dt.date():
                return value
            case str():
                return self.text(value)
            case int() | float():
                return REMOVED if contains_pan(value) else value
            case SecretStr():
                return REMOVED
            case Mapping():
                return {self._key(key): self.value(each, str(key), depth + 1) for key, each in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(each, name, depth + 1) for each in value]
            case BaseModel():
                return self.value(value.model_dump(), name, depth + 1)
            case bytes() | bytearray() | memoryview():
                return self.text(bytes(value).decode(errors="replace"))
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                fields = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
                return self.value(fields, name, depth + 1)
            case _:
                # A log renders whatever else it is given by its own words.
                return self.text(_words_of(value))

    def _key(self, key: Any) -> Any:
        if type(key) is str:
            if key in self._names:
                return key
            cleaned = self.text(key)
            if cleaned == key and len(self._names) < _NAMES:
                self._names.add(key)
            return cleaned
        scrubbed = self.value(key)
        return scrubbed if scrubbed is None or isinstance(scrubbed, int | float | str) else str(scrubbed)


def _is_secret(name: str) -> bool:
    return _is_secret_name(name) if len(name) <= _LONGEST_NAME else _judged(name)


def _judged(name: str) -> bool:
    lower = name.lower()
    if lower in _SECRET_NAMES:
        return True
    lower = lower.replace("-", "_")
    return any(word in lower for word in _SECRET_WORDS)


_is_secret_name = functools.lru_cache(_NAMES)(_judged)


def _words_of(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a stranger's __repr__ may raise anything, and a log may not fail for it
        return f"<{type(value).__name__}>"


def secrets_of(settings: BaseModel) -> list[str]:
    """Every secret among the settings, each of several apart, and the passwords in addresses."""
    found: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            found += [text, *(part.strip() for part in text.split(","))]
        else:
            text = value if isinstance(value, str) else ""
        if credentials := re.search(r"://[^/@:]*:([^@]+)@", text):
            # As it stands there, and as the driver reads it.
            found += [credentials[1], unquote(credentials[1])]
    return found
