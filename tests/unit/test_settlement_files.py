"""Settlement files as they are read: exact amounts, and an error for whatever is wrong that names line and column."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers import settlement_adyen, settlement_stripe
from providers.settlement import LONGEST_LINE, SettlementFileError, SettlementLine
from tests.integration.settlement_world import ACCOUNT, ADYEN_COLUMNS, STRIPE_COLUMNS

CHARGE: Mapping[str, str] = {
    "balance_transaction_id": "txn_1",
    "created_utc": "2026-10-01 12:00:00",
    "currency": "eur",
    "gross": "19.99",
    "fee": "0.90",
    "net": "19.09",
    "reporting_category": "charge",
    "source_id": "ch_1",
    "payment_intent_id": "pi_1",
    "payment_metadata[attempt]": "att_1",
}
SETTLED: Mapping[str, str] = {
    "Company Account": "C",
    "Merchant Account": ACCOUNT,
    "Psp Reference": "1813702551707653",
    "Merchant Reference": "att_1",
    "Payment Method": "visa",
    "Creation Date": "2026-06-03 11:26:49",
    "TimeZone": "CET",
    "Type": "Settled",
    "Modification Reference": "1713702551795048",
    "Gross Currency": "GBP",
    "Gross Credit (GC)": "5.00",
    "Exchange Rate": "1",
    "Net Currency": "GBP",
    "Net Credit (NC)": "4.88",
    "Markup (NC)": "0.04",
    "Scheme Fees (NC)": "0.01",
    "Interchange (NC)": "0.07",
    "Batch Number": "4",
}
"""The line of Adyen's own sample."""


def a_file(columns: Sequence[str], *rows: Mapping[str, str]) -> bytes:
    """A CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def stripe(*rows: Mapping[str, str], columns: Sequence[str] = STRIPE_COLUMNS) -> list[SettlementLine]:
    """What is read of Stripe's file."""
    return list(settlement_stripe.read(io.BytesIO(a_file(columns, *rows)), livemode=False))


def adyen(*rows: Mapping[str, str]) -> list[SettlementLine]:
    """What is read of Adyen's."""
    return list(settlement_adyen.read(io.BytesIO(a_file(ADYEN_COLUMNS, *rows)), merchant_account=ACCOUNT))


def test_a_charge_of_stripes_is_read_exactly() -> None:
    """Major units become minor ones; the payment intent is what the ledger knows it by."""
    (line,) = stripe(CHARGE)
    assert line == SettlementLine(
        number=2,
        id="txn_1",
        kind="capture",
        type="charge",
        reference="pi_1",
        modification=None,
        own="att_1",
        amount=1999,
        currency="EUR",
        fee=90,
        net=1909,
        net_currency="EUR",
        at=dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC),
        batch=None,
    )


def test_the_line_of_adyens_own_sample_is_read_exactly() -> None:
    """CET of a moment in June is two hours ahead; what was kept is markup, scheme fees and interchange."""
    (line,) = adyen(SETTLED)
    assert (line.kind, line.amount, line.fee, line.net, line.currency) == ("capture", 500, 12, 488, "GBP")
    assert (line.reference, line.modification, line.own) == ("1813702551707653", "1713702551795048", "att_1")
    assert line.at == dt.datetime(2026, 6, 3, 9, 26, 49, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("currency", "gross", "minor"),
    [
        ("jpy", "500", 500),
        ("jpy", "500.00", 500),
        ("kwd", "1.250", 1250),
        ("kwd", "1.25", 1250),
        ("isk", "100.00", 100),
        ("ugx", "100.00", 100),
        ("mga", "100", 10000),
        ("eur", "-7", -700),
        ("eur", "-0.10", -10),
    ],
)
def test_amounts_are_minor_units_however_stripe_prints_them(currency: str, gross: str, minor: int) -> None:
    """Yen without decimals, króna with two, and signs."""
    (line,) = stripe({**CHARGE, "currency": currency, "gross": gross, "fee": "0", "net": gross})
    assert (line.amount, line.net) == (minor, minor)


