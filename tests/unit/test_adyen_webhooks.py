"""What is believed of a delivery to `/webhooks/adyen`, item by item, and what it then says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import pytest
from Adyen.util import generate_notification_sig, is_valid_hmac_notification
from hypothesis import given
from hypothesis import strategies as st

from providers.adyen import AdyenProvider
from providers.contract import (
    DeclineClass,
    Health,
    Money,
    Notice,
    NoticeKind,
    Outcome,
    OutcomeKind,
    WebhookRefusedError,
)
from providers.webhooks import MAX_BODY_BYTES

KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
OLD_KEY = "00" * 32
OTHER_KEY = "11" * 32
NOW = dt.datetime(2026, 11, 21, 2, 3, 4, tzinfo=dt.UTC)
PSP, PAYMENT = "QFQTPCQ8HXSKGK82", "NC6HT9CRT65ZGN82"


def provider(*keys: str) -> AdyenProvider:
    """An adapter that believes these keys."""
    return AdyenProvider(
        api_key="k",
        merchant_account="Shop",
        base_url="http://127.0.0.1:1",
        default_return_url="https://shop.example/",
        hmac_keys=keys,
    )


PROVIDER = provider(KEY, OLD_KEY)


def item(event: str, *, key: str = KEY, extra: dict[str, Any] | None = None, **change: Any) -> dict[str, Any]:
    """An item as Adyen sends it, signed by its SDK's own hand."""
    found: dict[str, Any] = {
        "amount": {"currency": "EUR", "value": 1999},
        "eventCode": event,
        "eventDate": "2026-11-21T03:03:04+01:00",
        "merchantAccountCode": "Shop",
        "merchantReference": "cap_key",
        "originalReference": PAYMENT,
        "pspReference": PSP,
        "reason": "",
        "success": "true",
        **change,
    }
    found = {name: value for name, value in found.items() if value is not None}
    signature = generate_notification_sig(found, key).decode()
    return {"NotificationRequestItem": {**found, "additionalData": {**(extra or {}), "hmacSignature": signature}}}


def authorisation(**change: Any) -> dict[str, Any]:
    """Of our first attempt."""
    return item(
        "AUTHORISATION",
        **{"pspReference": PAYMENT, "originalReference": None, "merchantReference": "att_1", **change},
    )


def delivery(*items: object) -> bytes:
    """A batch."""
    return json.dumps({"live": "false", "notificationItems": items}).encode()


def read(*items: object) -> Sequence[Notice]:
    """The notices of a batch."""
    return PROVIDER.read_webhook({}, delivery(*items), now=NOW)


def told(found: object) -> Notice:
    """The one notice of one item."""
    [notice] = read(found)
    return notice


# ---------------------------------------------------------------- what is believed


def test_every_item_of_a_batch_is_read_in_its_order() -> None:
    """Two payments and a capture in one delivery."""
    notices = read(authorisation(), item("CAPTURE"), authorisation(pspReference="Z", merchantReference="att_2"))
    assert [(notice.name, notice.attempt_id) for notice in notices] == [
        ("AUTHORISATION", "att_1"),
        ("CAPTURE", None),
        ("AUTHORISATION", "att_2"),
    ]


def test_either_key_of_a_rotation_is_good() -> None:
    """Item by item: a batch can hold both."""
    assert len(read(authorisation(key=OLD_KEY), item("CAPTURE", key=KEY))) == 2


def test_a_forged_second_item_takes_the_whole_batch_down() -> None:
    """Which the SDK's helper would let through: it looks at the first item only."""
    forged = authorisation(key=OTHER_KEY, merchantReference="att_2")
    batch = json.loads(delivery(authorisation(), forged))
    assert is_valid_hmac_notification(batch, KEY)
    with pytest.raises(WebhookRefusedError, match="signature is not Adyen's"):
        read(authorisation(), forged)


