"""Every value of the ledger that is or should be sealed, row by row: for whoever seals them anew, or looks for a key.

A value is replaced by compare-and-set on its own text. No version, lease or event is touched, so nothing that a
payment's writers compare changes; and what one of them writes in the same moment stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from router.ledger.engine import Database
from router.ledger.sealed import Seals
from router.ledger.tables import attempts, payment_events, payments, secrets, webhook_endpoints, webhooks
from router.sealing import INSIDE, Ring, SealError, is_sealed, key_of

Row = sa.RowMapping | Mapping[str, Any]
Reseal = Callable[[Seals, Any, Row], Any]
"""The value as it is to be: sealed under the first key. Raises SealError for what cannot be opened."""


@dataclass(frozen=True, slots=True)
class Place:
    """A column that holds tokens or secrets."""

    table: sa.Table
    column: str
    reseal: Reseal
    spots: Callable[[Any], Sequence[Any]]
    """What of the value may be sealed. All else is a client's own words, which may look like it."""
    needs: tuple[str, ...] = ()
    """Columns beside its key that say what the value belongs to."""

    @property
    def name(self) -> str:
        """As people read it: `attempts.params`."""
        return f"{self.table.name}.{self.column}"


def _text(seals: Seals, value: str, of: str) -> str:
    return _ring(seals).reseal(value) if is_sealed(value) else seals.text(value, of)


def _json(seals: Seals, value: Any, of: str) -> Any:
    return {**value, INSIDE: _ring(seals).reseal(value[INSIDE])} if is_sealed(value) else seals.json(value, of)


def _ring(seals: Seals) -> Ring:
    assert seals.ring is not None
    return seals.ring


def _order(seals: Seals, order: Any, payment_id: str) -> Any:
    method = order.get("payment_method")
    tokens = method.get("tokens") if isinstance(method, Mapping) else None
    if not is_sealed(tokens):
        return seals.order(order, payment_id)
    return {**order, "payment_method": {**method, "tokens": _json(seals, tokens, "")}}


def _changes(seals: Seals, changes: Any, row: Row) -> Any:
    found = dict(changes)
    if isinstance(found.get("order"), Mapping):
        found["order"] = _order(seals, found["order"], row["payment_id"])
    if found.get("next_action") is not None:
        found["next_action"] = _json(seals, found["next_action"], f"action:{row['payment_id']}")
    return found


def _notice(seals: Seals, notice: Any, row: Row) -> Any:
    outcome = notice.get("outcome")
    if not isinstance(outcome, Mapping) or outcome.get("next_action") is None:
        return notice
    action = _json(seals, outcome["next_action"], f"notice:{row['provider']}:{row['notice_id']}")
    return {**notice, "outcome": {**outcome, "next_action": action}}


def _itself(value: Any) -> Sequence[Any]:
    return (value,)


def _in_order(order: Any) -> Sequence[Any]:
    method = order.get("payment_method") if isinstance(order, Mapping) else None
    return (method.get("tokens"),) if isinstance(method, Mapping) else ()


def _in_changes(changes: Any) -> Sequence[Any]:
    return (*_in_order(changes.get("order")), changes.get("next_action"))


def _in_notice(notice: Any) -> Sequence[Any]:
    outcome = notice.get("outcome")
    return (outcome.get("next_action"),) if isinstance(outcome, Mapping) else ()