def test_a_charge_settled_in_another_currency_keeps_what_the_customer_paid() -> None:
    """A refund's sign is the balance's."""
    facing = {"customer_facing_amount": "2500", "customer_facing_currency": "jpy"}
    (line,) = stripe({**CHARGE, **facing})
    assert (line.amount, line.currency, line.fee, line.net_currency) == (2500, "JPY", 90, "EUR")
    back = {"gross": "-19.99", "fee": "0", "net": "-19.99", "reporting_category": "refund", "source_id": "re_1"}
    (line,) = stripe({**CHARGE, **facing, **back})
    assert (line.kind, line.reference, line.amount, line.currency) == ("refund", "re_1", -2500, "JPY")


def test_adyens_costs_in_another_currency_are_summed_and_rounded_once() -> None:
    """Interchange++ quotes finer than it settles."""
    costs = {"Markup (NC)": "0.004", "Scheme Fees (NC)": "0.004", "Interchange (NC)": "0.007"}
    (line,) = adyen({**SETTLED, "Net Currency": "EUR", "Net Credit (NC)": "5.60", **costs})
    assert (line.amount, line.currency, line.fee, line.net_currency) == (500, "GBP", 2, "EUR")


@pytest.mark.parametrize(("net", "minor", "fee"), [("97.40", 97, 3), ("97.50", 98, 2), ("98", 98, 2)])
def test_adyens_net_is_finer_than_a_krona_where_its_costs_are(net: str, minor: int, fee: int) -> None:
    """Adyen keeps two decimals of ISK and CLP: what is left of a whole amount has them, and is no broken line."""
    (line,) = adyen(
        {
            **SETTLED,
            "Gross Currency": "ISK",
            "Gross Credit (GC)": "100.00",
            "Net Currency": "ISK",
            "Net Credit (NC)": net,
            "Markup (NC)": "",
            "Scheme Fees (NC)": "",
            "Interchange (NC)": "2.60",
        }
    )
    assert (line.amount, line.net, line.fee, line.currency) == (100, minor, fee, "ISK")
    with pytest.raises(SettlementFileError, match="Gross Credit"):
        adyen({**SETTLED, "Gross Currency": "ISK", "Gross Credit (GC)": "100.40"})
    with pytest.raises(SettlementFileError, match="Net Credit"):
        adyen({**SETTLED, "Net Credit (NC)": "4.881"})


def test_two_costs_of_one_payment_in_one_batch_are_two_lines() -> None:
    """Adyen names no line: costs of one type and text are told apart by their amounts; a capture's line is one."""
    cost = {**SETTLED, "Type": "PaymentCost", "Modification Reference": "Cost", "Gross Credit (GC)": ""}
    more = {"Gross Debit (GC)": "0.20", "Net Credit (NC)": "", "Net Debit (NC)": "0.20"}
    first, second = adyen(
        {**cost, **more},
        {**cost, **more, "Gross Debit (GC)": "0.30", "Net Debit (NC)": "0.30"},
    )
    assert first.id != second.id
    assert (first.kind, second.kind) == ("fee", "fee")
    settled, same = adyen(SETTLED, SETTLED)
    assert settled.id == same.id


def test_what_is_no_capture_or_refund_is_kept_apart_under_its_own_name() -> None:
    """Two lines of fees that say the same are two lines; a type nobody knows is an adjustment."""
    apart = {**SETTLED, "Psp Reference": "", "Merchant Reference": "", "Gross Currency": "", "Gross Credit (GC)": ""}
    fee = {**apart, "Type": "Fee", "Modification Reference": "Transaction Fees June 2026"}
    first, second, odd = adyen(fee, fee, {**apart, "Type": "SomethingNew", "Modification Reference": "x"})
    assert (first.kind, first.own, first.reference, odd.kind, odd.type) == (
        "fee",
        None,
        None,
        "adjustment",
        "SomethingNew",
    )
    assert first.id != second.id
    kinds = {type: adyen({**SETTLED, "Type": type})[0].kind for type in ("Chargeback", "RefundedReversed")}
    assert kinds == {"Chargeback": "dispute", "RefundedReversed": "refund"}


