"""*Sandbox*: a store to pay in with test cards, and buttons that break the stand-in providers."""

from __future__ import annotations

import structlog
from flask import Blueprint, redirect, render_template, request, url_for
from pydantic import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from router.console.parts import Parts, refuse, require
from router.console.stand_ins import CARDS, MODES, SandboxAwayError, StandIns
from router.ledger.console import Wanted
from router.order import Order
from router.payments import PaymentRefusedError

log = structlog.get_logger("router.console")

GOODS = (("coffee", "Coffee, 1 kg", 1999, "EUR"), ("bicycle", "Bicycle", 64900, "EUR"), ("book", "Book", 1450, "GBP"))
"""Key, name, minor units, currency."""
ORDERS_SHOWN = 8


def add(pages: Blueprint, parts: Parts, stand_ins: StandIns) -> None:
    """The page and its two kinds of buttons; only for stand-ins on this machine."""

    @pages.get("/sandbox")
    def sandbox() -> str:
        session = require("payments", "operate")
        try:
            found, away = stand_ins.all(), None
        except SandboxAwayError as error:
            found, away = [], str(error)
        return render_template(
            "console/sandbox.html",
            goods=GOODS,
            cards=CARDS,
            modes=MODES,
            stand_ins=found,
            away=away,
            rows=parts.ledger.page(Wanted(session.merchant), limit=ORDERS_SHOWN),
        )

    @pages.post("/sandbox/order")
    def order() -> BaseResponse:
        session = require("payments")
        goods = {each[0]: each for each in GOODS}.get(request.form.get("goods", ""))
        card = CARDS.get(request.form.get("card", ""))
        if goods is None or card is None:
            refuse(422, "This cannot be taken", "goods, card: choose one of each")
        body = {
            "reference": "STORE-" + parts.ids.new("ref").removeprefix("ref_").upper(),
            "amount": goods[2],
            "currency": goods[3],
            "payment_method": {
                "type": "card",
                "tokens": dict(card.tokens),
                "card": {"brand": card.brand, "country": "DE", "funding": "credit"},
            },
            "customer": {"id": "shopper", "country": "DE"},
            "return_url": "https://shop.example/return",
            "metadata": {"goods": goods[1], "from": "the console's store"},
        }
        try:
            answer = parts.payments.create(
                Order.model_validate(body), merchant=session.merchant, key=parts.ids.new("store")
            )
        except PaymentRefusedError as error:
            refuse(409, "The order was refused", f"Nothing was charged: {type(error).__name__}.")
        except ValidationError:
            refuse(422, "This cannot be taken", "The order is not one.")
        return redirect(url_for("console.payment", payment_id=answer.payment.id), code=303)

    @pages.post("/sandbox/<provider>")
    def break_provider(provider: str) -> BaseResponse:
        session = require("operate")
        mode = request.form.get("mode", "")
        if provider not in parts.providers or mode not in MODES:
            refuse(422, "This cannot be taken", "mode: is not one of these")
        try:
            stand_ins.set(provider, mode)
        except SandboxAwayError as error:
            refuse(503, "The sandbox is away", f"{error}.".capitalize())
        log.warning("sandbox", provider=provider, mode=mode, by=session.label)
        return redirect(url_for("console.sandbox"), code=303)
