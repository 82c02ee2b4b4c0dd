"""What of a row is sealed, and how it is opened again: the one place that knows.

Only tokens and secrets are sealed; all else of a JSON value stays as it is, for people and for queries. A value that
was written plain, by a version before this one or with `ROUTER_SEAL=off`, is read as it is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from router import sealing
from router.ledger.unavailable import LedgerUnavailableError
from router.sealing import INSIDE, Ring, SealError, UnknownKeyError, is_sealed

TROUBLES_KEPT = 50
"""Enough to know what to look for."""


class UnreadableError(LedgerUnavailableError):
    """A token or a secret cannot be opened: its key is not here, or it was changed. It may be readable later."""


class Seals:
    """What this process seals and opens with. Thread-safe: the ring is replaced whole."""

    def __init__(self, ring: Ring | None = None, *, writes: bool = True) -> None:
        """`writes` False: what is new is written plain, what is sealed is read."""
        self.ring = ring
        self.writes = writes and ring is not None
        self.look_again: Callable[[], object] | None = None
        """Reads the keys anew: called when something is met under a key that is not here."""
        self._troubles: dict[str, SealError] = {}
        self._lock = threading.Lock()

    # ------------------------------------------------------------ texts and objects

    def text(self, value: str, of: str) -> str:
        """A secret as its row has it."""
        return cast("Ring", self.ring).seal(value, of) if self.writes and value else value

    def open_text(self, value: str, of: str) -> str:
        """The secret of a row. Raises UnreadableError."""
        if not value.startswith(sealing.PREFIX):
            return value
        try:
            return self._open(value, of)
        except SealError as error:
            with self._lock:
                if len(self._troubles) < TROUBLES_KEPT:
                    self._troubles[of] = error
            raise UnreadableError(f"{of}: {error}") from None

    def json(self, value: Mapping[str, Any], of: str) -> Mapping[str, Any]:
        """An object as its row has it; one that is empty, or sealed already, stays as it is."""
        if not self.writes or not value or is_sealed(value):
            return value
        return {INSIDE: self.text(json.dumps(value, separators=(",", ":")), of)}

    def open_json(self, value: Mapping[str, Any], of: str) -> Mapping[str, Any]:
        """The object of a row, its keys in the order in which they were written. Raises UnreadableError."""
        if not is_sealed(value):
            return value
        return cast("Mapping[str, Any]", json.loads(self.open_text(value[INSIDE], of)))

    # ------------------------------------------------------------ what each column holds

    def order(self, order: Mapping[str, Any], payment_id: str) -> Mapping[str, Any]:
        """An order with its tokens sealed, whatever stands in their place: nobody's word is taken for a seal."""
        method = order.get("payment_method")
        if not self.writes or not isinstance(method, Mapping) or not method.get("tokens"):
            return order
        text = json.dumps(method["tokens"], separators=(",", ":"))
        tokens = {INSIDE: self.text(text, f"tokens:{payment_id}")}
        return {**order, "payment_method": {**method, "tokens": tokens}}

    def open_order(self, order: Mapping[str, Any], payment_id: str) -> Mapping[str, Any]:
        """An order with its tokens. Raises UnreadableError."""
        method = order.get("payment_method")
        if not isinstance(method, Mapping) or not is_sealed(method.get("tokens")):
            return order
        tokens = self.open_json(method["tokens"], f"tokens:{payment_id}")
        return {**order, "payment_method": {**method, "tokens": tokens}}

    def action(self, action: Mapping[str, Any] | None, payment_id: str) -> Mapping[str, Any] | None:
        """What the customer is to do, with its client secret, as payments, attempts and events have it."""
        return None if action is None else self.json(action, f"action:{payment_id}")

    def open_action(self, action: Mapping[str, Any] | None, payment_id: str) -> Mapping[str, Any] | None:
        """What the customer is to do; as the row has it where it cannot be opened: what needs no secret goes on."""
        if action is None or not is_sealed(action):
            return action
        try:
            return self.open_json(action, f"action:{payment_id}")
        except UnreadableError:
            return action

    def same(self, one: Any, other: Any, payment_id: str) -> bool:
        """Whether two values of a payment's column say the same: sealed twice, one is two texts. Raises as `open`."""
        if one == other:
            return True
        if not isinstance(one, Mapping) or not isinstance(other, Mapping):
            return False
        return self._opened(one, payment_id) == self._opened(other, payment_id)

    def _opened(self, value: Mapping[str, Any], payment_id: str) -> Mapping[str, Any]:
        return self.open_order(self.open_json(value, f"action:{payment_id}"), payment_id)

    # ------------------------------------------------------------ troubles

    def troubles(self) -> Mapping[str, SealError]:
        """What could not be opened since the start, and why: until it can. Of very many, the first."""
        with self._lock:
            return dict(self._troubles)

    def _open(self, value: str, of: str) -> str:
        ring = self.ring
        if ring is None:
            known_as = sealing.key_of(value)
            raise UnknownKeyError(known_as, f"sealed under key {known_as}, and no key is set")
        try:
            text = ring.open(value, of)
        except UnknownKeyError:
            if self.look_again is None:
                raise
            self.look_again()
            text = cast("Ring", self.ring).open(value, of)
        if self._troubles:
            with self._lock:
                self._troubles.pop(of, None)
        return text


PLAIN = Seals()
"""Seals nothing, and opens nothing that is sealed: what reads the ledger without keys has it."""
