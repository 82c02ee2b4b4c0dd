"""Secrets at rest: a text becomes `sealed:v1:<key id>:<Fernet token>`, and the text again. Pure.

The key's id stands beside the token, so that a key that is not there is named, and not one of several tried in vain.
What a text belongs to (`of`: `tokens:pay_…`, `endpoint:whe_…`) is sealed with it and checked when it is opened: a
token moved to another row by somebody who can write the ledger, and has no key, charges nobody.

Fernet (https://github.com/fernet/spec): AES-128-CBC under HMAC-SHA256, the moment of sealing in plain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PREFIX = "sealed:v1:"
INSIDE = "sealed"
"""The name under which a JSON object holds what was sealed of it."""
ID_CHARS = 12
"""48 bits of SHA-256: two of some dozen keys have the same id once in 10^12 houses."""


class SealError(Exception):
    """It cannot be opened."""

    def __init__(self, key_id: str, text: str) -> None:
        super().__init__(text)
        self.key_id = key_id


class UnknownKeyError(SealError):
    """It was sealed under a key that is not here."""


class TamperedError(SealError):
    """Its key is here, and it is not what was sealed under it, or is of something else."""


class Ring:
    """Keys, by id: the first one seals, all of them open. Immutable, so threads share it."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Of Fernet keys (44 characters of base64url). Raises ValueError, which names a wrong one by its place."""
        self._keys: dict[str, Fernet] = {}
        self.texts: dict[str, str] = {}
        for number, text in enumerate(keys, 1):
            try:
                fernet = Fernet(text)
            except ValueError:
                raise ValueError(f"number {number} is not a Fernet key: `pointsman keys new` makes one") from None
            self._keys.setdefault(key_id(text), fernet)
            self.texts.setdefault(key_id(text), text)
        if not self._keys:
            raise ValueError("there is no key")
        self.ids: tuple[str, ...] = tuple(self._keys)
        self._first = self._keys[self.ids[0]]
        self._prefix = f"{PREFIX}{self.ids[0]}:"

    @property
    def first(self) -> str:
        """The id of the key that seals."""
        return self.ids[0]

    def joined(self, older: Ring | None) -> Ring:
        """This ring, and behind its keys those that only the other one has."""
        more = [] if older is None else [text for each, text in older.texts.items() if each not in self.texts]
        return Ring([*self.texts.values(), *more]) if more else self

    def seal(self, text: str, of: str) -> str:
        """The text, sealed under the first key."""
        return self._prefix + self._first.encrypt(f"{of}\n{text}".encode()).decode("ascii")

    def open(self, sealed: str, of: str) -> str:
        """What was sealed. Raises UnknownKeyError, TamperedError."""
        fernet, token = self._of(sealed)
        try:
            owner, _, text = fernet.decrypt(token).decode().partition("\n")
        except (InvalidToken, UnicodeDecodeError):
            raise TamperedError(key_of(sealed), f"sealed under key {key_of(sealed)}, and changed since") from None
        if owner != of:
            raise TamperedError(key_of(sealed), f"sealed under key {key_of(sealed)}, and of another row")
        return text

    def reseal(self, sealed: str) -> str:
        """The same under the first key, its moment kept; itself where it is so already. Raises as `open`."""
        if sealed.startswith(self._prefix):
            return sealed
        fernet, token = self._of(sealed)
        try:
            return self._prefix + MultiFernet([self._first, fernet]).rotate(token).decode("ascii")
        except InvalidToken:
            raise TamperedError(key_of(sealed), f"sealed under key {key_of(sealed)}, and changed since") from None

    def _of(self, sealed: str) -> tuple[Fernet, bytes]:
        known_as, _, token = sealed.removeprefix(PREFIX).partition(":")
        fernet = self._keys.get(known_as)
        if fernet is None:
            raise UnknownKeyError(known_as, f"sealed under key {known_as}, which is not here")
        return fernet, token.encode("ascii", "replace")


def new_key() -> str:
    """A new key, as settings and files have it."""
    return Fernet.generate_key().decode("ascii")


def key_id(key: str) -> str:
    """What a key is called where people and rows read it: tells nothing of it."""
    return hashlib.sha256(b"pointsman key " + key.strip().encode()).hexdigest()[:ID_CHARS]


def is_sealed(value: object) -> bool:
    """Whether this text, or this JSON object, holds something sealed."""
    if isinstance(value, Mapping):
        value = value.get(INSIDE)
    return isinstance(value, str) and value.startswith(PREFIX)


def key_of(sealed: str) -> str:
    """The id of the key that it was sealed under."""
    return sealed.removeprefix(PREFIX).partition(":")[0][:ID_CHARS]
