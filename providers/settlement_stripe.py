"""Stripe's itemized reports as settlement lines: *Balance change from activity* and *Payout reconciliation*.

Both have the same columns (https://docs.stripe.com/reports/report-types/balance, `balance_change_from_activity.
itemized`, and https://docs.stripe.com/reports/report-types/payout-reconciliation, `payout_reconciliation.itemized`).
What is read of them, by those pages:

- `balance_transaction_id`: unique identifier of the balance transaction; here the line's id.
- `created_utc`, or `created` (in the time zone asked for, UTC if none was: so it is read here).
- `currency`, `gross`, `fee`, `net`: the settlement currency, and amounts in *major* units of it ("dollars for USD,
  yen for JPY"), signed: a refund is negative. `decimal_separator` must be left at the point.
- `customer_facing_amount`, `customer_facing_currency`: of a charge or refund, what the customer paid or got, where
  that was another currency.
- `reporting_category` (https://docs.stripe.com/reports/reporting-categories). A payment captured for less than was
  authorized has two lines, a `charge` of all of it and a `partial_capture_reversal`; they sum to the capture.
- `source_id`: the object it is about: `ch_…`, `re_…`, `po_…`. `payment_intent_id`, `charge_id`: as the names say.
- `automatic_payout_id`: the payout it is in.
- `payment_metadata[attempt]`, `refund_metadata[operation]`: what this router sends as metadata, where the report was
  made with these columns.

Neither report says whose account it is of, nor whether it is of live payments. Where a file has `livemode` or
`connected_account_id` beside (the Connect reports), they are checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from providers.settlement import Kind, Lines, Row, SettlementLine, read_lines, rounded

REQUIRED = (
    "balance_transaction_id",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
    "payment_intent_id",
)
KINDS: Mapping[str, Kind] = {
    "charge": "capture",
    "charge_failure": "capture",
    "partial_capture_reversal": "capture",
    "refund": "refund",
    "refund_failure": "refund",
    "dispute": "dispute",
    "dispute_reversal": "dispute",
    "fee": "fee",
    "network_cost": "fee",
    "tax": "fee",
    "payout": "payout",
    "payout_reversal": "payout",
}
"""By reporting category; any other one is an adjustment, under its own name."""
_ID = re.compile(r"[a-z]{2,8}_[0-9A-Za-z_]{1,120}")
_WORD = re.compile(r"[a-z_]{1,80}")


def read(stream: Lines, *, livemode: bool) -> Iterator[SettlementLine]:
    """Every line of a report of this account. Raises SettlementFileError."""
    return read_lines(stream, REQUIRED, lambda row: _line(row, livemode))


def _line(row: Row, livemode: bool) -> SettlementLine:
    _check_account(row, livemode)
    id = row.pattern("balance_transaction_id", _ID, "an id of Stripe's, as txn_…") or row.needed(
        "balance_transaction_id"
    )
    row.needed("reporting_category")
    type = row.pattern("reporting_category", _WORD, "a reporting category") or ""
    kind = KINDS.get(type, "adjustment")
    net_currency = row.currency("currency")
    amount, currency = row.amount("gross", net_currency), net_currency
    row.needed("gross")
    fee, net = _costs(row, net_currency)
    facing = row.text("customer_facing_currency")
    if type in ("charge", "refund") and facing is not None and facing.upper() != net_currency:
        currency = row.currency("customer_facing_currency")
        row.needed("customer_facing_amount")
        paid = abs(row.amount("customer_facing_amount", currency))
        amount = paid if amount >= 0 else -paid
    source = row.pattern("source_id", _ID, "an id of Stripe's")
    intent = row.pattern("payment_intent_id", _ID, "an id of Stripe's, as pi_…")
    if kind == "refund":
        reference, own = source, row.own("refund_metadata[operation]")
    else:
        reference, own = intent or source, row.own("payment_metadata[attempt]")
    return SettlementLine(
        number=row.number,
        id=id,
        kind=kind,
        type=type,
        reference=reference,
        modification=None,
        own=own if kind in ("capture", "refund", "dispute") else None,
        amount=amount,
        currency=currency,
        fee=fee,
        net=net,
        net_currency=net_currency,
        at=row.moment("created_utc" if row.has("created_utc") else "created"),
        batch=row.pattern("automatic_payout_id", _ID, "an id of Stripe's, as po_…"),
    )


def _costs(row: Row, currency: str) -> tuple[int, int]:
    """Fee and net; rounded in the few currencies where Stripe has decimals that ISO 4217 has not (ISK)."""
    (gross, gross_places), (fee, fee_places), (net, net_places) = (
        row.number_in(column) for column in ("gross", "fee", "net")
    )
    places = max(gross_places, fee_places, net_places)
    scaled = [
        digits * 10 ** (places - own) for digits, own in ((gross, gross_places), (fee, fee_places), (net, net_places))
    ]
    row.needed("net")
    if scaled[2] != scaled[0] - scaled[1]:
        raise row.wrong("net", "is not gross less fee")
    rounded_fee = row.bounded("fee", rounded(fee, fee_places, currency))
    return rounded_fee, row.amount("gross", currency) - rounded_fee


def _check_account(row: Row, livemode: bool) -> None:
    if row.text("connected_account_id") is not None:
        raise row.wrong("connected_account_id", "the line is of another account")
    said = row.text("livemode")
    if said is not None and said.lower() not in ("true", "false"):
        raise row.wrong("livemode", "is neither true nor false")
    if said is not None and (said.lower() == "true") is not livemode:
        mode = "live" if livemode else "test"
        raise row.wrong("livemode", f"is of another account's mode: the configured key is a {mode} one")
