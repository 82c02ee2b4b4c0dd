"""A ledger and its providers' settlement files, by the thousand, with differences planted: same seed, same files."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa

from providers.currencies import ISO_EXPONENTS
from router.ledger.engine import Database
from router.ledger.tables import attempts, operations, payments, to_micros

Plant = Literal[
    "amount",
    "refund_amount",
    "twice",
    "fee",
    "ledger_only",
    "ledger_only_refund",
    "unknown_charge",
    "unknown_refund",
    "declined_here",
]
PLANTS: tuple[Plant, ...] = (
    "amount",
    "refund_amount",
    "twice",
    "fee",
    "ledger_only",
    "ledger_only_refund",
    "unknown_charge",
    "unknown_refund",
    "declined_here",
)
VERDICT_OF = {
    "amount": "amount_differs",
    "refund_amount": "amount_differs",
    "twice": "amount_differs",
    "fee": "fee_differs",
    "unknown_charge": "provider_only",
    "unknown_refund": "provider_only",
    "declined_here": "provider_only",
}
AT = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
ACCOUNT = "SandboxMerchant"
STRIPE_COLUMNS = (
    *("balance_transaction_id", "created_utc", "currency", "gross", "fee", "net", "reporting_category", "source_id"),
    *("description", "customer_facing_amount", "customer_facing_currency", "automatic_payout_id"),
    *("charge_id", "payment_intent_id", "payment_metadata[attempt]", "refund_metadata[operation]"),
)
ADYEN_COLUMNS = (
    *("Company Account", "Merchant Account", "Psp Reference", "Merchant Reference", "Payment Method"),
    *("Creation Date", "TimeZone", "Type", "Modification Reference", "Gross Currency", "Gross Debit (GC)"),
    *("Gross Credit (GC)", "Exchange Rate", "Net Currency", "Net Debit (NC)", "Net Credit (NC)", "Commission (NC)"),
    *("Markup (NC)", "Scheme Fees (NC)", "Interchange (NC)", "Payment Method Variant"),
    *("Modification Merchant Reference", "Batch Number"),
)


def major(amount: int, currency: str) -> str:
    """Minor units as a file has them."""
    return str(Decimal(amount).scaleb(-ISO_EXPONENTS[currency]))


@dataclass(slots=True)
class World:
    """What was written, and what is to be found."""

    provider: str
    seed: int = 1
    at: dt.datetime = AT
    rows: list[dict[str, str]] = field(default_factory=list)
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Verdict and provider's reference of each line that must be listed."""
    missing: set[tuple[str, str]] = field(default_factory=set)
    """Kind and our id of what is in the ledger only."""
    fees: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Of each attempt that was settled, what it cost."""
    _ledger: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"payments": [], "attempts": [], "operations": []}
    )
    _number: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(1))

    def build(self, lines: int, planted: int, plants: tuple[Plant, ...] = PLANTS) -> None:
        """So many lines, and so many differences of each kind at random places among them."""
        self._random = random.Random(self.seed)
        todo: list[Plant | None] = [plant for plant in plants for _ in range(planted)]
        # A payment has 1.17 lines on average.
        todo += [None] * max(0, int(lines / 1.17) - len(todo))
        self._random.shuffle(todo)
        for plant in todo:
            self._payment(plant)
        self._apart()

    def file(self) -> bytes:
        """The settlement file."""
        text = io.StringIO()
        columns = STRIPE_COLUMNS if self.provider == "stripe" else ADYEN_COLUMNS
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue().encode()

    def save(self, database: Database) -> None:
        """Write the ledger's side."""
        tables = {"payments": payments, "attempts": attempts, "operations": operations}
        for name, rows in self._ledger.items():
            for start in range(0, len(rows), 1000):
                with database.write() as connection:
                    connection.execute(sa.insert(tables[name]), rows[start : start + 1000])

    # ------------------------------------------------------------ one payment

    def _payment(self, plant: Plant | None) -> None:
        number = self._number = self._number + 1
        draw = self._random
        currency = draw.choices(("EUR", "USD", "JPY", "KWD"), (70, 15, 10, 5))[0]
        if plant == "fee" and currency == "USD":
            currency = "EUR"  # an estimate says nothing of a fee in another currency
        amount = draw.randrange(100, 50_000) * 10
        partly = draw.random() < 0.05 and plant != "fee"  # of a part, no fee is expected
        refunds = plant in ("refund_amount", "ledger_only_refund") or (plant is None and draw.random() < 0.15)
        captured = amount // 20 * 10 if partly else amount
        at = self.at + dt.timedelta(seconds=20 * number)
        reference = f"pi_{self.seed}x{number}" if self.provider == "stripe" else f"P{self.seed:03d}{number:012d}"
        attempt = f"att_{self.provider}{self.seed}x{number}"
        declined = plant == "declined_here"
        fee, net_currency = self._fee(captured, currency)
        if plant != "unknown_charge":
            self._keep(
                attempt, reference, amount, currency, at, declined=declined, partly=partly, fee=fee, number=number
            )
            if partly and not declined:
                self._operate("capture", attempt, captured, at, f"C{self.seed:03d}{number:012d}", number)
        if plant == "ledger_only":
            self.missing.add(("capture", f"op_{self.provider}{self.seed}c{number}" if partly else attempt))
            return
        paid = captured
        if plant == "amount":
            paid += draw.choice((-10, 10, 1000))
            self.found["amount_differs", reference] += 2 if partly and self.provider == "stripe" else 1
        kept = fee
        if plant == "fee":
            kept += max(2, fee // 2)
            self.found["fee_differs", reference] += 2 if partly and self.provider == "stripe" else 1
        elif plant in ("unknown_charge", "declined_here"):
            self.found["provider_only", reference] += 2 if partly and self.provider == "stripe" else 1
        for copy in range(2 if plant == "twice" else 1):
            if plant == "twice":
                self.found["amount_differs", reference] += 2 if partly and self.provider == "stripe" else 1
            self._capture_line(
                number, copy, reference, attempt, (amount, paid, currency), (kept, net_currency), at, plant
            )
        if plant != "unknown_charge":
            self.fees[attempt] = (kept * (2 if plant == "twice" else 1), net_currency)
        if refunds or plant == "unknown_refund":
            self._refund(number, plant, reference, attempt, captured // 20 * 10 or 10, currency, at)

    def _fee(self, captured: int, currency: str) -> tuple[int, str]:
        """USD is settled in EUR at Adyen."""
        net_currency = "EUR" if self.provider == "adyen" and currency == "USD" else currency
        return captured * 29 // 1000 + 3, net_currency

    def _keep(
        self,
        attempt: str,
        reference: str,
        amount: int,
        currency: str,
        at: dt.datetime,
        *,
        declined: bool,
        partly: bool,
        fee: int,
        number: int,
    ) -> None:
        payment = f"pay_{self.provider}{self.seed}x{number}"
        moment = to_micros(at)
        cost = major(amount * 29 // 1000 + 3, currency)
        self._ledger["payments"].append(
            {
                "id": payment,
                "merchant": "default",
                "reference": f"ORD-{self.provider}{self.seed}-{number}",
                "holds_reference": not declined,
                "status": "declined" if declined else "captured",
                "amount": amount,
                "currency": currency,
                "amount_captured": 0,
                "amount_refunded": 0,
                "capture_pending": False,
                "provider": self.provider,
                "order": {},
                "flags": {},
                "decision": {"candidates": [{"provider": self.provider, "cost": float(cost)}]},
                "version": 1,
                "attempt_id": attempt,
                "tries": 1,
                "expires_at": moment,
                "created_at": moment,
                "updated_at": moment,
            }
        )
        # Stripe tells what it charges, in its answer to every second payment.
        told = self.provider == "stripe" and not partly and number % 2 == 0
        self._ledger["attempts"].append(
            {
                "id": attempt,
                "payment_id": payment,
                "number": 1,
                "provider": self.provider,
                "idempotency_key": attempt,
                "params": {},
                "outcome": "declined" if declined else "approved",
                "provider_reference": reference if number % 17 else None,
                "at_once": not partly,
                "capture": None if partly or declined else "done",
                "fee_actual": fee if told else None,
                "fee_currency": currency if told else None,
                "started_at": moment,
                "finished_at": moment,
            }
        )

    def _operate(self, kind: str, attempt: str, amount: int, at: dt.datetime, reference: str, number: int) -> str:
        id = f"op_{self.provider}{self.seed}{kind[0]}{number}"
        self._ledger["operations"].append(
            {
                "id": id,
                "payment_id": attempt.replace("att_", "pay_"),
                "attempt_id": attempt,
                "kind": kind,
                "amount": amount,
                "provider": self.provider,
                "idempotency_key": id,
                "state": "done",
                "provider_reference": reference if number % 13 else None,
                "asked_by": "checkout",
                "sends": 1,
                "started_at": to_micros(at),
                "finished_at": to_micros(at),
            }
        )
        return id

    def _refund(
        self, number: int, plant: Plant | None, charge: str, attempt: str, amount: int, currency: str, at: dt.datetime
    ) -> None:
        stripe = self.provider == "stripe"
        reference = f"re_{self.seed}x{number}" if stripe else f"R{self.seed:03d}{number:012d}"
        at += dt.timedelta(hours=1)
        own = ""
        if plant == "unknown_refund":
            self.found["provider_only", reference] += 1
        else:
            own = self._operate("refund", attempt, amount, at, reference, number)
        if plant == "ledger_only_refund":
            self.missing.add(("refund", own))
            return
        if plant == "refund_amount":
            amount += 10
            self.found["amount_differs", reference] += 1
        if stripe:
            self._stripe(f"txn_r{self.seed}x{number}", at, currency, -amount, 0, "refund", reference, charge, own=own)
        else:
            self._adyen(charge, attempt, "Refunded", reference, currency, -amount, at, fee=0, net=currency, own=own)

    # ------------------------------------------------------------ lines

    def _capture_line(
        self,
        number: int,
        copy: int,
        reference: str,
        attempt: str,
        money: tuple[int, int, str],
        fee: tuple[int, str],
        at: dt.datetime,
        plant: Plant | None,
    ) -> None:
        amount, paid, currency = money
        kept, net_currency = fee
        own = "" if plant == "unknown_charge" else attempt
        partly = any(
            each["id"] == f"op_{self.provider}{self.seed}c{number}" for each in self._ledger["operations"][-1:]
        ) or (plant in ("unknown_charge", "declined_here") and paid < amount)
        if self.provider == "stripe":
            id, more = f"txn_{self.seed}x{number}{'c' * copy}", {"attempt": own}
            if partly:
                self._stripe(id, at, currency, amount, kept, "charge", f"ch_{number}", reference, **more)
                rest = ("partial_capture_reversal", f"re_p{number}")
                self._stripe(id + "p", at, currency, paid - amount, 0, *rest, reference, **more)
            else:
                self._stripe(id, at, currency, paid, kept, "charge", f"ch_{number}", reference, **more)
            return
        modification = f"{'CD'[copy]}{self.seed:03d}{number:012d}"
        if partly and copy:
            modification = f"C{self.seed:03d}{number:012d}"
            self._adyen(
                reference, own, "Settled", modification, currency, paid, at, fee=kept, net=net_currency, batch=8
            )
        else:
            self._adyen(reference, own, "Settled", modification, currency, paid, at, fee=kept, net=net_currency)

    def _stripe(
        self,
        id: str,
        at: dt.datetime,
        currency: str,
        gross: int,
        fee: int,
        category: str,
        source: str,
        intent: str,
        *,
        attempt: str = "",
        own: str = "",
    ) -> None:
        self.rows.append(
            {
                "balance_transaction_id": id,
                "created_utc": f"{at:%Y-%m-%d %H:%M:%S}",
                "currency": currency.lower(),
                "gross": major(gross, currency),
                "fee": major(fee, currency),
                "net": major(gross - fee, currency),
                "reporting_category": category,
                "source_id": source,
                "description": 'A "quoted", text',
                "automatic_payout_id": "po_1abc",
                "payment_intent_id": intent,
                "payment_metadata[attempt]": attempt,
                "refund_metadata[operation]": own,
            }
        )

    def _adyen(
        self,
        psp: str,
        merchant_reference: str,
        type: str,
        modification: str,
        currency: str,
        amount: int,
        at: dt.datetime,
        *,
        fee: int,
        net: str,
        batch: int = 7,
        own: str = "",
    ) -> None:
        settled = amount if net == currency else amount * 9 // 10
        kept = settled - fee
        credit = amount >= 0
        local = at.astimezone(dt.timezone(dt.timedelta(hours=2)))  # October before the clocks change
        self.rows.append(
            {
                "Company Account": "SandboxCompany",
                "Merchant Account": ACCOUNT,
                "Psp Reference": psp,
                "Merchant Reference": merchant_reference,
                "Payment Method": "visa",
                "Creation Date": f"{local:%Y-%m-%d %H:%M:%S}",
                "TimeZone": "CEST",
                "Type": type,
                "Modification Reference": modification,
                "Gross Currency": currency,
                "Gross Debit (GC)": "" if credit else major(-amount, currency),
                "Gross Credit (GC)": major(amount, currency) if credit else "",
                "Exchange Rate": "1" if net == currency else "0.9",
                "Net Currency": net,
                "Net Debit (NC)": major(-kept, net) if kept < 0 else "",
                "Net Credit (NC)": major(kept, net) if kept >= 0 else "",
                "Commission (NC)": "",
                "Markup (NC)": major(fee - fee // 2, net) if fee else "",
                "Scheme Fees (NC)": "",
                "Interchange (NC)": major(fee // 2, net) if fee else "",
                "Modification Merchant Reference": own,
                "Batch Number": str(batch),
            }
        )

    def _apart(self) -> None:
        """A payout, two fees that say the same, a dispute; so late that no capture may still be booked."""
        at = self.at + dt.timedelta(days=5, seconds=20 * self._number)
        if self.provider == "stripe":
            self._stripe("txn_po", at, "EUR", -100_000, 0, "payout", "po_1abc", "")
            self._stripe("txn_fee", at, "EUR", -500, 0, "fee", "", "")
            self._stripe("txn_dp", at, "EUR", -1000, 1500, "dispute", "du_1", f"pi_{self.seed}x1")
            self._stripe("txn_odd", at, "EUR", -10, 0, "something_new", "", "")
            return
        for _ in range(2):
            self._adyen("", "", "Fee", "Transaction Fees October 2026", "EUR", -500, at, fee=0, net="EUR")
        self._adyen("", "", "MerchantPayout", "TX123 batch 7", "EUR", -100_000, at, fee=0, net="EUR")
        chargeback = f"B{self.seed:03d}{1:012d}"
        self._adyen(f"P{self.seed:03d}{1:012d}", "", "Chargeback", chargeback, "EUR", -1000, at, fee=0, net="EUR")
