"""What an API key looks like: `pman_live_`, 27 letters and digits (160 random bits), and 6 of a checksum. Pure.

The prefix lets secret scanners find a key that was committed or logged; the checksum lets them, and the gate, tell a
key from something that only looks like one, without asking the ledger. Keys of the form before (`pm_…`) and any other
text go on working: what is a key is what the ledger knows.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

PREFIX = "pman_live_"
PATTERN = r"pman_live_[0-9A-Za-z]{33}"
"""For a secret scanner's own rule."""
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LETTERS = 27
"""62²⁷ is a little more than 2¹⁶⁰."""
CHECK_LETTERS = 6
"""62⁶ is more than 2³²: room for a CRC-32."""
SHOWN_OF_SECRET = 4

_FORM = re.compile(rf"{PATTERN}\Z")


def new_key(below: Callable[[int], int]) -> str:
    """A new key; `below(n)` draws an unguessable integer of 0 to n - 1, as `secrets.randbelow` does."""
    secret = _base62(below(len(ALPHABET) ** SECRET_LETTERS), SECRET_LETTERS)
    return f"{PREFIX}{secret}{_check(secret)}"


def is_impossible(key: str) -> bool:
    """Whether this begins like a key of ours and cannot be one: then nobody need be asked."""
    if not key.startswith(PREFIX):
        return False
    return _FORM.match(key) is None or _check(key[len(PREFIX) : -CHECK_LETTERS]) != key[-CHECK_LETTERS:]


def hint_of(key: str) -> str:
    """What a list may show of it, so that people find theirs: the prefix and four of 27 letters, 24 of 160 bits."""
    return f"{PREFIX}{key[len(PREFIX) :][:SHOWN_OF_SECRET]}…" if key.startswith(PREFIX) else ""


def _check(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), CHECK_LETTERS)


def _base62(number: int, letters: int) -> str:
    found = []
    for _ in range(letters):
        number, digit = divmod(number, len(ALPHABET))
        found.append(ALPHABET[digit])
    return "".join(reversed(found))
