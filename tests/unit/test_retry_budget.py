"""How often a card may be tried: the networks' limits, whatever was tried where."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers import declines
from router.retry_budget import COUNTED, LIMITS, Occasion, Try, card_digest, network, obstacle

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
VISA, MASTERCARD = Occasion("visa", 1999, "EUR"), Occasion("mastercard", 1999, "EUR")
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
INSTANT = dt.timedelta(microseconds=1)


def tries(count: int, *, ago: dt.timedelta = HOUR, outcome: str = "declined", amount: int = 1999) -> list[Try]:
    """That many tries of that long ago."""
    return [Try(NOW - ago, outcome, amount, "EUR") for _ in range(count)]


def a_decline(ago: dt.timedelta = HOUR, **said: str) -> list[Try]:
    """One decline with these words."""
    return [Try(NOW - ago, "declined", 500, "USD", said)]


# ---------------------------------------------------------------- the limits


@pytest.mark.parametrize(
    ("occasion", "count", "within"), [(VISA, 15, 30 * DAY), (MASTERCARD, 10, DAY), (MASTERCARD, 35, 30 * DAY)]
)
def test_a_card_is_tried_as_often_as_its_network_allows_and_not_once_more(
    occasion: Occasion, count: int, within: dt.timedelta
) -> None:
    """The last try that is allowed is; the next is when the oldest is over."""
    oldest = within - INSTANT
    assert obstacle(occasion, tries(count - 1, ago=oldest), NOW) is None
    assert str(obstacle(occasion, tries(count, ago=oldest), NOW)).startswith("network retry budget: ")
    assert obstacle(occasion, tries(count, ago=within), NOW) is None


def test_visa_counts_each_amount_by_itself_and_mastercard_all_together() -> None:
    """Fifteen tries of another amount are nobody's business at Visa."""
    other = tries(15, amount=2000)
    assert obstacle(VISA, other, NOW) is None
    assert obstacle(Occasion("visa", 2000, "USD"), other, NOW) is None
    assert obstacle(MASTERCARD, other, NOW) is not None


@pytest.mark.parametrize("outcome", ["approved", "not_executed", "canceled"])
def test_what_no_issuer_refused_uses_nothing_up(outcome: str) -> None:
    """A card may pay for coffee every hour; a connection that was refused never reached the network."""
    assert obstacle(VISA, tries(500, outcome=outcome), NOW) is None
    assert obstacle(MASTERCARD, tries(500, outcome=outcome), NOW) is None


@pytest.mark.parametrize(
    ("brand", "found"),
    [
        ("visa", "visa"),
        ("Visa Debit", "visa"),
        ("mastercard", "mastercard"),
        ("MasterCard Credit", "mastercard"),
        ("mc", "mastercard"),
        ("maestro", "mastercard"),
        ("amex", None),
        ("mcdonalds", None),
        (None, None),
    ],
)
def test_a_brand_belongs_to_a_network_however_it_is_written(brand: str | None, found: str | None) -> None:
    """Checkouts write it in their own way; one without limits of ours has none."""
    assert network(brand) == found
    assert (obstacle(Occasion(brand, 1999, "EUR"), tries(99), NOW) is None) == (found is None)


# ---------------------------------------------------------------- what the issuer said


@pytest.mark.parametrize(
    "said",
    [
        {"code": "lost_card"},
        {"code": "stolen_card"},
        {"code": "pickup_card"},
        {"code": "invalid_account"},
        {"code": "generic_decline", "advice": "do_not_try_again"},
    ],
)
@pytest.mark.parametrize("brand", ["visa", "mastercard", "amex", None])
def test_a_card_that_is_gone_is_never_tried_again(said: dict[str, str], brand: str | None) -> None:
    """Years later, at another amount, whatever the brand."""
    assert obstacle(Occasion(brand, 1, "EUR"), a_decline(1000 * DAY, **said), NOW) is not None


@pytest.mark.parametrize("code", ["04", "07", "41", "43", "46", "R1"])
def test_visas_first_category_is_final_for_visa_only(code: str) -> None:
    """Other networks mean other things by the same digits."""
    told = a_decline(1000 * DAY, code="generic_decline", network_code=code)
    assert obstacle(VISA, told, NOW) is not None
    assert obstacle(MASTERCARD, told, NOW) is None


@pytest.mark.parametrize("code", ["expired_card", "do_not_honor", "insufficient_funds", "incorrect_cvc"])
def test_what_the_customer_can_put_right_is_not_held_against_the_card(code: str) -> None:
    """A renewed card, a filled account, the right code."""
    assert obstacle(VISA, a_decline(code=code), NOW) is None


@pytest.mark.parametrize(
    ("advice", "wait"),
    [
        ("24", HOUR),
        ("25", DAY),
        ("26", 2 * DAY),
        ("27", 4 * DAY),
        ("28", 6 * DAY),
        ("29", 8 * DAY),
        ("30", 10 * DAY),
    ],
)
def test_mastercards_advice_to_wait_is_waited_out(advice: str, wait: dt.timedelta) -> None:
    """To the instant; the same digits are no advice of Visa's."""
    told = a_decline(wait - INSTANT, code="insufficient_funds", advice=advice)
    assert "after" in str(obstacle(MASTERCARD, told, NOW))
    assert obstacle(VISA, told, NOW) is None
    assert obstacle(MASTERCARD, a_decline(wait, code="insufficient_funds", advice=advice), NOW) is None