PLACES = (
    Place(secrets, "value", lambda seals, value, row: _text(seals, value, f"secret:{row['name']}"), _itself),
    Place(
        webhook_endpoints, "secret", lambda seals, value, row: _text(seals, value, f"endpoint:{row['id']}"), _itself
    ),
    Place(
        webhook_endpoints,
        "old_secret",
        lambda seals, value, row: _text(seals, value, f"endpoint:{row['id']}"),
        _itself,
    ),
    Place(payments, "order", lambda seals, value, row: _order(seals, value, row["id"]), _in_order),
    Place(payments, "next_action", lambda seals, value, row: _json(seals, value, f"action:{row['id']}"), _itself),
    Place(attempts, "params", lambda seals, value, row: _json(seals, value, f"params:{row['id']}"), _itself),
    Place(
        attempts,
        "next_action",
        lambda seals, value, row: _json(seals, value, f"action:{row['payment_id']}"),
        _itself,
        ("payment_id",),
    ),
    Place(payment_events, "changes", _changes, _in_changes, ("payment_id",)),
    Place(webhooks, "notice", _notice, _in_notice, ("provider", "notice_id")),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look at a column's next rows came to."""

    last: Any
    """The key of the last row looked at; None: there was none left."""
    rows: int
    changed: int
    missed: int
    """Changed by somebody else in the same moment: to be looked at again."""
    unreadable: Sequence[tuple[Any, str]]
    """Keys of rows whose value could not be opened, and why."""


class SealedRows:
    """The queries. Each raises LedgerUnavailableError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reseal(self, place: Place, after: Any, *, limit: int) -> Batch:
        """Seal the next rows of a column under the first key, plain ones too; one commit."""
        key, _ = _columns(place)
        rows = self._read(place, after, limit)
        changes: list[dict[str, Any]] = []
        unreadable: list[tuple[Any, str]] = []
        for row in rows:
            text = row["sealed_text"]
            if text is None:
                continue
            try:
                new = self._renewed(place, text, row)
            except SealError as error:
                unreadable.append((row[key.name], str(error)))
                continue
            if new != text:
                changes.append({"of": row[key.name], "old": text, "new": new})
        changed = 0
        if changes:
            with self._database.write() as connection:
                for each in changes:
                    changed += connection.execute(self._update(place), each).rowcount
        last = rows[-1][key.name] if rows else None
        return Batch(last, len(rows), changed, len(changes) - changed, unreadable)

    def _update(self, place: Place) -> sa.TextClause:
        # The text itself: JSON stays as it is beside what is sealed of it, and PostgreSQL's `json` has no equality.
        quote = self._database.engine.dialect.identifier_preparer.quote
        key, column = (quote(each.name) for each in _columns(place))
        new = "CAST(:new AS JSON)" if _is_json(_columns(place)[1]) and not self._database.is_sqlite else ":new"
        return sa.text(
            f"UPDATE {place.table.name} SET {column} = {new}"  # noqa: S608 - names of our own tables
            f" WHERE {key} = :of AND CAST({column} AS TEXT) = :old"
        )

    def keys(self, place: Place, after: Any, *, limit: int) -> tuple[Any, Mapping[str, int]]:
        """Of the next rows: the last one's key, None for none left; and how many are sealed under which key."""
        key, _ = _columns(place)
        rows = self._read(place, after, limit)
        found: dict[str, int] = {}
        for row in rows:
            text = row["sealed_text"]
            if text is None:
                continue
            value = json.loads(text) if _is_json(_columns(place)[1]) else text
            sealed = [each for each in place.spots(value) if is_sealed(each)] if value else []
            for known_as in {key_of(each if isinstance(each, str) else each[INSIDE]) for each in sealed}:
                found[known_as] = found.get(known_as, 0) + 1
        return (rows[-1][key.name] if rows else None), found

    def _read(self, place: Place, after: Any, limit: int) -> Sequence[sa.RowMapping]:
        key, column = _columns(place)
        needed = [place.table.c[name] for name in place.needs]
        query = sa.select(key, *needed, sa.cast(column, sa.Text).label("sealed_text")).order_by(key).limit(limit)
        if after is not None:
            query = query.where(key > after)
        with self._database.read() as connection:
            return connection.execute(query).mappings().all()

    def _renewed(self, place: Place, text: str, row: Row) -> str:
        seals = self._database.seals
        if not _is_json(_columns(place)[1]):
            return str(place.reseal(seals, text, row))
        value = json.loads(text)
        new = place.reseal(seals, value, row) if value else value
        return text if new == value else json.dumps(new)


def _columns(place: Place) -> tuple[sa.Column[Any], sa.Column[Any]]:
    (key,) = place.table.primary_key
    return key, place.table.c[place.column]


def _is_json(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, sa.JSON)
