"""The usual way of a payment, end to end, on both databases."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import sqlalchemy as sa

from providers.contract import Params
from router.api.views import PaymentList, PaymentView
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, Spy, order

pytestmark = pytest.mark.either_database

PUBLISHED_FIELDS = {
    *("id", "status", "reference", "amount", "currency", "amount_captured", "amount_refunded", "provider"),
    *("decline", "next_action", "attempts", "decision", "created_at"),
}
"""What design §6 promises checkout."""


@pytest.mark.parametrize("primary", ["stripe", "adyen"])
def test_a_payment_is_captured_by_the_primary_and_stands_in_its_books_once(shops: OpenShop, primary: str) -> None:
    """201, captured by the flag's provider: one charge, same amount, same reference, and nothing at the other."""
    shop = shops(flags={"payments-primary-provider": primary})
    answer = shop.pay(reference="ORD-12345")
    assert answer.status_code == 201, answer.text
    assert answer.json is not None
    assert (answer.json["status"], answer.json["provider"]) == ("captured", primary)
    assert shop.charged("ORD-12345") == [(primary, "captured", 1999)]
    charge = shop.charges(primary)[0]
    assert charge["attempt"] == charge["idempotency_key"] == answer.json["attempts"][0]["id"]


def test_the_answer_is_the_published_shape(shop: Shop) -> None:
    """The body is what the OpenAPI model and the design say, on creation and when read again."""
    answer = shop.pay()
    body = answer.json
    assert body is not None
    PaymentView.model_validate(body, extra="forbid")
    assert body.keys() >= PUBLISHED_FIELDS
    assert (body["amount_captured"], body["amount_refunded"], body["decline"]) == (1999, 0, None)
    assert body["created_at"].endswith("Z")
    assert body["attempts"][0]["provider_reference"] == shop.charges("stripe")[0]["id"]
    assert answer.headers["Location"] == f"/v1/payments/{body['id']}"
    assert shop.send("GET", answer.headers["Location"]).json == body


def test_a_manual_capture_is_authorized_only(shops: OpenShop) -> None:
    """`capture: manual` ends authorized at either provider, with nothing captured."""
    for primary in ("stripe", "adyen"):
        shop = shops(flags={"payments-primary-provider": primary})
        answer = shop.pay(capture="manual", reference=f"manual-{primary}")
        assert answer.status_code == 201
        assert answer.json is not None
        assert (answer.json["status"], answer.json["amount_captured"]) == ("authorized", 0)
        assert shop.charged(f"manual-{primary}") == [(primary, "authorized", 1999)]


def test_a_customer_who_must_authenticate_is_sent_on(shops: OpenShop) -> None:
    """3-D Secure is asked for: 201 requires_action, with where the customer's browser must go."""
    shop = shops()
    tokens = {"stripe": "pm_card_threeDSecure2Required", "adyen": "adyen_sandbox_REDIRECT_SHOPPER"}
    method = {"type": "card", "tokens": tokens}
    answer = shop.pay(payment_method=method)
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json["status"] == "requires_action"
    assert answer.json["next_action"]["type"] in {"redirect", "sdk"}
    assert shop.charges("adyen") == []
    PaymentView.model_validate(shop.read(answer.json["id"]), extra="forbid")


def test_payments_are_found_by_reference_a_page_at_a_time(shop: Shop) -> None:
    """Newest first, 20 a page, each once; the cursor of the last page is null."""
    made = [
        shop.pay(reference="same", allow_repeat_reference=True, when_unavailable="park").json or {} for _ in range(23)
    ]
    first = shop.send("GET", "/v1/payments?reference=same").json or {}
    PaymentList.model_validate(first)
    assert len(first["payments"]) == 20
    second = shop.send("GET", f"/v1/payments?reference=same&cursor={first['next']}").json or {}
    assert second["next"] is None
    found = [each["id"] for each in first["payments"] + second["payments"]]
    assert sorted(found) == sorted(each["id"] for each in made)
    stamps = [each["created_at"] for each in first["payments"] + second["payments"]]
    assert stamps == sorted(stamps, reverse=True)
    assert shop.send("GET", "/v1/payments?reference=other").json == {"payments": [], "next": None}


