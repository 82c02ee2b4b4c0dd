"""What the console's pages are made from."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from flask import g, request
from pydantic import TypeAdapter, ValidationError

from flags.contract import FlagSource
from router.appraisal import Appraiser
from router.clock import Clock, Ids
from router.console.access import Access
from router.console.history import History
from router.console.stand_ins import StandIns
from router.health import ProviderHealth
from router.ledger.circuits import CircuitLedger
from router.ledger.console import ConsoleLedger
from router.ledger.console_access import Session
from router.ledger.console_circuits import CircuitStory
from router.ledger.console_settlements import SettlementSummaries
from router.ledger.decision_log import DecisionLog
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger
from router.ledger.payments import PaymentLedger
from router.ledger.rollups import Rollups
from router.ledger.settlement_views import SettlementViews
from router.ledger.settlements import SettlementLedger
from router.local_override import LocalOverride
from router.order import Text80, Text255
from router.payments import Payments
from router.reconciliation.importing import Importer


@dataclass(frozen=True, slots=True)
class Parts:
    """The services and queries behind the pages."""

    providers: Sequence[str]
    access: Access
    ledger: ConsoleLedger
    history: History
    payment_ledger: PaymentLedger
    payments: Payments
    health: ProviderHealth
    appraiser: Appraiser
    flags: FlagSource
    flips: FlipLedger
    override: LocalOverride
    flag_values: FlagValueLedger
    circuits: CircuitLedger
    circuit_story: CircuitStory
    rollups: Rollups
    decision_log: DecisionLog
    importer: Importer
    settlements: SettlementLedger
    settlement_views: SettlementViews
    settlement_summaries: SettlementSummaries
    clock: Clock
    ids: Ids
    https: bool
    stand_ins: StandIns | None
    """None: the providers are not ours to break."""


class PageError(Exception):
    """Ends a request with a page that says why."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail


def require(*scopes: str) -> Session:
    """Whoever is logged in. Raises a page of 403 unless the session has one of these scopes."""
    session: Session = g.session
    if session.scopes.isdisjoint(scopes):
        refuse(403, "Not with this login", f"This page needs the scope {' or '.join(sorted(scopes))}.")
    return session


def refuse(status: int, title: str, detail: str) -> NoReturn:
    """End this request with a page that says why; nothing that was sent is repeated."""
    raise PageError(status, title, detail)


FIRST_YEAR, LAST_YEAR = 2000, 2200
"""Of a moment that somebody looks for."""
_TEXT80: TypeAdapter[str] = TypeAdapter(Text80)
_TEXT255: TypeAdapter[str] = TypeAdapter(Text255)
_ID = re.compile(r"[a-z]{1,16}_[0-9A-Za-z_]{1,64}")


def asked(name: str) -> str | None:
    """A word of this page's address, or None where it is absent or empty. Raises a page that names the field."""
    return _checked(_TEXT80, name, request.args.get(name, "").strip())


def asked_moment(name: str) -> dt.datetime | None:
    """A field of type datetime-local, in UTC where it names no zone. Raises a page that names the field."""
    value = asked(name)
    if value is None:
        return None
    try:
        found = dt.datetime.fromisoformat(value)
        # Before the zone is looked at: at the ends of the calendar there are moments that no zone can write.
        if not FIRST_YEAR <= found.year <= LAST_YEAR:
            refuse(422, "This cannot be taken", f"{name}: must be of the years {FIRST_YEAR} to {LAST_YEAR}")
        return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    except ValueError:
        return refuse(422, "This cannot be taken", f"{name}: must be a date and a time, such as 2026-11-21T14:00")


def again(*names: str) -> dict[str, str]:
    """What this page's address says of these fields, for its next page's.

    Never all that it says: some names mean something to `url_for` itself (`_scheme`, `_external`, `endpoint`).
    """
    return {name: request.args[name] for name in names if request.args.get(name)}


def told(name: str) -> str:
    """A sentence of this form. Raises a page that names the field."""
    value = _checked(_TEXT255, name, request.form.get(name, "").strip())
    return value if value is not None else refuse(422, "Something is missing", f"{name}: is required")


def an_id(value: str) -> str:
    """An id in an address. Raises a page of 404 for what cannot be one."""
    return value if _ID.fullmatch(value) else refuse(404, "Not found", "There is nothing of this name.")


def _checked(kind: TypeAdapter[str], name: str, value: str) -> str | None:
    if not value:
        return None
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        reason = error.errors(include_input=False, include_url=False)[0]["msg"].removeprefix("Value error, ")
        return refuse(422, "This cannot be taken", f"{name}: {reason}")
