"""Settlement files of the stand-ins' own books, with differences planted where asked: `GET /control/{p}/settlement`.

Columns as the vendors have them (`providers.settlement_stripe`, `providers.settlement_adyen` name the sources). The
same books give the same file: every line's id follows from what it is about.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from providers.currencies import ADYEN, ISO_EXPONENTS, STRIPE, MinorUnits
from providers.sandbox.adyen_payments import Payment
from providers.sandbox.stripe_intents import Intent
from providers.sandbox.stripe_objects import FEE_FIXED, FEE_PERCENT

PLANTS = ("amount", "fee", "left_out", "unknown")
"""What can be planted: captures with another amount, or another fee, or that are left out; charges nobody made."""
ADYEN_PERCENT = Decimal("2.1")
ADYEN_FIXED = 13
"""In hundredths of EUR, GBP and USD: what the default schedule of fees says, so that a plain file agrees with it."""

STRIPE_COLUMNS = (
    *("balance_transaction_id", "created_utc", "available_on_utc", "currency", "gross", "fee", "net"),
    *("reporting_category", "source_id", "description", "customer_facing_amount", "customer_facing_currency"),
    *("automatic_payout_id", "charge_id", "payment_intent_id", "payment_metadata[attempt]"),
    "refund_metadata[operation]",
)
ADYEN_COLUMNS = (
    *("Company Account", "Merchant Account", "Psp Reference", "Merchant Reference", "Payment Method"),
    *("Creation Date", "TimeZone", "Type", "Modification Reference", "Gross Currency", "Gross Debit (GC)"),
    *("Gross Credit (GC)", "Exchange Rate", "Net Currency", "Net Debit (NC)", "Net Credit (NC)", "Commission (NC)"),
    *("Markup (NC)", "Scheme Fees (NC)", "Interchange (NC)", "Payment Method Variant"),
    *("Modification Merchant Reference", "Batch Number"),
)


@dataclass(slots=True)
class Plants:
    """How many differences are still to be planted, by kind."""

    left: dict[str, int]

    def take(self, kind: str) -> bool:
        """Whether this one is to have it."""
        found = self.left.get(kind, 0) > 0
        if found:
            self.left[kind] -= 1
        return found


def stripe_file(intents: Iterable[Intent], plants: Mapping[str, int]) -> bytes:
    """Stripe's *Balance change from activity*, itemized."""
    return _csv(STRIPE_COLUMNS, _stripe(intents, Plants(dict(plants))))


def adyen_file(payments: Iterable[Payment], plants: Mapping[str, int]) -> bytes:
    """Adyen's *Settlement details report*."""
    return _csv(ADYEN_COLUMNS, _adyen(payments, Plants(dict(plants))))