SECRET = "4111111111111111"


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"gross": "19,99"}, "gross"),
        ({"gross": "1.999,99"}, "gross"),
        ({"gross": "1e3"}, "gross"),
        ({"gross": "NaN"}, "gross"),
        ({"gross": "١٩"}, "gross"),
        ({"gross": "19.999"}, "gross"),
        ({"gross": "999999999999999999"}, "gross"),
        ({"fee": "99999999999999999", "net": "-99999999999999979.01"}, "fee"),
        ({"reporting_category": SECRET}, "reporting_category"),
        ({"gross": "", "net": "-0.90"}, "gross"),
        ({"net": "19.10"}, "net"),
        ({"net": ""}, "net"),
        ({"fee": SECRET + "x"}, "fee"),
        ({"currency": "xau"}, "currency"),
        ({"currency": ""}, "currency"),
        ({"created_utc": "31.10.2026"}, "created_utc"),
        ({"created_utc": "0001-01-01 00:00:00"}, "created_utc"),
        ({"balance_transaction_id": ""}, "balance_transaction_id"),
        ({"balance_transaction_id": SECRET}, "balance_transaction_id"),
        ({"reporting_category": ""}, "reporting_category"),
        ({"source_id": "=cmd"}, "source_id"),
        ({"payment_intent_id": SECRET}, "payment_intent_id"),
        ({"customer_facing_currency": "zzz"}, "customer_facing_currency"),
        ({"customer_facing_currency": "usd"}, "customer_facing_amount"),
    ],
)
def test_a_broken_cell_of_stripes_is_named_and_not_shown(change: Mapping[str, str], column: str) -> None:
    """The good line before it does not make it good."""
    with pytest.raises(SettlementFileError) as refused:
        stripe(CHARGE, {**CHARGE, **change})
    assert (refused.value.line, refused.value.column) == (3, column)
    assert not [value for value in change.values() if len(value) > 2 and value in str(refused.value)]


@pytest.mark.parametrize(
    ("change", "column"),
    [
        ({"Merchant Account": "AnotherShop"}, "Merchant Account"),
        ({"Merchant Account": ""}, "Merchant Account"),
        ({"Psp Reference": ""}, "Psp Reference"),
        ({"Psp Reference": "881"}, "Psp Reference"),
        ({"Modification Reference": ""}, "Modification Reference"),
        ({"Type": "<script>"}, "Type"),
        ({"Type": SECRET}, "Type"),
        ({"Batch Number": SECRET}, "Batch Number"),
        ({"Net Currency": "EUR", "Markup (NC)": "99999999999999999"}, "Commission (NC)"),
        ({"TimeZone": "XXT"}, "TimeZone"),
        ({"Gross Currency": ""}, "Gross Currency"),
        ({"Gross Credit (GC)": "-5.00"}, "Gross Credit (GC)"),
        ({"Gross Credit (GC)": ""}, "Gross Credit (GC)"),
        ({"Net Debit (NC)": "1.2.3"}, "Net Debit (NC)"),
        ({"Net Currency": "EUR", "Markup (NC)": "0,04"}, "Markup (NC)"),
        ({"Batch Number": "# 4"}, "Batch Number"),
    ],
)
def test_a_broken_cell_of_adyens_is_named_and_not_shown(change: Mapping[str, str], column: str) -> None:
    """Another account's line among them."""
    with pytest.raises(SettlementFileError) as refused:
        adyen(SETTLED, {**SETTLED, **change})
    assert (refused.value.line, refused.value.column) == (3, column)
    assert not [value for value in change.values() if len(value) > 2 and value in str(refused.value)]