SIGNED = {
    "pspReference": "X",
    "originalReference": "X",
    "merchantAccountCode": "Other",
    "merchantReference": "att_2",
    "amount": {"currency": "EUR", "value": 1},
    "eventCode": "REFUND",
    "success": "false",
}


@pytest.mark.parametrize("name", SIGNED)
def test_a_changed_field_is_a_forgery(name: str) -> None:
    """Each of the signed ones."""
    found = item("CAPTURE")
    found["NotificationRequestItem"][name] = SIGNED[name]
    with pytest.raises(WebhookRefusedError):
        read(found)


def test_a_colon_cannot_be_moved_from_one_field_into_another() -> None:
    """The signature joins its fields by colons: two items must not read the same."""
    honest = item("CAPTURE", originalReference="A", merchantAccountCode="Shop", merchantReference="Shop:x")
    moved = item("CAPTURE", originalReference="A:Shop", merchantAccountCode="Shop", merchantReference="x")
    first, second = (one["NotificationRequestItem"]["additionalData"]["hmacSignature"] for one in (honest, moved))
    assert first == second
    assert told(honest).operation_key == "Shop:x"
    with pytest.raises(WebhookRefusedError, match="misshapen"):
        read(moved)


def test_another_merchant_account_is_refused_even_if_it_is_signed() -> None:
    """A company's accounts can share a key."""
    with pytest.raises(WebhookRefusedError, match="another merchant account"):
        read(authorisation(), item("CAPTURE", merchantAccountCode="OtherShop"))


def test_without_a_key_nothing_is_believed() -> None:
    """Not even a batch without signatures."""
    with pytest.raises(WebhookRefusedError, match="no HMAC key"):
        provider().read_webhook({}, delivery(authorisation()), now=NOW)


@pytest.mark.parametrize("keys", [("",), ("not hex" * 8,), (KEY, "abc"), ("ab",)])
def test_a_key_that_is_none_stops_the_start(keys: tuple[str, ...]) -> None:
    """A wrong setting is told at once, not with the first webhook."""
    with pytest.raises(ValueError, match="HMAC keys"):
        provider(*keys)


def changed(**change: object) -> dict[str, Any]:
    """A signed capture whose item was changed after that."""
    found = item("CAPTURE")
    return {"NotificationRequestItem": {**found["NotificationRequestItem"], **change}}


SENSELESS: dict[str, bytes] = {
    "not JSON": b"{",
    "a list": b"[]",
    "not UTF-8": b"\xff",
    "NaN": b'{"notificationItems": [NaN]}',
    "a name twice": b'{"notificationItems": [], "notificationItems": []}',
    "too deep": b"[" * 100_000,
    "no items": delivery(),
    "items that are none": b'{"notificationItems": {}}',
    "an item that is none": delivery(1),
    "an unwrapped item": delivery(item("CAPTURE")["NotificationRequestItem"]),
    "a good one, and none": delivery(item("CAPTURE"), {}),
    "no additional data": delivery(changed(additionalData=None)),
    "no signature": delivery(changed(additionalData={})),
    "an empty signature": delivery(changed(additionalData={"hmacSignature": ""})),
    "a signature that is no text": delivery(changed(additionalData={"hmacSignature": 1})),
    "a signature that is not ASCII": delivery(changed(additionalData={"hmacSignature": "é"})),
    "half a surrogate": delivery(changed(merchantReference="\ud800")),
    "a success that is none": delivery(changed(success=True)),
    "an amount that is none": delivery(changed(amount={"currency": "EUR", "value": "1999"})),
    "an amount of true": delivery(changed(amount={"currency": "EUR", "value": True})),
    "an authorisation of nothing": delivery(authorisation(pspReference="")),
}


@pytest.mark.parametrize("what", SENSELESS)
def test_senseless_deliveries_are_refused(what: str) -> None:
    """By a WebhookRefusedError, and nothing else."""
    with pytest.raises(WebhookRefusedError):
        PROVIDER.read_webhook({}, SENSELESS[what], now=NOW)


