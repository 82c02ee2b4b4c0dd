"""The vendors' decline codes, in the router's words."""

from __future__ import annotations

import pytest

from providers.contract import DeclineClass
from providers.declines import ADYEN_WORDS, BY_WORD, of_adyen, of_stripe, shopper_cancelled

STRIPE_CLASSES = {
    "soft": "generic_decline do_not_honor call_issuer try_again_later reenter_transaction no_action_taken "
    "issuer_not_available processing_error",
    "limit": "insufficient_funds card_velocity_exceeded withdrawal_count_limit_exceeded",
    "hard": "expired_card lost_card stolen_card pickup_card restricted_card invalid_account stop_payment_order "
    "revocation_of_authorization revocation_of_all_authorizations card_not_supported transaction_not_allowed",
    "fraud": "fraudulent merchant_blacklist security_violation",
    "authentication": "authentication_required",
    "invalid": "incorrect_number incorrect_cvc incorrect_zip incorrect_pin invalid_number invalid_cvc "
    "invalid_expiry_month invalid_expiry_year invalid_pin confirm_card_data",
}
ADYEN_CLASSES = {
    "soft": "2 3 9 27",
    "limit": "12 28 29",
    "hard": "5 6 10 23 25 26 46",
    "fraud": "14 20 22 31",
    "authentication": "11 38 39 42 15 16",
    "invalid": "7 8 17 18 19 24 32",
}


def card(brand: str | None) -> dict[str, object]:
    """Where Stripe's error says which card it was."""
    return {} if brand is None else {"payment_method": {"id": "pm_1", "type": "card", "card": {"brand": brand}}}


def expected(table: dict[str, str]) -> list[tuple[str, DeclineClass, bool]]:
    """Rows of code, class and cascade."""
    return [
        (code, DeclineClass.SOFT if name == "limit" else DeclineClass(name), name == "soft")
        for name, codes in table.items()
        for code in codes.split()
    ]


@pytest.mark.parametrize(("code", "decline_class", "cascade"), expected(STRIPE_CLASSES))
def test_each_stripe_code_has_its_class(code: str, decline_class: DeclineClass, cascade: bool) -> None:
    """The table of the facts, row by row."""
    decline = of_stripe({"code": "card_declined", "decline_code": code})
    assert (decline.decline_class, decline.cascade, decline.code, decline.known) == (
        decline_class,
        cascade,
        code,
        True,
    )
    assert decline.message


@pytest.mark.parametrize(("code", "decline_class", "cascade"), expected(ADYEN_CLASSES))
def test_each_adyen_refusal_has_its_class(code: str, decline_class: DeclineClass, cascade: bool) -> None:
    """The table of the facts, row by row."""
    decline = of_adyen(code, {})
    assert (decline.decline_class, decline.cascade, decline.known) == (decline_class, cascade, True)
    assert decline.code in BY_WORD


def test_every_adyen_code_is_translated_into_a_known_word() -> None:
    """No translation leads nowhere."""
    assert set(ADYEN_WORDS.values()) <= set(BY_WORD)


@pytest.mark.parametrize("advice", ["do_not_try_again", "03", "21"])
def test_advice_to_stop_beats_a_soft_code(advice: str) -> None:
    """An issuer that says stop means it."""
    field = "advice_code" if advice.startswith("do") else "network_advice_code"
    decline = of_stripe({"decline_code": "do_not_honor", field: advice, **card("mastercard")})
    assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.HARD, False, advice)


@pytest.mark.parametrize("network_advice", ["03", "21", "24", "02"])
@pytest.mark.parametrize("brand", ["visa", "mastercard", "amex", None])
def test_stripes_word_to_stop_beats_every_number(brand: str | None, network_advice: str) -> None:
    """And it is the one that is kept: no network can read it otherwise, whatever the card's brand is said to be."""
    error = {"decline_code": "do_not_honor", "network_decline_code": "05", "network_advice_code": network_advice}
    decline = of_stripe({**error, "advice_code": "do_not_try_again", **card(brand)})
    assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.HARD, False, "do_not_try_again")


OTHERS: dict[str, dict[str, object]] = {
    "the payment method": {"payment_method": {"type": "card", "card": {"brand": "visa"}}},
    "the intent's payment method": {"payment_intent": {"payment_method": {"card": {"brand": "amex"}}}},
    "the intent's charge": {
        "payment_intent": {"latest_charge": {"payment_method_details": {"card": {"brand": "discover"}}}}
    },
    "the network that a co-branded card's charge went over": {
        "charge": {"payment_method_details": {"card": {"brand": "mastercard", "network": "cartes_bancaires"}}},
        "payment_method": {"card": {"brand": "mastercard"}},
    },
}


@pytest.mark.parametrize("where", OTHERS)
@pytest.mark.parametrize("code", ["01", "02", "03", "21", "24", "30"])
def test_mastercards_numbers_are_not_read_of_another_networks_card(code: str, where: str) -> None:
    """Visa's 03 is not Mastercard's: another provider may still approve. Nor is it kept for the card's next tries."""
    decline = of_stripe({"decline_code": "do_not_honor", "network_advice_code": code, **OTHERS[where]})
    assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.SOFT, True, None)


@pytest.mark.parametrize("code", ["01", "03", "21", "24"])
def test_a_number_of_a_card_whose_brand_nobody_told_only_forbids_the_cascade(code: str) -> None:
    """It may be Mastercard's: so not at once elsewhere, and its later tries are judged by the brand of that time."""
    for nothing in ({}, card(None), {"payment_method": "pm_1", "charge": "ch_1", "payment_intent": {"id": "pi_1"}}):
        decline = of_stripe({"decline_code": "do_not_honor", "network_advice_code": code, **nothing})
        assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.SOFT, False, code)
    assert of_stripe({"decline_code": "do_not_honor", "network_advice_code": "02"}).cascade


