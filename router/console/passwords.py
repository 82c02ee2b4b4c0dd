"""Passwords: scrypt, so that a stolen ledger does not tell them. Pure, but for the salt."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

LOG_N, R, P = 15, 8, 2
"""32 MiB and some 0.1 s a guess; OWASP's second choice (Password Storage Cheat Sheet: N=2^15, r=8, p=3) within a
request that a person waits for."""
MAXIMUM_MEMORY = 64 * 1024 * 1024
SALT_BYTES = 16
SHORTEST = 12
LONGEST = 200
"""Characters: what is hashed is bounded."""


class WeakPasswordError(Exception):
    """The password cannot be taken; the message says why, and never what it is."""


def hashed(password: str, *, salt: bytes | None = None) -> str:
    """`scrypt$log_n$r$p$salt$digest`. Raises WeakPasswordError."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise WeakPasswordError(f"a password has {SHORTEST} to {LONGEST} characters")
    if len(set(password)) < 5:
        raise WeakPasswordError("a password has at least five different characters")
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    words = ["scrypt", str(LOG_N), str(R), str(P), _text(salt), _text(_digest(password, salt, LOG_N, R, P))]
    return "$".join(words)


def is_right(password: str, kept: str) -> bool:
    """Whether this is the password that was kept; False, too, for a kept value that is none of ours."""
    if len(password) > LONGEST:
        return False
    try:
        kind, log_n, r, p, salt, digest = kept.split("$")
        wanted = _digest(password, base64.b64decode(salt), int(log_n), int(r), int(p))
        return kind == "scrypt" and hmac.compare_digest(wanted, base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False


def _digest(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**log_n, r=r, p=p, maxmem=MAXIMUM_MEMORY, dklen=32)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