def test_a_huge_body_is_not_even_looked_at() -> None:
    """Hashing and parsing it is work that anybody could give us."""
    with pytest.raises(WebhookRefusedError, match="too large"):
        PROVIDER.read_webhook({}, b" " * (MAX_BODY_BYTES + 1), now=NOW)


@given(body=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_a_refusal(body: bytes) -> None:
    """Anybody can send us anything."""
    with pytest.raises(WebhookRefusedError):
        PROVIDER.read_webhook({}, body, now=NOW)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = "amount eventCode merchantAccountCode merchantReference originalReference pspReference success additionalData"


@given(found=st.dictionaries(st.sampled_from(NAMES.split()), JSON, max_size=8))
def test_arbitrary_items_raise_nothing_but_a_refusal(found: dict[str, Any]) -> None:
    """Of any shape, with a signature that is none."""
    found.setdefault("additionalData", {"hmacSignature": "AAAA"})
    with pytest.raises(WebhookRefusedError):
        PROVIDER.read_webhook({}, delivery({"NotificationRequestItem": found}), now=NOW)


@given(
    event=st.sampled_from(["AUTHORISATION", "CANCELLATION", "CAPTURE", "CANCEL_OR_REFUND", "CHARGEBACK", "NEW_ONE"]),
    success=st.sampled_from(["true", "false"]),
    reference=st.text(max_size=20),
    reason=JSON,
    extra=st.dictionaries(st.sampled_from(["refusalReasonRaw", "modification.action", "merchantAdviceCode"]), JSON),
)
def test_whatever_stands_beside_the_signature_raises_nothing(
    event: str, success: str, reference: str, reason: Any, extra: dict[str, Any]
) -> None:
    """The reason and the additional data are not signed."""
    found = item(event, success=success, merchantReference=reference, extra=extra)
    found["NotificationRequestItem"]["reason"] = reason
    assert told(found).name == event


# ---------------------------------------------------------------- what it says


def test_an_approval_names_our_attempt_and_the_payment() -> None:
    """Whether it is captured is not said: the router knows how it was sent."""
    assert told(authorisation(reason="123456:1111:03/2030")) == Notice(
        f"AUTHORISATION:{PAYMENT}:-:true",
        NoticeKind.ATTEMPT,
        "AUTHORISATION",
        attempt_id="att_1",
        provider_reference=PAYMENT,
        money=Money(1999, "EUR"),
        outcome=Outcome(OutcomeKind.APPROVED, Health.OK, provider_reference=PAYMENT),
    )


@pytest.mark.parametrize(
    ("reason", "code", "decline_class", "known"),
    [
        ("Refused", "generic_decline", DeclineClass.SOFT, True),
        ("Not enough balance", "insufficient_funds", DeclineClass.SOFT, True),
        ("BLOCKED CARD", "restricted_card", DeclineClass.HARD, True),
        ("FRAUD", "fraudulent", DeclineClass.FRAUD, True),
        ("3D Not Authenticated", "authentication_required", DeclineClass.AUTHENTICATION, True),
        ("Something new", "refusal_unknown", DeclineClass.SOFT, False),
    ],
)
def test_a_refusal_says_why(reason: str, code: str, decline_class: DeclineClass, known: bool) -> None:
    """In words here, in numbers in the answer; the same declines."""
    extra = {"refusalReasonRaw": "05 : Do not honor"}
    outcome = told(authorisation(success="false", reason=reason, extra=extra)).outcome
    assert outcome is not None
    assert outcome.decline is not None
    assert (outcome.kind, outcome.provider_reference) == (OutcomeKind.DECLINED, PAYMENT)
    assert (outcome.decline.code, outcome.decline.decline_class) == (code, decline_class)
    assert (outcome.decline.known, outcome.decline.network_code) == (known, "05")


@pytest.mark.parametrize(
    ("brand", "decline_class"), [("visa", DeclineClass.SOFT), ("mc", DeclineClass.HARD), (None, DeclineClass.HARD)]
)
def test_a_merchant_advice_code_is_read_by_the_notifications_brand(
    brand: str | None, decline_class: DeclineClass
) -> None:
    """It is Mastercard's, and no advice of another network's card."""
    more = {} if brand is None else {"paymentMethod": brand}
    found = authorisation(
        success="false", reason="Refused", extra={"merchantAdviceCode": "03 : Do not try again"}, **more
    )
    outcome = told(found).outcome
    assert outcome is not None
    assert outcome.decline is not None
    assert outcome.decline.decline_class is decline_class


def test_an_acquirers_fault_is_no_decline() -> None:
    """It answered that there is no authorization."""
    outcome = told(authorisation(success="false", reason="Acquirer Error")).outcome
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.NOT_EXECUTED, "acquirer_error")
    assert outcome.final_record  # it ends the doubt that a lost answer left


