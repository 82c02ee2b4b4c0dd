"""Stripe's request parameters: bracketed forms, the names each call knows, amounts and currencies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from providers.sandbox.stripe_errors import invalid_parameter, missing_parameter, unknown_parameter
from providers.sandbox.words import words

MAX_AMOUNT = 99_999_999  # eight digits, at every currency

CREATE = words(
    "allowed_payment_method_types amount amount_details application_fee_amount automatic_payment_methods "
    "capture_method confirm confirmation_method confirmation_token currency customer customer_account description "
    "error_on_requires_action excluded_payment_method_types expand hooks mandate mandate_data metadata off_session "
    "on_behalf_of payment_details payment_method payment_method_configuration payment_method_data "
    "payment_method_options radar_options receipt_email return_url setup_future_usage shipping "
    "statement_descriptor statement_descriptor_suffix transfer_data transfer_group use_stripe_sdk"
)
CONFIRM = words(
    "allowed_payment_method_types amount_details capture_method confirmation_token error_on_requires_action "
    "excluded_payment_method_types expand hooks mandate mandate_data off_session payment_details payment_method "
    "payment_method_data payment_method_options radar_options receipt_email return_url setup_future_usage shipping "
    "use_stripe_sdk"
)
CAPTURE = words(
    "amount_details amount_to_capture application_fee_amount expand final_capture hooks metadata payment_details "
    "statement_descriptor statement_descriptor_suffix transfer_data"
)
CANCEL = frozenset(("cancellation_reason", "expand"))
REFUND = words(
    "amount charge currency customer expand instructions_email metadata origin payment_intent reason "
    "refund_application_fee reverse_transfer"
)
RETRIEVE = frozenset(("client_secret", "expand"))
LIST = frozenset(("created", "customer", "customer_account", "ending_before", "expand", "limit", "starting_after"))

EXPANDABLE = ("latest_charge", "latest_charge.balance_transaction")

CURRENCIES = words(
    "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf "
    "clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils "
    "inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk "
    "mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp "
    "sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar "
    "zmw"
)
# Currencies that lost their decimals but keep two digits here, and those with three digits, the last always 0.
_MULTIPLES = {"isk": 100, "ugx": 100, "bhd": 10, "jod": 10, "kwd": 10, "omr": 10, "tnd": 10}
_KEY_PARTS = re.compile(r"[^\[\]]+|(?<=\[)(?=\])")

Params = dict[str, Any]


def pairs(form: str) -> list[tuple[str, str]]:
    """The form's names and values, as sent."""
    return parse_qsl(form, keep_blank_values=True)


def nest(flat: Sequence[tuple[str, str]]) -> Params:
    """`a[b]=1` as `{"a": {"b": "1"}}`; list items under their position, as strings."""
    root: Params = {}
    for name, value in flat:
        if "[" not in name:
            root[name] = value
            continue
        parts = _KEY_PARTS.findall(name)
        level = root
        for part in parts[:-1]:
            below = level.setdefault(part, {})
            if not isinstance(below, dict):
                raise invalid_parameter(str(parts[0]), f"Invalid hash: {parts[0]}")
            level = below
        level[parts[-1] or str(len(level))] = value
    return root


def only(params: Params, known: frozenset[str]) -> None:
    """Refuse the first parameter that the call does not know."""
    for name in params:
        if name not in known:
            raise unknown_parameter(name)


def text(params: Params, name: str) -> str | None:
    """A string parameter; None where absent or empty."""
    value = params.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid_parameter(name, f"Invalid string: {name}")
    return value or None


def hash_of(params: Params, name: str) -> dict[str, str]:
    """A hash parameter; empty where absent."""
    value = params.get(name) or {}
    if not isinstance(value, dict):
        raise invalid_parameter(name, "Invalid hash", "parameter_invalid_hash")
    return value


def expand(params: Params) -> Sequence[str]:
    """What an intent's answer is to show in full; refused where it cannot."""
    paths = tuple(hash_of(params, "expand").values())
    for path in paths:
        if path not in EXPANDABLE:
            raise invalid_parameter("expand", f"This property cannot be expanded ({path}).")
    return paths


def boolean(params: Params, name: str, *, within: str | None = None) -> bool:
    """A boolean parameter, or one within a hash of that name; false where absent."""
    value = params.get(name, "false")
    if value not in ("true", "false"):
        full = name if within is None else f"{within}[{name}]"
        raise invalid_parameter(full, f"Invalid boolean: {value}", "parameter_invalid_boolean")
    return bool(value == "true")


def integer(params: Params, name: str, *, low: int, high: int) -> int | None:
    """An integer parameter within bounds; None where absent."""
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]+", value):
        raise invalid_parameter(name, f"Invalid integer: {value}", "parameter_invalid_integer")
    number = int(value)
    if number < low:
        message = f"This value must be greater than or equal to {low}."
        raise invalid_parameter(name, message, "parameter_invalid_integer")
    if number > high:
        code = "amount_too_large" if high == MAX_AMOUNT else "parameter_invalid_integer"
        raise invalid_parameter(name, f"This value must be less than or equal to {high}.", code)
    return number


def currency(params: Params) -> str:
    """The `currency`, in small letters; refused where Stripe does not support it."""
    value = text(params, "currency")
    if value is None:
        raise missing_parameter("currency")
    if value.lower() not in CURRENCIES:
        raise invalid_parameter("currency", f"Invalid currency: {value.lower()}. Stripe does not support it.")
    return value.lower()


def amount(params: Params, name: str, in_currency: str) -> int | None:
    """An amount in Stripe's minor units, by the rules of its currency; None where absent."""
    value = integer(params, name, low=1, high=MAX_AMOUNT)
    multiple = _MULTIPLES.get(in_currency, 1)
    if value is not None and value % multiple:
        message = (
            f"Invalid amount. Amounts in {in_currency.upper()} must be evenly divisible by {multiple}. "
            "See https://stripe.com/docs/currencies#special-cases for more information."
        )
        raise invalid_parameter(name, message, "parameter_invalid_integer")
    return value