def test_another_merchant_does_not_see_the_payment(shop: Shop) -> None:
    """A key reads its own merchant's payments only: 404, not 403, so that not even existence is told."""
    payment = shop.pay(reference="mine").json or {}
    other = shop.add_key("key-of-another-merchant", merchant="other")
    answer = shop.send("GET", f"/v1/payments/{payment['id']}", api_key=other)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert shop.send("GET", "/v1/payments?reference=mine", api_key=other).json == {"payments": [], "next": None}
    assert shop.pay(reference="mine", api_key=other).status_code == 201


def test_the_usual_payment_costs_two_commits(shop: Shop) -> None:
    """One that creates it with its attempt started, one that ends it. What the process's loops write is not its."""
    commits: Counter[str] = Counter()
    own = threading.get_ident()

    @sa.event.listens_for(shop.core.database.engine, "commit")
    def _count(connection: sa.Connection) -> None:
        if threading.get_ident() == own:
            commits["write" if connection.get_execution_options().get("ledger_write") else "read"] += 1

    assert shop.pay().status_code == 201
    assert commits["write"] == 2


def test_no_transaction_is_open_while_a_provider_is_called(shops: OpenShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that calls a provider has ended every transaction it began.

    Counted by who asked for it: on SQLite another thread's commit may be made by this one (`shared_commits`).
    """
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    open_now: Counter[int] = Counter()
    database, begun = shop.core.database, 0

    def counted(open_one: Callable[[], AbstractContextManager[sa.Connection]]) -> Callable[[], Any]:
        @contextlib.contextmanager
        def transaction() -> Iterator[sa.Connection]:
            nonlocal begun
            begun += 1
            open_now[threading.get_ident()] += 1
            try:
                with open_one() as connection:
                    yield connection
            finally:
                open_now[threading.get_ident()] -= 1

        return transaction

    for name in ("write", "read", "look"):
        monkeypatch.setattr(database, name, counted(getattr(database, name)))
    seen: list[int] = []
    found[0].before.append(lambda *_: seen.append(open_now[threading.get_ident()]))
    assert shop.pay().status_code == 201
    assert seen == [0]
    assert begun >= 3
    assert open_now[threading.get_ident()] == 0


def test_the_attempt_is_committed_before_the_call_with_what_is_sent(shops: OpenShop) -> None:
    """A second connection reads, during the call, the started attempt with its key and exact parameters."""
    found: list[Spy] = []
    shop = shops(spies={"stripe": found})
    seen: list[dict[str, Any]] = []
    sent: list[tuple[str, Params]] = []

    def look(key: str, params: Params) -> None:
        sent.append((key, params))
        seen.extend(shop.rows("SELECT * FROM attempts JOIN payments ON payments.id = attempts.payment_id"))

    found[0].before.append(look)
    answer = shop.pay()
    (row,) = seen
    stored = shop.core.payments.get("default", (answer.json or {})["id"])
    assert stored is not None
    assert (row["outcome"], row["status"], row["finished_at"]) == (None, "processing", None)
    assert sent == [(row["idempotency_key"], shop.core.ledger.params_of(stored.attempts[0]))]
    assert row["lease_holder"] is not None


def test_the_decision_is_kept_with_its_reasons(shop: Shop) -> None:
    """The candidates stand in the order they would be tried, the primary first."""
    decision = (shop.pay().json or {})["decision"]
    assert (decision["strategy"], decision["primary"]) == ("primary-first", "stripe")
    assert [each["provider"] for each in decision["candidates"]] == ["stripe", "adyen"]
    assert "primary" in decision["candidates"][0]["reasons"]


def test_a_disabled_provider_gets_no_payment(shops: OpenShop) -> None:
    """The kill switch is obeyed even for the primary, and the decision says so."""
    shop = shops(flags={"payments-provider-stripe-enabled": False})
    answer = shop.pay(order(reference="off")).json or {}
    assert shop.charged("off") == [("adyen", "captured", 1999)]
    assert shop.charges("stripe") == []
    stripe = next(each for each in answer["decision"]["candidates"] if each["provider"] == "stripe")
    assert stripe["eligible"] is False
    assert "disabled by flag" in stripe["reasons"]