CANCELED = Outcome(OutcomeKind.CANCELED, Health.OK, provider_reference=PAYMENT)


def test_a_cancel_is_a_confirmed_void_of_the_original_payment() -> None:
    """And names our operation."""
    assert told(item("CANCELLATION", merchantReference="void_key")) == Notice(
        f"CANCELLATION:{PSP}:{PAYMENT}:true",
        NoticeKind.ATTEMPT,
        "CANCELLATION",
        provider_reference=PAYMENT,
        operation_key="void_key",
        modification_reference=PSP,
        money=Money(1999, "EUR"),
        outcome=CANCELED,
    )


def test_a_technical_cancel_carries_the_payments_own_reference() -> None:
    """That is our attempt, and not the key of the cancel (by Adyen's own example)."""
    assert told(item("TECHNICAL_CANCEL", merchantReference="att_1")) == Notice(
        f"TECHNICAL_CANCEL:{PSP}:{PAYMENT}:true",
        NoticeKind.ATTEMPT,
        "TECHNICAL_CANCEL",
        attempt_id="att_1",
        provider_reference=PAYMENT,
        modification_reference=PSP,
        money=Money(1999, "EUR"),
        outcome=CANCELED,
    )


def test_a_technical_cancel_that_found_nothing_proves_nothing() -> None:
    """The authorization may still be on its way."""
    notice = told(
        item(
            "TECHNICAL_CANCEL",
            merchantReference="att_1",
            originalReference=None,
            success="false",
            reason="Original payment not found",
        )
    )
    assert (notice.kind, notice.outcome) == (NoticeKind.VOID_FAILED, None)
    assert (notice.attempt_id, notice.provider_reference) == ("att_1", None)
    assert notice.reason == "original_payment_not_found"


