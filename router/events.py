"""What others are told of a payment's event: CloudEvents 1.0 as JSON, and its published schema. Pure.

Told are the payment as that event left it, and one word for what happened; never a card, a token, a customer or what
checkout put into `metadata`. The id is the payment's and its version, `pay_…:3`: whoever gets an event twice knows it
by its id, and whoever keeps the greatest version of each payment needs to remember nothing else.

The schema only grows: a field or a type may be added under the same `dataschema`; what changes or goes gets a new
one. Sources: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its JSON format.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.ledger.event_feed import FeedEvent

SchemaId = Literal["urn:pointsman:schema:payment-event:1"]
SCHEMA_ID: SchemaId = "urn:pointsman:schema:payment-event:1"
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
SOURCE = "/pointsman"
PREFIX = "pointsman.payment."

STATUSES = ("processing", "requires_action", "authorized", "captured", "declined", "parked", "failed", "canceled")
KINDS = ("dead_lettered", "redriven")
"""What is told by the router's own word for it: nothing that is told of the payment changes."""
WORDS = ("created", *STATUSES, *KINDS, "refunded", "refund_undone", "disputed", "updated")
"""Not enforced on what is sent: a status that a later version adds must not hold up the feed."""


class PaymentData(BaseModel):
    """A payment as one event left it."""

    model_config = ConfigDict(frozen=True)

    payment: str = Field(description="The payment's id, pay_…")
    version: int = Field(ge=1, description="1, 2, 3… for each payment, without a gap")
    reference: str = Field(description="Checkout's own, such as its order number")
    merchant: str
    status: str = Field(examples=list(STATUSES), description="More may be added")
    amount: int = Field(description="Minor units of the currency by ISO 4217, as every amount here")
    amount_captured: int
    amount_refunded: int
    capture_pending: bool = Field(description="Captured by the provider's first word; its confirmation is to come")
    currency: str = Field(description="ISO 4217, three letters")
    provider: str | None = Field(description="Who has it, or had it last")
    decline_class: str | None = Field(description="soft, hard, fraud, authentication or invalid")


class PaymentEvent(BaseModel):
    """A CloudEvent about one payment."""

    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(description="The payment's id, a colon, and its version: the same whenever this event is sent")
    source: str = SOURCE
    type: str = Field(
        pattern=r"^pointsman\.payment\.[a-z_]+$",
        examples=[PREFIX + word for word in WORDS],
        description="What happened: where the payment went, else what became of its money, else `updated`: something"
        " that is not told. More may be added.",
    )
    subject: str = Field(description="The payment's id, by which events are kept in order")
    time: dt.datetime = Field(description="When it happened")
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: SchemaId = SCHEMA_ID
    data: PaymentData


class UntellableError(ValueError):
    """A row that no version of the router has written; never says what is in it."""


def payment_event(event: FeedEvent) -> PaymentEvent:
    """What is told of it. Raises UntellableError."""
    told: dict[str, Any] = {name: event.after.get(name) for name in _SAME_NAMES}
    decline = event.after.get("decline") or {}
    try:
        return PaymentEvent(
            id=f"{event.payment_id}:{event.version}",
            type=type_of(event),
            subject=event.payment_id,
            time=event.at,
            data=PaymentData(
                payment=event.payment_id,
                version=event.version,
                decline_class=decline.get("class") if isinstance(decline, Mapping) else None,
                **told,
            ),
        )
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors(include_input=False)}))
        raise UntellableError(f"wrong: {fields}") from None  # pydantic's own words hold the values


def type_of(event: FeedEvent) -> str:
    """What happened, as `type` says it; `created` is the first event of a payment that is on its way.

    Raises UntellableError.
    """
    try:
        return PREFIX + _word(event)
    except (KeyError, TypeError):
        raise UntellableError("what happened cannot be told of it") from None


def _word(event: FeedEvent) -> str:
    before, after = event.before, event.after
    if before.get("status") != after["status"]:
        if event.version == 1 and after["status"] == "processing":
            return "created"
        word: str = after["status"]
        return word
    if event.kind in KINDS:
        return event.kind
    if after["amount_refunded"] != before["amount_refunded"]:
        return "refunded" if after["amount_refunded"] > before["amount_refunded"] else "refund_undone"
    if after["amount_captured"] != before["amount_captured"]:
        return "captured"
    return "disputed" if after.get("dispute") != before.get("dispute") else "updated"


def body_of(event: FeedEvent) -> bytes:
    """The event as it is sent: JSON in UTF-8, of CONTENT_TYPE."""
    return payment_event(event).model_dump_json().encode()


def schema() -> dict[str, Any]:
    """The JSON schema of what `body_of` gives, for whoever reads it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **PaymentEvent.model_json_schema(mode="serialization"),
    }


_SAME_NAMES = tuple(sorted(set(PaymentData.model_fields) - {"payment", "version", "decline_class"}))
