"""Who may make, replace and end which API keys: one set of rules for the command line and the API.

Nobody passes on more than they have: whoever calls with a key makes and replaces keys of its own merchant, with
scopes of its own, that end no later than it does. And it is looked at anew: a key that was revoked works for some
seconds more, and may not use them to make another. The house (the bootstrap key, and whoever may run `pointsman`)
does so for every merchant. Ending a key needs less: any operator of its merchant may, whatever that key could do.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence

from router.clock import Clock
from router.key_format import hint_of, new_key
from router.ledger.keys import SCOPES, Caller, KeyChange, KeyLedger, KeyRecord
from router.pan import contains_pan

GRACE_H = 24.0
"""How long a key that was replaced goes on working: a day of deployments."""
GRACE_AT_MOST_H = 720.0
LABEL_AT_MOST = 255
KEYS_AT_MOST = 200
"""Of one merchant that are not revoked: one for each of its services, and as many again while they are replaced."""


class KeyRefusedError(Exception):
    """Root of the reasons for leaving a key as it is."""


class BadKeyError(KeyRefusedError):
    """What was asked for is wrong; names the field, never its value."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class BeyondOwnError(KeyRefusedError):
    """The caller's own key may do less than the key that it asks for."""


class CallerOverError(KeyRefusedError):
    """The caller's own key opens nothing any more."""


class NoSuchKeyError(KeyRefusedError):
    """There is no such key, or it is another merchant's."""


class TooManyKeysError(KeyRefusedError):
    """This merchant has as many keys as one may have."""


class KeyOverError(KeyRefusedError):
    """It was revoked, has expired, or was replaced already."""


class ApiKeys:
    """The rules, over the ledger. `caller` None is the house itself."""

    def __init__(self, ledger: KeyLedger, *, clock: Clock, below: Callable[[int], int]) -> None:
        """`below(n)` draws an unguessable integer of 0 to n - 1, as `secrets.randbelow` does."""
        self._ledger = ledger
        self._clock = clock
        self._below = below

    def create(
        self,
        caller: Caller | None,
        *,
        merchant: str | None,
        scopes: Collection[str],
        label: str,
        by: str,
        expires_at: dt.datetime | None = None,
    ) -> tuple[KeyRecord, str]:
        """A new key, and the key itself, which nobody sees again; it ends with the caller's, if not before.

        Not idempotent, and cannot be: to answer the same again the key would have to be kept. Whoever lost the
        answer finds a key in the list that was never used, and revokes it. Raises KeyRefusedError.
        """
        now = self._clock.now()
        if merchant is None:
            if caller is None:
                raise BadKeyError("merchant", "is required")
            merchant = caller.merchant
        _check_text("merchant", merchant, empty=False)
        _check_text("label", label, empty=True)
        if not scopes or not set(scopes) <= SCOPES:
            raise BadKeyError("scopes", f"one or more of {', '.join(sorted(SCOPES))}")
        if expires_at is not None and expires_at <= now:
            raise BadKeyError("expires_at", "must be in the future")
        _check_own(caller, merchant, scopes)
        own_end = self._own_end(caller, now)
        expires_at = expires_at or own_end
        _check_end(own_end, expires_at)
        if self._ledger.count(merchant) >= KEYS_AT_MOST:
            raise TooManyKeysError
        key = new_key(self._below)
        record = self._ledger.add(
            key,
            merchant=merchant,
            scopes=set(scopes),
            label=label,
            now=now,
            hint=hint_of(key),
            by=by,
            expires_at=expires_at,
        )
        return record, key

    def rotate(
        self, caller: Caller | None, key_id: str, *, by: str, grace_h: float = GRACE_H
    ) -> tuple[KeyRecord, str]:
        """A new key in place of this one, which goes on working for `grace_h` hours. Raises KeyRefusedError."""
        if not 0 <= grace_h <= GRACE_AT_MOST_H:
            raise BadKeyError("grace_hours", f"0 to {GRACE_AT_MOST_H:g}")
        now, old = self._clock.now(), self.get(caller, key_id)
        # Whoever replaces a key holds the new one.
        _check_own(caller, old.merchant, old.scopes)
        _check_end(self._own_end(caller, now), old.expires_at)
        key = new_key(self._below)
        until = now + dt.timedelta(hours=grace_h)
        record = self._ledger.rotate(key_id, key, hint=hint_of(key), by=by, now=now, old_until=until)
        if record is None:
            raise KeyOverError
        return record, key

    def revoke(self, caller: Caller | None, key_id: str, *, by: str, reason: str = "") -> KeyRecord:
        """End a key: no process takes it any more five seconds later. Raises KeyRefusedError."""
        _check_text("reason", reason, empty=True)
        now = self._clock.now()
        self.get(caller, key_id)
        self._own_end(caller, now)
        self._ledger.revoke(key_id, by=by, reason=reason, now=now)  # once more: it stays as it was
        return self.get(caller, key_id)

    def get(self, caller: Caller | None, key_id: str) -> KeyRecord:
        """A key that the caller may see. Raises NoSuchKeyError."""
        found = self._ledger.get(key_id)
        if found is None or (not _is_house(caller) and caller is not None and found.merchant != caller.merchant):
            raise NoSuchKeyError
        return found

    def page(
        self, caller: Caller | None, *, merchant: str | None, with_revoked: bool, limit: int, after: str | None
    ) -> Sequence[KeyRecord]:
        """Keys by id: the caller's merchant's; the house's are everybody's, or those of `merchant`."""
        if caller is not None and not caller.is_house:
            merchant = caller.merchant
        return self._ledger.page(merchant=merchant, with_revoked=with_revoked, limit=limit, after=after)

    def changes(self, caller: Caller | None, key_id: str) -> Sequence[KeyChange]:
        """Who did what to a key, oldest first. Raises NoSuchKeyError."""
        self.get(caller, key_id)
        return self._ledger.changes(key_id)

    def _own_end(self, caller: Caller | None, now: dt.datetime) -> dt.datetime | None:
        """When the caller's own key ends, by the ledger; None: never. Raises CallerOverError where it has."""
        if caller is None or caller.is_house:
            return None
        own = self._ledger.get(caller.key_id)
        if own is None or not own.is_valid(now):
            raise CallerOverError
        return own.expires_at


def _is_house(caller: Caller | None) -> bool:
    return caller is None or caller.is_house


def _check_own(caller: Caller | None, merchant: str, scopes: Collection[str]) -> None:
    if caller is None or caller.is_house:
        return
    if merchant != caller.merchant or not set(scopes) <= caller.scopes:
        raise BeyondOwnError


def _check_end(own: dt.datetime | None, expires_at: dt.datetime | None) -> None:
    if own is not None and (expires_at is None or expires_at > own):
        raise BeyondOwnError


def _check_text(field: str, text: str, *, empty: bool) -> None:
    if not empty and not text.strip():
        raise BadKeyError(field, "must not be empty")
    if len(text) > LABEL_AT_MOST or not text.isprintable():
        raise BadKeyError(field, f"at most {LABEL_AT_MOST} printable characters")
    if contains_pan(text):
        raise BadKeyError(field, "must not hold a card number")
