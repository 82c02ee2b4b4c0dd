"""Adyen's *Settlement details report* as settlement lines.

Columns, by https://docs.adyen.com/reporting/settlement-reconciliation/transaction-level/settlement-details-report and
its older page .../developers/reporting/settlement-detail-report/settlement-detail-report-structure:

- `Company Account`, `Merchant Account`: whose it is. A report may be of several merchant accounts.
- `Psp Reference`: of the original authorization; empty on a line that is of no payment.
- `Merchant Reference`: the reference that the payment was made with: here the attempt's id.
- `Creation Date`, `TimeZone`: when it was booked, in the company account's time zone, by its usual letters (CET).
- `Type`: a journal type (.../settlement-detail-report-structure/journal-types).
- `Modification Reference`: of Settled, Refunded, Chargeback and the like the modification's own pspReference; of the
  others a text, as `Transaction Fees June 2026`.
- `Gross Currency`, `Gross Debit (GC)`, `Gross Credit (GC)`: as the customer paid; credit comes to the merchant.
- `Exchange Rate`, `Net Currency`, `Net Debit (NC)`, `Net Credit (NC)`: as it was settled.
- `Commission (NC)` (blended pricing), or `Markup (NC)`, `Scheme Fees (NC)`, `Interchange (NC)` (Interchange++).
- `Batch Number`; `Modification Merchant Reference`: what a capture or refund was asked with, our own id.

All amounts are in major units with a point. A line has no id of its own: it is known by its merchant account, batch,
type and both references, and one of no capture, refund or dispute by all that it says. The monthly processing fee of
each transaction comes as lines of the type Fee, and is in no payment's costs here.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from providers.currencies import ADYEN, ISO_EXPONENTS
from providers.settlement import Kind, Lines, Row, SettlementLine, read_lines, rounded

REQUIRED = (
    "Merchant Account",
    "Psp Reference",
    "Merchant Reference",
    "Creation Date",
    "TimeZone",
    "Type",
    "Modification Reference",
    "Gross Currency",
    "Gross Debit (GC)",
    "Gross Credit (GC)",
    "Net Currency",
    "Net Debit (NC)",
    "Net Credit (NC)",
    "Commission (NC)",
    "Markup (NC)",
    "Scheme Fees (NC)",
    "Interchange (NC)",
    "Batch Number",
)
COSTS = ("Commission (NC)", "Markup (NC)", "Scheme Fees (NC)", "Interchange (NC)")
KINDS: Mapping[str, Kind] = {
    "Settled": "capture",
    "SettledReversed": "capture",
    "Refunded": "refund",
    "RefundedReversed": "refund",
    "Chargeback": "dispute",
    "SecondChargeback": "dispute",
    "ChargebackReversed": "dispute",
    "Fee": "fee",
    "MiscCosts": "fee",
    "PaymentCost": "fee",
    "InvoiceDeduction": "fee",
    "AuthorisationSchemeFee": "fee",
    "MerchantPayout": "payout",
    "BankInstructionReturned": "payout",
    "InternalCompanyPayout": "payout",
    "EpaPaid": "payout",
}
"""By journal type; any other one is an adjustment, under its own name."""
ZONES: Mapping[str, str] = {
    "UTC": "UTC",
    "GMT": "UTC",
    **dict.fromkeys(("CET", "CEST"), "Europe/Amsterdam"),
    **dict.fromkeys(("EET", "EEST"), "Europe/Helsinki"),
    **dict.fromkeys(("WET", "WEST"), "Europe/Lisbon"),
    "BST": "Europe/London",
    **dict.fromkeys(("EST", "EDT"), "America/New_York"),
    **dict.fromkeys(("CST", "CDT"), "America/Chicago"),
    **dict.fromkeys(("MST", "MDT"), "America/Denver"),
    **dict.fromkeys(("PST", "PDT"), "America/Los_Angeles"),
    **dict.fromkeys(("AEST", "AEDT"), "Australia/Sydney"),
    "BRT": "America/Sao_Paulo",
    "SGT": "Asia/Singapore",
    "HKT": "Asia/Hong_Kong",
    "JST": "Asia/Tokyo",
}
"""The letters name the account's zone, not the season: a report's own sample says CET of a moment in June."""
_PSP = re.compile(r"[0-9A-Z]{16}")
_TYPE = re.compile(r"[A-Za-z]{1,80}")
_BATCH = re.compile(r"[0-9]{1,12}")
_ABOUT_MONEY = ("Gross Currency", "Gross Debit (GC)", "Gross Credit (GC)", "Net Currency", "Net Debit (NC)")


def read(stream: Lines, *, merchant_account: str) -> Iterator[SettlementLine]:
    """Every line of a report of this merchant account. Raises SettlementFileError."""
    seen: Counter[str] = Counter()
    return read_lines(stream, REQUIRED, lambda row: _line(row, merchant_account, seen))


def _line(row: Row, merchant_account: str, seen: Counter[str]) -> SettlementLine:
    if row.needed("Merchant Account") != merchant_account:
        raise row.wrong("Merchant Account", "the line is of another account")
    row.needed("Type")
    type = row.pattern("Type", _TYPE, "a journal type") or ""
    kind = KINDS.get(type, "adjustment")
    psp = row.pattern("Psp Reference", _PSP, "a pspReference: 16 digits and capital letters")
    is_of_payment = kind in ("capture", "refund", "dispute")
    modification = None
    if is_of_payment:
        row.needed("Psp Reference")
        modification = row.pattern("Modification Reference", _PSP, "a pspReference: 16 digits and capital letters")
        row.needed("Modification Reference")
    net_currency = row.currency("Net Currency")
    net = _signed(row, "Net", "NC", net_currency, finer=True)
    amount, currency = net, net_currency
    if is_of_payment or row.text("Gross Currency") is not None:
        currency = row.currency("Gross Currency")
        amount = _signed(row, "Gross", "GC", currency)
    fee = amount - net if currency == net_currency and is_of_payment else _costs(row, net_currency)
    return SettlementLine(
        number=row.number,
        id=_id(row, merchant_account, type, psp, seen, is_one=is_of_payment),
        kind=kind,
        type=type,
        reference=modification if kind == "refund" else psp,
        modification=modification if kind == "capture" else None,
        own=row.own("Modification Merchant Reference" if kind == "refund" else "Merchant Reference")
        if is_of_payment
        else None,
        amount=amount,
        currency=currency,
        fee=fee,
        net=net,
        net_currency=net_currency,
        at=row.moment("Creation Date", _zone(row)),
        batch=row.pattern("Batch Number", _BATCH, "a batch's number"),
    )


def _signed(row: Row, which: str, unit: str, currency: str, *, finer: bool = False) -> int:
    """Credit less debit; `finer`: with the decimals that Adyen has and ISO 4217 has not (ISK, CLP), rounded."""
    debit, credit = (f"{which} {side} ({unit})" for side in ("Debit", "Credit"))
    rounds = finer and ADYEN.exponents.get(currency, 0) > ISO_EXPONENTS[currency]
    taken, given = (
        _rounded(row, each, currency) if rounds else row.amount(each, currency) for each in (debit, credit)
    )
    if taken < 0 or given < 0:
        raise row.wrong(debit if taken < 0 else credit, "is negative")
    if row.text(debit) is None and row.text(credit) is None:
        raise row.wrong(credit, f"is empty, and so is {debit}")
    return given - taken


def _rounded(row: Row, column: str, currency: str) -> int:
    digits, places = row.number_in(column)
    return row.bounded(column, rounded(digits, places, currency))


def _costs(row: Row, currency: str) -> int:
    """The sum of the costs, rounded once: Interchange++ quotes finer than it settles."""
    parts = [row.number_in(column) for column in COSTS]
    places = max(each for _, each in parts)
    total = sum(digits * 10 ** (places - own) for digits, own in parts)
    return row.bounded(COSTS[0], rounded(total, places, currency))


def _id(row: Row, account: str, type: str, psp: str | None, seen: Counter[str], *, is_one: bool) -> str:
    batch, modification = row.text("Batch Number") or "", row.text("Modification Reference") or ""
    said = [account, batch, type, psp or "", modification]
    if not is_one:
        said += [row.text(column) or "" for column in ("Creation Date", *_ABOUT_MONEY, "Net Credit (NC)")]
    digest = hashlib.sha256("\x1f".join(said).encode()).hexdigest()[:32]
    if psp is None:
        # A few lines of a file. Two that say the same are two, and a whole batch is always in one file.
        seen[digest] += 1
        if seen[digest] > 1:
            return f"{digest}-{seen[digest]}"
    return digest


def _zone(row: Row) -> dt.tzinfo:
    name = ZONES.get(row.needed("TimeZone").upper())
    if name is None:
        raise row.wrong("TimeZone", "is not a time zone that is known")
    try:
        return _loaded(name)
    except ZoneInfoNotFoundError:
        raise row.wrong("TimeZone", "is not among this machine's time zones") from None


@functools.cache
def _loaded(name: str) -> dt.tzinfo:
    return ZoneInfo(name)
