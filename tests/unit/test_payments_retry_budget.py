"""The networks' retry budget in the way of a payment: at creation, within a cascade, and while parked."""

from __future__ import annotations

import datetime as dt

import pytest

from providers.contract import Decline, DeclineClass, Health, Outcome, OutcomeKind
from router.ledger.cards import CardLedger
from router.ledger.engine import Database
from router.order import Order
from router.payments import NoEligibleProviderError
from router.retry_budget import Try, card_digest
from tests.fakes.house import House, an_order, build_house, parked_loop
from tests.fakes.providers import ACTION, REFUSED, UNKNOWN, FakeProvider, declined

DAY = dt.timedelta(days=1)


@pytest.fixture
def house(database: Database) -> House:
    return build_house(database, [FakeProvider("stripe"), FakeProvider("adyen")])


def paying(brand: str = "visa", fingerprint: str | None = "fp_1", **changes: object) -> Order:
    card = {"brand": brand} | ({} if fingerprint is None else {"fingerprint": fingerprint})
    method = {"type": "card", "tokens": {"stripe": "tok_s", "adyen": "tok_a"}, "card": card}
    return an_order(payment_method=method, **changes)


def calls(house: House) -> int:
    return sum(len(each.calls) for each in house.providers.values())


def test_a_card_over_its_budget_is_refused_before_anything_is_written_or_sent(house: House) -> None:
    """Both providers name the reason; the key stays free; another card, amount or merchant is another matter."""
    for _ in range(15):
        house.providers["stripe"].outcomes.append(declined(cascade=False))
        assert house.pay(paying()).payment.status == "declined"
    with pytest.raises(NoEligibleProviderError) as refused:
        house.pay(paying(), key="still-free")
    assert set(refused.value.reasons) == {"stripe", "adyen"}
    assert all("network retry budget: Visa allows 15 tries" in each for each in refused.value.reasons.values())
    assert calls(house) == 15
    assert house.ledger.find_key("m", "still-free") is None
    assert house.pay(paying(amount=2000)).payment.status == "captured"
    assert house.pay(paying(fingerprint="fp_2")).payment.status == "captured"
    assert house.pay(paying(fingerprint=None)).payment.status == "captured"
    house.payments.create(paying(), merchant="other", key="k")
    house.clock.advance(30 * 86_400)
    assert house.pay(paying(), key="still-free").payment.status == "captured"


def test_tries_are_counted_across_providers(house: House) -> None:
    """Eight payments, each declined at both: the fifteenth try of the card is at the first, and no other follows."""
    for number in range(8):
        house.providers["stripe"].outcomes.append(declined())
        if number < 7:
            house.providers["adyen"].outcomes.append(declined())
        assert house.pay(paying()).payment.status == "declined"
    assert {name: len(each.calls) for name, each in house.providers.items()} == {"stripe": 8, "adyen": 7}
    with pytest.raises(NoEligibleProviderError):
        house.pay(paying())


def test_a_soft_decline_with_advice_to_wait_is_not_tried_at_the_next_provider(house: House) -> None:
    """The decline stands."""
    decline = Decline(DeclineClass.SOFT, "do_not_honor", "No.", cascade=True, advice="24")
    house.providers["stripe"].outcomes.append(Outcome(OutcomeKind.DECLINED, Health.OK, decline=decline))
    assert house.pay(paying("mastercard")).payment.status == "declined"
    assert calls(house) == 1
    house.clock.advance(3600)
    assert house.pay(paying("mastercard")).payment.status == "captured"


def test_a_stolen_card_is_refused_at_once_from_then_on(house: House) -> None:
    """At every amount, and for good."""
    decline = Decline(DeclineClass.HARD, "stolen_card", "No.", cascade=False)
    house.providers["stripe"].outcomes.append(Outcome(OutcomeKind.DECLINED, Health.OK, decline=decline))
    house.pay(paying())
    house.clock.advance(400 * 86_400)
    with pytest.raises(NoEligibleProviderError):
        house.pay(paying(amount=1))


def test_a_card_that_pays_well_is_never_refused(house: House) -> None:
    """Sixteen coffees of one price, and more; what never reached the network is not counted either."""
    for _ in range(20):
        house.providers["stripe"].outcomes.append(REFUSED)
        assert house.pay(paying()).payment.status == "captured"
    assert CardLedger(house.ledger._database).tries(card_digest("m", "fp_1")) == []


def test_what_waits_for_its_customer_counts_until_it_is_known(house: House) -> None:
    """In doubt, the card is spared."""
    for _ in range(15):
        house.providers["stripe"].outcomes.append(ACTION)
        assert house.pay(paying()).payment.status == "requires_action"
    with pytest.raises(NoEligibleProviderError):
        house.pay(paying())


def test_a_payment_in_doubt_counts_as_a_try(house: House) -> None:
    """Its issuer may have declined it."""
    house.providers["stripe"].outcomes.extend([UNKNOWN] * 3)
    assert house.pay(paying()).payment.status == "processing"
    (found,) = CardLedger(house.ledger._database).tries(card_digest("m", "fp_1"))
    assert (found.outcome, found.amount, found.currency) == ("unknown", 1999, "EUR")


def test_a_parked_payment_is_not_tried_while_its_card_is_over_its_budget(house: House) -> None:
    """Other payments used it up meanwhile: the worker waits, and pays when there is room again."""
    for each in house.providers.values():
        each.outcomes.append(REFUSED)
    parked = house.pay(paying("mastercard", expires_at=(house.clock.now() + 5 * DAY).isoformat())).payment
    for _ in range(10):
        house.providers["stripe"].outcomes.append(declined(cascade=False))
        house.pay(paying("mastercard"))
    before = calls(house)
    loop = parked_loop(house)
    house.clock.advance(15)
    assert loop.run_once() == 0
    assert calls(house) == before
    house.clock.advance(86_400)
    assert loop.run_once() == 1
    found = house.ledger.get(parked.id)
    assert found is not None
    assert found[0].status == "captured"


def test_a_payment_without_a_fingerprint_asks_the_ledger_nothing(
    house: House, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual payment pays nothing for the budget."""
    asked: list[str] = []

    def tries_of(card: str) -> list[Try]:
        asked.append(card)
        return []

    monkeypatch.setattr(house.payments._planner, "_tries_of", tries_of)
    house.pay(paying(fingerprint=None))
    assert asked == []
    house.pay(paying())
    assert asked == [card_digest("m", "fp_1")]


def test_the_ledger_keeps_a_digest_of_the_card_with_each_attempt(house: House) -> None:
    """None where the card is not known again."""
    attempt = house.pay(paying()).attempts[0]
    found = house.ledger.get(attempt.payment_id)
    assert found is not None
    assert found[1][0].card == attempt.card == card_digest("m", "fp_1")
    assert house.pay(paying(fingerprint=None)).attempts[0].card is None