@pytest.mark.parametrize("advice", ["03", "21"])
def test_mastercards_advice_to_stop_is_for_good(advice: str) -> None:
    """No wait ends it."""
    assert obstacle(MASTERCARD, a_decline(1000 * DAY, code="generic_decline", advice=advice), NOW) is not None


@pytest.mark.parametrize("brand", ["visa", "Visa Debit", "amex", "American Express", "jcb"])
@pytest.mark.parametrize("advice", ["03", "21", "25"])
def test_mastercards_numbers_are_not_held_against_another_networks_card(advice: str, brand: str) -> None:
    """As declines of before kept them; where the brand is not known, or a local one, they are."""
    told = a_decline(code="generic_decline", advice=advice)
    assert obstacle(Occasion(brand, 1, "EUR"), told, NOW) is None
    assert obstacle(Occasion(None, 1, "EUR"), told, NOW) is not None
    assert obstacle(Occasion("cartes_bancaires", 1, "EUR"), told, NOW) is not None


@pytest.mark.parametrize("brand", ["visa", "mastercard", "amex", None])
@pytest.mark.parametrize("number", ["03", "24", None])
def test_stripes_word_to_stop_is_for_good_whatever_the_network_adds(number: str | None, brand: str | None) -> None:
    """From the provider's answer to the card's next payment."""
    error = {"decline_code": "do_not_honor", "advice_code": "do_not_try_again", "network_advice_code": number}
    decline = declines.of_stripe({**error, "payment_method": {"card": {"brand": brand}}})
    assert decline.advice is not None
    told = a_decline(1000 * DAY, code=decline.code, advice=decline.advice)
    assert obstacle(Occasion(brand, 1, "EUR"), told, NOW) is not None


def test_later_holds_up_the_merchants_own_tries_and_not_the_customer() -> None:
    """Who stands at checkout may have filled the account; a stored credential has not changed by itself."""
    told = a_decline(HOUR - INSTANT, code="do_not_honor", advice="02")
    assert obstacle(MASTERCARD, told, NOW) is None
    by_merchant = Occasion("mastercard", 1999, "EUR", by_merchant=True)
    assert obstacle(by_merchant, told, NOW) is not None
    assert obstacle(by_merchant, a_decline(HOUR, code="do_not_honor", advice="02"), NOW) is None


def test_data_to_be_updated_may_have_been_updated() -> None:
    """New data come under the same fingerprint; within the payment the decline itself does not cascade."""
    assert obstacle(MASTERCARD, a_decline(code="generic_decline", advice="01"), NOW) is None


# ---------------------------------------------------------------- for every history

ANY_TRY = st.builds(
    Try,
    at=st.timedeltas(dt.timedelta(0), 40 * DAY).map(lambda ago: NOW - ago),
    outcome=st.sampled_from([*COUNTED, "approved", "not_executed", "canceled"]),
    amount=st.sampled_from([1999, 500]),
    currency=st.sampled_from(["EUR", "USD"]),
    decline=st.one_of(
        st.none(),
        st.fixed_dictionaries(
            {
                "code": st.sampled_from(["do_not_honor", "insufficient_funds"]),
                "advice": st.sampled_from([None, "01", "02", "24", "30"]),
            }
        ),
    ),
)
BRANDS = st.sampled_from(["visa", "mastercard", "amex", None])


@given(st.lists(ANY_TRY, max_size=60), ANY_TRY, BRANDS, st.randoms())
def test_more_tries_never_free_a_card_and_their_order_does_not_matter(
    earlier: list[Try], one_more: Try, brand: str | None, random: object
) -> None:
    """The rules only ever count."""
    occasion = Occasion(brand, 1999, "EUR")
    said = obstacle(occasion, earlier, NOW)
    random.shuffle(earlier)  # type: ignore[attr-defined] # hypothesis names no type for it
    assert (obstacle(occasion, earlier, NOW) is None) == (said is None)
    if said is not None:
        assert obstacle(occasion, [*earlier, one_more], NOW) is not None


@given(st.lists(ANY_TRY, max_size=120), BRANDS)
def test_whoever_asks_before_each_try_stays_within_every_limit(history: list[Try], brand: str | None) -> None:
    """Replayed from the oldest, with the tries left out that were refused, no window ever holds too many."""
    made: list[Try] = []
    for each in sorted(history, key=lambda one: one.at):
        if obstacle(Occasion(brand, each.amount, each.currency), made, each.at) is None:
            made.append(each)
    counted = [each for each in made if each.outcome in COUNTED]
    for limit in LIMITS[network(brand)]:
        for last in counted:
            window = [
                each
                for each in counted
                if dt.timedelta(0) <= last.at - each.at < limit.within
                and (not limit.of_one_amount or (each.amount, each.currency) == (last.amount, last.currency))
            ]
            assert len(window) <= limit.tries


def test_a_digest_tells_merchants_and_cards_apart_and_nothing_else() -> None:
    """The fingerprint cannot be read from it, and no two pairs run together."""
    assert len({card_digest("a", "bc"), card_digest("ab", "c"), card_digest("a", "b"), card_digest("A", "bc")}) == 4
    assert "fp_secret" not in card_digest("shop", "fp_secret")