def _csv(columns: Iterable[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _major(amount: int, currency: str, vendor: MinorUnits) -> str:
    exponent = vendor.exponents.get(currency, ISO_EXPONENTS[currency])
    return f"{Decimal(amount).scaleb(-exponent):f}"


def _share(amount: int, percent: Decimal) -> int:
    return int((amount * percent / 100).quantize(Decimal(1), ROUND_HALF_UP))


# ---------------------------------------------------------------- Stripe


def _stripe(intents: Iterable[Intent], plants: Plants) -> Iterator[dict[str, str]]:
    for intent in intents:
        charge = intent.charge
        if charge is None or charge.amount_captured == 0:
            continue
        currency, at = charge.currency, charge.created_at
        name = (intent.latest_charge or intent.id).partition("_")[2]
        about = {"payment_intent_id": intent.id, "charge_id": intent.latest_charge or ""}
        about["payment_metadata[attempt]"] = intent.metadata.get("attempt", "")
        if not plants.take("left_out"):
            gross = charge.amount + (100 if plants.take("amount") else 0)
            fee = _share(charge.amount, FEE_PERCENT) + FEE_FIXED
            kept = _share(charge.amount_captured, FEE_PERCENT) + FEE_FIXED
            odd = 7 if plants.take("fee") else 0
            about["source_id"] = intent.latest_charge or ""
            yield about | _stripe_row(f"txn_{name}", at, currency, gross, fee + odd, "charge")
            if charge.amount_captured < charge.amount:
                rest = (charge.amount_captured - charge.amount, kept - fee, "partial_capture_reversal")
                yield about | _stripe_row(f"txn_p{name}", at, currency, *rest)
        for refund in intent.refunds.values():
            if refund["status"] != "succeeded":
                continue
            about["source_id"] = refund["id"]
            own = {"refund_metadata[operation]": (refund["metadata"] or {}).get("operation", "")}
            money = (currency, -refund["amount"], 0, "refund")
            yield about | own | _stripe_row(refund["balance_transaction"], refund["created"], *money)
        if intent.dispute is not None:
            about["source_id"] = intent.dispute["id"]
            money = (currency, -intent.dispute["amount"], 1500, "dispute")
            yield about | _stripe_row(f"txn_d{name}", intent.dispute["created"], *money)
    number = 0
    while plants.take("unknown"):
        number += 1
        row = _stripe_row(f"txn_unknown{number}", 0, "EUR", 1234, 70, "charge")
        yield row | {"source_id": f"ch_unknown{number}", "payment_intent_id": f"pi_unknown{number}"}


def _stripe_row(  # noqa: PLR0917 - a row of a file, in its order
    id: str, at: float, currency: str, gross: int, fee: int, category: str
) -> dict[str, str]:
    moment = datetime.fromtimestamp(at or 1_790_000_000, UTC)
    return {
        "balance_transaction_id": id,
        "created_utc": f"{moment:%Y-%m-%d %H:%M:%S}",
        "available_on_utc": f"{moment:%Y-%m-%d} 00:00:00",
        "currency": currency.lower(),
        "gross": _major(gross, currency, STRIPE),
        "fee": _major(fee, currency, STRIPE),
        "net": _major(gross - fee, currency, STRIPE),
        "reporting_category": category,
        "automatic_payout_id": "po_sandbox",
    }


# ---------------------------------------------------------------- Adyen


def _adyen(payments: Iterable[Payment], plants: Plants) -> Iterator[dict[str, str]]:
    account = "SandboxMerchant"
    for payment in payments:
        charge, account = payment.charge, payment.merchant_account
        if charge is None or charge.amount_captured == 0:
            continue
        captures = [
            (each.id, each.amount, each.reference) for each in payment.modifications if each.kind == "capture"
        ]
        at_once = charge.amount_captured - sum(amount for _, amount, _ in captures)
        if at_once > 0:
            # A capture with the approval has a reference of its own, too.
            captures.insert(0, (payment.psp[::-1], at_once, None))
        for id, amount, own in captures:
            if plants.take("left_out"):
                continue
            row = (account, payment.psp, payment.reference, "Settled", id, own, charge.currency)
            fee = _share(amount, ADYEN_PERCENT)
            fee += ADYEN_FIXED if charge.currency in ("EUR", "GBP", "USD") else 0
            # Far enough off for an estimate to be wrong.
            fee += amount // 10 + 5 if plants.take("fee") else 0
            yield _adyen_row(*row, amount + (100 if plants.take("amount") else 0), fee, charge.created_at)
        for each in payment.modifications:
            if each.kind == "refund":
                row = (account, payment.psp, payment.reference, "Refunded", each.id, each.reference, charge.currency)
                yield _adyen_row(*row, -each.amount, 0, charge.created_at)
        if payment.dispute_id is not None and charge.dispute is not None:
            id = payment.dispute_id
            row = (account, payment.psp, payment.reference, "Chargeback", id, None, charge.currency)
            yield _adyen_row(*row, -charge.amount_captured, 0, charge.created_at)
    number = 0
    while plants.take("unknown"):
        number += 1
        psp = f"UNKNOWN{number:09d}"
        yield _adyen_row(account, psp, "elsewhere", "Settled", psp[::-1], None, "EUR", 1234, 40, 0)


def _adyen_row(  # noqa: PLR0917 - the same
    account: str,
    psp: str,
    reference: str,
    type: str,
    modification: str,
    own: str | None,
    currency: str,
    amount: int,
    fee: int,
    at: float,
) -> dict[str, str]:
    net = amount - fee
    parts = (fee - fee * 9 // 10, fee * 1 // 10, fee * 9 // 10 - fee * 1 // 10)
    moment = datetime.fromtimestamp(at or 1_790_000_000, UTC)
    row = {
        "Company Account": "SandboxCompany",
        "Merchant Account": account,
        "Psp Reference": psp,
        "Merchant Reference": reference,
        "Payment Method": "visa",
        "Creation Date": f"{moment:%Y-%m-%d %H:%M:%S}",
        "TimeZone": "UTC",
        "Type": type,
        "Modification Reference": modification,
        "Gross Currency": currency,
        "Exchange Rate": "1",
        "Net Currency": currency,
        "Payment Method Variant": "visaclassic",
        "Modification Merchant Reference": own or "",
        "Batch Number": "1",
    }
    row["Gross Credit (GC)" if amount >= 0 else "Gross Debit (GC)"] = _major(abs(amount), currency, ADYEN)
    row["Net Credit (NC)" if net >= 0 else "Net Debit (NC)"] = _major(abs(net), currency, ADYEN)
    if fee:
        for name, part in zip(("Markup (NC)", "Scheme Fees (NC)", "Interchange (NC)"), parts, strict=True):
            row[name] = _major(part, currency, ADYEN)
    return row
