"""A decision's id: it carries what its outcome needs, and nobody but the router can make one. Pure.

    dec_<payload>.<mac>

The payload is base64url without padding of a short JSON list; the mac is the first 16 bytes of HMAC-SHA256 over the
payload *as text* and the merchant. So any process understands an outcome before the decision's row is written, and
though it was lost with a killed process; an id of another merchant's, or with any character changed, is none at all
(bits that base64 leaves unused among them: the text is what is signed). At most 300 characters.

16 bytes: a guess is right once in 2^128, and the id stays short enough for a path (RFC 2104 asks for at least half of
the digest's 32 bytes).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hmac
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from router.segments import Segment, parse

LIVES = dt.timedelta(hours=24)
"""A checkout tells within seconds; a customer who comes back from 3-D Secure, within the hour."""
MAC_BYTES = 16
MAXIMUM_CHARS = 300
_VERSION = 1
_PREFIX = "dec_"
_MAC_CHARS = 22
_PAYLOAD_BYTES = (MAXIMUM_CHARS - len(_PREFIX) - 1 - _MAC_CHARS) * 3 // 4
_ID = re.compile(rf"dec_([A-Za-z0-9_-]{{1,{MAXIMUM_CHARS}}})\.([A-Za-z0-9_-]{{{_MAC_CHARS}}})")


class Carried(NamedTuple):
    """What an id says of its decision."""

    key: str
    """The decision's row: `dec_` and 26 letters and digits."""
    at: dt.datetime
    """To the millisecond."""
    segment: Segment
    order: tuple[str, ...]
    """The eligible providers, first choice first; of very many, as many as fit."""
    propensity: float
    """The probability with which the first was put first; 0 where there is none."""

    @property
    def expires_at(self) -> dt.datetime:
        """From then on no outcome is taken."""
        return self.at + LIVES


class DecisionIds:
    """Signs and reads. Thread-safe; it never changes."""

    def __init__(self, secrets: Sequence[str]) -> None:
        """Signs with the first secret and believes any: one can replace another. Raises ValueError for none."""
        if not secrets or not all(secrets):
            raise ValueError("at least one secret is needed")
        # Begun once and copied: quicker, and unlike `hmac.digest` it never lets another thread go first.
        self._begun = [hmac.new(each.encode(), digestmod="sha256") for each in secrets]

    def sign(self, carried: Carried, merchant: str) -> str:
        """The id of a decision made for that merchant."""
        payload = _packed(carried)
        return f"{_PREFIX}{payload}.{_mac(self._begun[0], payload, merchant)}"

    def read(self, text: str, merchant: str) -> Carried | None:
        """What the id says; None where it is not one that was signed for this merchant."""
        found = _ID.fullmatch(text)
        if found is None:
            return None
        payload, mac = found.groups()
        if not any(hmac.compare_digest(_mac(begun, payload, merchant), mac) for begun in self._begun):
            return None
        return _unpacked(payload)


def _mac(begun: hmac.HMAC, payload: str, merchant: str) -> str:
    # The payload has no dot, so no other payload and merchant make the same text; the first word keeps this use of a
    # secret apart from any other.
    signed = f"decision.{payload}.{merchant}".encode("utf-8", "surrogatepass")
    mac = begun.copy()
    mac.update(signed)
    return _text(mac.digest()[:MAC_BYTES])


_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
"""Made once: `json.dumps` makes one for every call that says how to encode."""


def _packed(carried: Carried) -> str:
    at_ms, order = int(carried.at.timestamp() * 1000), carried.order
    key = _ENCODE(carried.key)
    while True:
        packed = f"[{_VERSION},{key},{at_ms},{_choice(carried.segment, order, carried.propensity)}]".encode()
        if len(packed) <= _PAYLOAD_BYTES or not order:
            return _text(packed)
        order = order[:-1]  # whoever stands so far down is not tried


@lru_cache(maxsize=4096)
def _choice(segment: Segment, order: tuple[str, ...], propensity: float) -> str:
    """The rest of the list, which is the same for a thousand decisions a minute."""
    return _ENCODE([segment.key(), order, round(propensity, 6)])[1:-1]


def _unpacked(payload: str) -> Carried | None:
    """Of a payload that was signed here: what is wrong with it is that another version of the router made it."""
    try:
        version, key, at_ms, words, names, propensity = json.loads(
            base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        )
        segment = parse(words)
        if version != _VERSION or segment is None:
            return None
        at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
        return Carried(str(key), at, segment, tuple(str(each) for each in names), float(propensity))
    except (binascii.Error, ValueError, TypeError, OverflowError):
        return None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
