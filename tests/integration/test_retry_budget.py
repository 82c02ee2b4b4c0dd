"""The networks' limits on retries, over the real SDKs and on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from router.ledger.cards import _TRIES
from router.retry_budget import card_digest
from tests.integration.conftest import OpenShop
from tests.integration.shop import Shop, order

pytestmark = pytest.mark.either_database

DECLINED = {"stripe": "pm_card_visa_chargeDeclined"}


def card(brand: str = "visa", fingerprint: str | None = "fp_of_one_card", **tokens: str) -> dict[str, Any]:
    """A payment method of that card."""
    known = {} if fingerprint is None else {"fingerprint": fingerprint}
    return {
        "type": "card",
        "tokens": tokens or {"stripe": "pm_card_visa", "adyen": "8415718415172204"},
        "card": {"brand": brand} | known,
    }


def test_the_sixteenth_try_of_a_visa_card_is_refused_and_leaves_nothing(shop: Shop) -> None:
    """422 with each provider's reason; no row, no call; another amount and another card go through."""
    for _ in range(15):
        answer = shop.pay(payment_method=card(**DECLINED))
        assert (answer.status_code, (answer.json or {})["status"]) == (201, "declined")
    before, charges = shop.counts(), len(shop.charges("stripe"))
    refused = shop.pay(payment_method=card(), key="same-again")
    problem: dict[str, Any] = refused.get_json(force=True)
    assert (refused.status_code, problem["type"]) == (422, "urn:pointsman:problem:no-eligible-provider")
    assert "network retry budget: Visa allows 15 tries of a card and amount in 30 days" in refused.text
    assert "fp_of_one_card" not in refused.text
    assert (shop.counts(), len(shop.charges("stripe"))) == (before, charges)
    assert (shop.pay(payment_method=card(), amount=2000).json or {})["status"] == "captured"
    assert (shop.pay(payment_method=card(fingerprint="fp_2")).json or {})["status"] == "captured"
    assert (shop.pay(payment_method=card(fingerprint=None), key="same-again").json or {})["status"] == "captured"


def test_a_stolen_card_is_tried_once(shop: Shop) -> None:
    """Whatever the amount and the provider."""
    shop.pay(payment_method=card("amex", stripe="pm_card_visa_chargeDeclinedStolenCard"))
    assert shop.pay(payment_method=card("amex"), amount=5).status_code == 422


def test_a_card_that_pays_every_day_is_never_refused(shop: Shop) -> None:
    """Twenty payments of one price, all captured."""
    answers = [shop.pay(payment_method=card()).json or {} for _ in range(20)]
    assert {each["status"] for each in answers} == {"captured"}


def test_the_fingerprint_is_kept_as_a_digest_with_its_attempts(shop: Shop) -> None:
    """And with the order, as checkout gave it; nowhere else."""
    shop.pay(payment_method=card())
    shop.pay(order(payment_method=card(fingerprint=None)))
    found = shop.rows("SELECT card FROM attempts ORDER BY started_at")
    assert [row["card"] for row in found] == [card_digest("default", "fp_of_one_card"), None]


def test_the_one_query_goes_by_its_index_on_both_databases(shops: OpenShop) -> None:
    """However many attempts there are, a card's own tries are all that is read."""
    shop = shops()
    shop.pay(payment_method=card(**DECLINED))
    compiled = str(_TRIES.compile(shop.core.database.engine, compile_kwargs={"literal_binds": False}))
    digest = card_digest("default", "fp_of_one_card")
    with shop.core.database.write() as connection:
        if shop.core.database.is_sqlite:
            sql = compiled.replace(" LIMIT ?", " LIMIT 100").replace(" OFFSET ?", "")
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", (digest,)).all())
            assert "SEARCH attempts USING INDEX ix_attempts_tries_of_card (card=?)" in plan
            assert "TEMP B-TREE" not in plan
        else:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            explain = sa.text(
                "EXPLAIN "
                + str(_TRIES.compile(shop.core.database.engine))
                .replace("%(card)s::VARCHAR", ":card")
                .replace("%(param_1)s::INTEGER", "100")
            )
            plan = str(connection.execute(explain, {"card": digest}).all())
            assert "ix_attempts_tries_of_card" in plan


@pytest.mark.parametrize("count", [9, 10])
def test_mastercard_counts_ten_tries_a_day(shop: Shop, count: int) -> None:
    """At whatever amounts."""
    for number in range(count):
        shop.pay(payment_method=card("mastercard", **DECLINED), amount=100 + number)
    answer = shop.pay(payment_method=card("mastercard"), amount=5000)
    assert answer.status_code == (422 if count == 10 else 201)