def test_a_stripe_file_of_another_account_or_mode_is_refused_where_it_tells() -> None:
    """The columns of the Connect reports; a file without them says nothing of it."""
    columns = (*STRIPE_COLUMNS, "livemode", "connected_account_id")
    assert len(stripe({**CHARGE, "livemode": "false"}, columns=columns)) == 1
    for change, column in (
        ({"livemode": "true"}, "livemode"),
        ({"livemode": "maybe"}, "livemode"),
        ({"connected_account_id": "acct_1"}, "connected_account_id"),
    ):
        with pytest.raises(SettlementFileError) as refused:
            stripe({**CHARGE, **change}, columns=columns)
        assert (refused.value.line, refused.value.column) == (2, column)


def broken(data: bytes) -> SettlementFileError:
    """Why that is no file of Stripe's."""
    with pytest.raises(SettlementFileError) as refused:
        list(settlement_stripe.read(io.BytesIO(data), livemode=False))
    return refused.value


def test_what_is_no_such_file_is_refused_at_its_line() -> None:
    """Wrong columns, too few cells, a quote that never ends, an endless line, bytes that are no text."""
    good = a_file(STRIPE_COLUMNS, CHARGE)
    assert broken(b"").line == 1
    assert broken(a_file(ADYEN_COLUMNS, SETTLED)).column == "balance_transaction_id"
    assert broken(a_file((*STRIPE_COLUMNS, "fee"), CHARGE)).line == 1
    assert broken(good + b"txn_2,1\r\n").line == 3
    assert broken(good + b'"txn_2\r\nnever,ends').line == 3
    assert broken(good + b'"txn_2"x,\r\n').line == 3
    assert broken(good + b"\xff\xfe\r\n").line == 3
    assert broken(good + b"a\0b\r\n").line == 3
    assert broken(good + b"x" * (LONGEST_LINE + 1)).line == 3
    assert len(list(settlement_stripe.read(io.BytesIO(b"\xef\xbb\xbf" + good + b"\r\n"), livemode=False))) == 1


def test_a_row_that_goes_on_and_on_is_refused_before_it_fills_the_memory() -> None:
    """Short lines, short cells, and a line break in quotes in each of them: one row, as long as the file."""
    good = a_file(STRIPE_COLUMNS, CHARGE)
    stream = io.BytesIO(good + b'"a\n",' * 1_000_000)
    with pytest.raises(SettlementFileError, match="too long") as refused:
        list(settlement_stripe.read(stream, livemode=False))
    assert refused.value.line == 3
    assert stream.tell() < len(good) + 2 * LONGEST_LINE
    # Many rows of one length are none.
    assert len(stripe(*[{**CHARGE, "description": "a\nb" * 200}] * 500)) == 500


def test_a_line_in_quotes_over_several_lines_is_counted_where_it_begins() -> None:
    """The error after it is at its own line of the file."""
    with pytest.raises(SettlementFileError) as refused:
        stripe({**CHARGE, "description": "a\nb\nc"}, {**CHARGE, "gross": "x"})
    assert refused.value.line == 5


@given(st.data())
@settings(deadline=None)
def test_whatever_happens_to_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    """Bytes cut out, put in, or exchanged at any place: no other error than one that names a line of the file."""
    vendor = data.draw(st.sampled_from(("stripe", "adyen")))
    good = a_file(STRIPE_COLUMNS, CHARGE, CHARGE) if vendor == "stripe" else a_file(ADYEN_COLUMNS, SETTLED, SETTLED)
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 40))
    put = data.draw(
        st.one_of(st.binary(max_size=40), st.text('",\r\n\0;-.0123456789=éE', max_size=20).map(str.encode))
    )
    stream = io.BytesIO(good[:at] + put + good[at + cut :])
    try:
        if vendor == "stripe":
            list(settlement_stripe.read(stream, livemode=False))
        else:
            list(settlement_adyen.read(stream, merchant_account=ACCOUNT))
    except SettlementFileError as refused:
        error = refused
    else:
        return
    # Three lines, and what stands behind the last of them.
    assert 1 <= error.line <= 4 + put.count(b"\n") + put.count(b"\r")