def test_a_number_in_the_place_of_stripes_word_is_no_advice() -> None:
    """Only the network's field holds the network's numbers."""
    decline = of_stripe({"decline_code": "do_not_honor", "advice_code": "03", **card("mastercard")})
    assert (decline.decline_class, decline.cascade) == (DeclineClass.SOFT, True)


ADYEN_VISA: dict[str, tuple[dict[str, object], object]] = {
    "the payment's brand": ({}, {"brand": "visa", "type": "scheme"}),
    "a notification's brand": ({}, "visa"),
    "additional data": ({"paymentMethod": "visa"}, None),
    "the card's method": ({"cardPaymentMethod": "amex"}, {"type": "scheme"}),
    "the variant": ({"paymentMethodVariant": "visacredit"}, None),
}


@pytest.mark.parametrize("where", ADYEN_VISA)
def test_a_merchant_advice_code_of_another_networks_card_is_not_read(where: str) -> None:
    """Wherever Adyen names the brand."""
    more, method = ADYEN_VISA[where]
    decline = of_adyen("2", {"merchantAdviceCode": "03 : Do not try again", **more}, payment_method=method)
    assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.SOFT, True, None)


@pytest.mark.parametrize("brand", ["mc", "mccredit", "mc_applepay", "maestro", "Mastercard", "", None, 7])
def test_a_merchant_advice_code_is_mastercards(brand: object) -> None:
    """By each of Adyen's words for it; and by the schema's, where none is told."""
    decline = of_adyen("2", {"merchantAdviceCode": "03 : Do not try again"}, payment_method={"brand": brand})
    assert (decline.decline_class, decline.advice) == (DeclineClass.HARD, "03")


@pytest.mark.parametrize("code", ["03", "21"])
def test_a_merchant_advice_code_beats_adyens_refusal(code: str) -> None:
    """As Adyen sends it: the code, a colon, words."""
    decline = of_adyen("2", {"merchantAdviceCode": f"{code} : Do not try again"})
    assert (decline.decline_class, decline.cascade, decline.advice) == (DeclineClass.HARD, False, code)


def test_advice_to_stop_leaves_fraud_what_it_is() -> None:
    """It is never tried again either, and the class says more."""
    decline = of_stripe({"decline_code": "fraudulent", "advice_code": "do_not_try_again"})
    assert (decline.decline_class, decline.cascade) == (DeclineClass.FRAUD, False)


@pytest.mark.parametrize("code", ["24", "30"])
def test_advice_to_wait_keeps_it_soft_and_forbids_the_cascade(code: str) -> None:
    """Another provider at once is just what the network asks us not to do."""
    decline = of_stripe({"decline_code": "do_not_honor", "network_advice_code": code, **card("mastercard")})
    assert (decline.decline_class, decline.cascade) == (DeclineClass.SOFT, False)


@pytest.mark.parametrize("told", [{"advice_code": "confirm_card_data"}, {"network_advice_code": "01"}])
def test_advice_to_correct_the_data_says_so(told: dict[str, str]) -> None:
    """The same data will fail at the next provider too."""
    decline = of_stripe({"decline_code": "generic_decline", **told, **card("mastercard")})
    assert (decline.decline_class, decline.cascade) == (DeclineClass.INVALID, False)


def test_stripes_general_advice_does_not_stop_a_cascade() -> None:
    """Stripe adds `try_again_later` to nearly every soft decline."""
    assert of_stripe({"decline_code": "do_not_honor", "advice_code": "try_again_later"}).cascade


def test_the_networks_own_words_are_kept() -> None:
    """Stripe's network fields, and Adyen's raw reason where the account has it."""
    stripe = of_stripe(
        {
            "decline_code": "do_not_honor",
            "network_decline_code": "05",
            "advice_code": "x",
            "network_advice_code": "02",
        }
    )
    assert (stripe.network_code, stripe.advice) == ("05", "02")
    assert of_adyen("2", {"refusalReasonRaw": "05 : Do not honor"}).network_code == "05"
    assert of_adyen("2", {"refusalReasonRaw": "DECLINED"}).network_code is None
    assert of_adyen("2", {"refusalReasonRaw": 5}).network_code is None


@pytest.mark.parametrize("error", [{}, {"code": None, "decline_code": None}, {"code": "brand_new_code"}])
def test_an_unknown_stripe_code_is_soft_reported_and_not_cascaded(error: dict[str, object]) -> None:
    """Nobody knows what it means yet."""
    decline = of_stripe(error)
    assert (decline.decline_class, decline.cascade, decline.known) == (DeclineClass.SOFT, False, False)


@pytest.mark.parametrize("code", [None, "99", "banana"])
def test_an_unknown_adyen_refusal_is_soft_reported_and_not_cascaded(code: str | None) -> None:
    """Nobody knows what it means yet."""
    decline = of_adyen(code, {})
    assert (decline.decline_class, decline.cascade, decline.known) == (DeclineClass.SOFT, False, False)


def test_nothing_that_looks_like_a_card_number_gets_through() -> None:
    """Whatever a vendor puts where a code belongs."""
    number = "4111111111111111"
    decline = of_stripe({"decline_code": number, "network_decline_code": number, "advice_code": number})
    assert number not in repr(decline)
    assert number not in repr(of_adyen(number, {"refusalReasonRaw": number, "merchantAdviceCode": number}))


def test_a_customer_who_turns_back_is_not_sent_elsewhere() -> None:
    """It is their decision, not an issuer's."""
    decline = shopper_cancelled()
    assert (decline.code, decline.decline_class, decline.cascade) == (
        "shopper_cancelled",
        DeclineClass.AUTHENTICATION,
        False,
    )