@pytest.mark.parametrize(
    ("event", "success", "extra", "kind"),
    [
        ("CANCELLATION", "false", {}, NoticeKind.VOID_FAILED),
        ("CAPTURE", "true", {}, NoticeKind.CAPTURED),
        ("CAPTURE", "false", {}, NoticeKind.CAPTURE_FAILED),
        ("CAPTURE_FAILED", "true", {}, NoticeKind.CAPTURE_FAILED),
        ("REFUND", "true", {}, NoticeKind.REFUNDED),
        ("REFUND", "false", {}, NoticeKind.REFUND_FAILED),
        ("REFUND_FAILED", "true", {}, NoticeKind.REFUND_FAILED),
        ("REFUNDED_REVERSED", "true", {}, NoticeKind.REFUND_FAILED),
        ("CANCEL_OR_REFUND", "true", {"modification.action": "cancel"}, NoticeKind.ATTEMPT),
        ("CANCEL_OR_REFUND", "false", {"modification.action": "cancel"}, NoticeKind.VOID_FAILED),
        ("CANCEL_OR_REFUND", "true", {"modification.action": "refund"}, NoticeKind.REFUNDED),
        ("CANCEL_OR_REFUND", "false", {"modification.action": "refund"}, NoticeKind.REFUND_FAILED),
        ("CANCEL_OR_REFUND", "true", {}, NoticeKind.OTHER),
    ],
)
def test_a_modification_names_operation_payment_and_itself(
    event: str, success: str, extra: dict[str, Any], kind: NoticeKind
) -> None:
    """By our key, the payment's pspReference and its own."""
    notice = told(item(event, success=success, extra=extra, reason="Insufficient balance on payment"))
    assert notice.kind is kind
    assert (notice.operation_key, notice.provider_reference) == ("cap_key", PAYMENT)
    assert (notice.modification_reference, notice.money) == (PSP, Money(1999, "EUR"))
    failed = kind in (NoticeKind.CAPTURE_FAILED, NoticeKind.REFUND_FAILED, NoticeKind.VOID_FAILED)
    assert notice.reason == ("insufficient_balance_on_payment" if failed else None)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("NOTIFICATION_OF_CHARGEBACK", "opened"),
        ("CHARGEBACK", "opened"),
        ("CHARGEBACK_REVERSED", "won"),
        ("SECOND_CHARGEBACK", "lost"),
        ("PREARBITRATION_LOST", "lost"),
        ("DISPUTE_DEFENSE_PERIOD_ENDED", "lost"),
    ],
)
def test_a_dispute_says_how_it_stands(event: str, reason: str) -> None:
    """It carries the payment's reference, which is our attempt."""
    notice = told(item(event, merchantReference="att_1"))
    assert (notice.kind, notice.reason) == (NoticeKind.DISPUTE, reason)
    assert (notice.attempt_id, notice.provider_reference, notice.operation_key) == ("att_1", PAYMENT, None)


@pytest.mark.parametrize("event", ["REPORT_AVAILABLE", "NOTIFICATION_OF_FRAUD", "EXPIRE", "SOMETHING_NEW"])
def test_anything_else_moves_nothing(event: str) -> None:
    """Reports have file names for references."""
    notice = told(item(event, pspReference="settlement_detail_report_batch_12.csv", originalReference=None))
    assert (notice.kind, notice.provider_reference, notice.money) == (NoticeKind.OTHER, None, None)


@pytest.mark.parametrize(
    ("value", "currency", "money"),
    [(50000, "ISK", Money(500, "ISK")), (500, "IDR", Money(50000, "IDR")), (50001, "CLP", None), (-1, "EUR", None)],
)
def test_money_comes_back_in_iso_units(value: int, currency: str, money: Money | None) -> None:
    """And where it cannot, none is made up."""
    assert told(item("CAPTURE", amount={"currency": currency, "value": value})).money == money


# ---------------------------------------------------------------- the same thing, and another


def test_a_redelivery_has_the_same_id() -> None:
    """Whatever stands beside the signed fields: the date, the reason, the rest of the batch."""
    first = told(item("CAPTURE"))
    _, again = read(authorisation(), item("CAPTURE", eventDate="2026-11-22T00:00:00Z", reason="x", extra={"a": "b"}))
    assert first.id == again.id


def test_different_things_have_different_ids() -> None:
    """Of one payment, and of two; each fits into its column."""
    items = [
        authorisation(),
        authorisation(success="false"),
        authorisation(pspReference="A" * 16),
        item("CAPTURE"),
        item("CAPTURE", success="false"),
        item("CAPTURE_FAILED"),
        item("CAPTURE", pspReference="B" * 16),
        item("TECHNICAL_CANCEL", originalReference=None),
        item("TECHNICAL_CANCEL"),
        item("REPORT_AVAILABLE", pspReference="r" * 900),
        item("REPORT_AVAILABLE", pspReference="r" * 901),
    ]
    ids = [notice.id for notice in read(*items)]
    assert len(set(ids)) == len(items)
    assert max(map(len, ids)) <= 200


def test_the_sdk_signs_with_the_same_eight_fields() -> None:
    """Text beyond ASCII included; such a reference is not a key of ours."""
    assert told(item("CAPTURE", merchantReference="ä:ö")).operation_key is None
