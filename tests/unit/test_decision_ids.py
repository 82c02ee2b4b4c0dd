"""A decision's id: what it carries, who can make one, how long it may be."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.decision_ids import LIVES, MAXIMUM_CHARS, Carried, DecisionIds
from router.pan import contains_pan
from router.segments import segment

AT = dt.datetime(2026, 11, 21, 2, 3, 4, 567_000, dt.UTC)
SEGMENT = segment(1999, "visa", "DE", "card")
CARRIED = Carried("dec_01jd3abcdefghjkmnpqrstvwxy", AT, SEGMENT, ("stripe", "adyen"), 0.99)
IDS = DecisionIds(["s" * 32])
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~é\n"


def test_it_carries_what_an_outcome_needs() -> None:
    signed = IDS.sign(CARRIED, "shop")
    assert IDS.read(signed, "shop") == CARRIED
    assert len(signed) < 200
    assert CARRIED.expires_at == AT + LIVES


@settings(deadline=None)  # a busy machine is no fault
@given(place=st.integers(0, 400), letter=st.sampled_from(ALPHABET))
def test_with_any_character_changed_it_is_none(place: int, letter: str) -> None:
    signed = IDS.sign(CARRIED, "shop")
    place %= len(signed)
    forged = signed[:place] + letter + signed[place + 1 :]
    assert (IDS.read(forged, "shop") is None) == (forged != signed)


def test_the_bits_that_base64_leaves_unused_are_signed_too() -> None:
    """Payload and mac both end in a letter of which some bits mean nothing: another such letter is another id."""
    for length in range(1, 5):
        signed = IDS.sign(CARRIED._replace(key="k" * length), "shop")
        payload_end = signed.index(".") - 1
        for place in (payload_end, len(signed) - 1):
            others = [signed[:place] + each + signed[place + 1 :] for each in ALPHABET[:64] if each != signed[place]]
            assert not [each for each in others if IDS.read(each, "shop")]


@settings(deadline=None)  # a busy machine is no fault
@given(st.text(max_size=350))
def test_whatever_is_sent_is_no_fault(text: str) -> None:
    assert IDS.read(text, "shop") is None
    assert IDS.read(f"dec_{text}.{'a' * 22}", "shop") is None


def test_it_is_one_merchants() -> None:
    for mine, other in [("shop", "shop2"), ("shop", ""), ("", "shop"), ("a.b", "a"), ("\ud800", "?")]:
        signed = IDS.sign(CARRIED, mine)
        assert IDS.read(signed, mine) == CARRIED
        assert IDS.read(signed, other) is None


def test_one_secret_can_replace_another() -> None:
    old, new, both = DecisionIds(["o" * 32]), DecisionIds(["n" * 32]), DecisionIds(["n" * 32, "o" * 32])
    assert both.read(old.sign(CARRIED, "shop"), "shop") == CARRIED
    assert both.sign(CARRIED, "shop") == new.sign(CARRIED, "shop")
    assert old.read(both.sign(CARRIED, "shop"), "shop") is None
    for none in ([], [""], ["o" * 32, ""]):
        with pytest.raises(ValueError, match="secret"):
            DecisionIds(none)


def test_of_very_many_providers_it_carries_as_many_as_fit() -> None:
    names = tuple(f"{number:02}".rjust(32, "p") for number in range(20))
    for order in (names[:2], names):
        signed = IDS.sign(CARRIED._replace(order=order), "shop")
        assert len(signed) <= MAXIMUM_CHARS
        found = IDS.read(signed, "shop")
        assert found is not None
        assert found.order == order[: len(found.order)]
        assert len(found.order) >= 2


@settings(deadline=None)  # a busy machine is no fault
@given(
    key=st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=26, max_size=26),
    ms=st.integers(1_700_000_000_000, 4_000_000_000_000),
    amount=st.integers(1, 999_999_999_999),
    brand=st.sampled_from(["visa", "cartes bancaires", "unheard of", None]),
    order=st.sampled_from([(), ("stripe",), ("adyen", "stripe")]),
    propensity=st.floats(0, 1),
)
def test_whatever_it_carries_comes_back(
    key: str, ms: int, amount: int, brand: str | None, order: tuple[str, ...], propensity: float
) -> None:
    at = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    carried = Carried(f"dec_{key}", at, segment(amount, brand, "FR", "card"), order, propensity)
    signed = IDS.sign(carried, "shop")
    found = IDS.read(signed, "shop")
    assert found is not None
    assert found._replace(at=at, propensity=propensity) == carried
    assert abs((found.at - at).total_seconds()) < 0.002
    assert found.propensity == pytest.approx(propensity, abs=1e-6)
    assert not contains_pan(f"/v1/decisions/{signed}/outcome")


def test_another_versions_payload_is_none() -> None:
    """Signed by the same secret, and of a segment or shape that this version does not know."""
    strange = Carried("dec_1", AT, SEGMENT._replace(band="<7"), (), 0.0)
    assert IDS.read(IDS.sign(strange, "shop"), "shop") is None


def test_no_two_are_alike() -> None:
    made = [IDS.sign(CARRIED._replace(key=f"dec_{number}"), "shop") for number in range(50)]
    assert all(one != other for one, other in pairwise(sorted(made)))
