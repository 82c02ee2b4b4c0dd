"""Card numbers are found wherever and however they are written, and little else is taken for one."""

from __future__ import annotations

import json
import random
import re
import string
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from router.pan import contains_pan, json_contains_no_pan

SEPARATORS = ["", " ", "-", "  ", " - ", "\u2010", "\u2013", "\u2212", "\u00a0", "\u2009", "\u3000"]
ZEROS = {"ASCII": "0", "full-width": "\uff10", "Arabic": "\u0660", "Devanagari": "\u0966", "bold": "\U0001d7ce"}
DIGITS = ["".join(chr(ord(zero) + value) for value in range(10)) for zero in ZEROS.values()]

DATED = re.compile(r"20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", re.ASCII)

# The card schemes' and vendors' published test numbers.
PUBLISHED = {
    "Visa": "4111111111111111",
    "Visa of 13": "4222222222222",
    "Visa debit": "4000056655665556",
    "Mastercard": "5555555555554444",
    "Mastercard 2 series": "2223003122003222",
    "American Express": "378282246310005",
    "Discover": "6011111111111117",
    "Diners": "3056930009020004",
    "Diners of 14": "36227206271667",
    "JCB": "3566002020360505",
    "UnionPay": "6200000000000005",
    "UnionPay of 19": "6205500000000000004",
    "Maestro": "6759649826438453",
}


def _check_digit(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        number = int(digit) * (2 if place % 2 == 0 else 1)
        total += number - 9 if number > 9 else number
    return str(-total % 10)


@st.composite
def pans(draw: st.DrawFn) -> str:
    """Any number that the rule calls a card number: 13 to 19 digits, the first 2 to 6, Luhn, not dated."""
    body = draw(st.sampled_from("23456")) + draw(st.text(string.digits, min_size=11, max_size=17))
    assume(not DATED.match(body))
    return body + _check_digit(body)


@st.composite
def written_pans(draw: st.DrawFn) -> str:
    """The same, with separators anywhere, in any script's digits, and words around it."""
    script = str.maketrans("0123456789", draw(st.sampled_from(DIGITS)))
    written = "".join(digit.translate(script) + draw(st.sampled_from(SEPARATORS)) for digit in draw(pans()))
    around = st.text(string.ascii_letters + ".,:;()/_", max_size=10)
    return draw(around) + written.rstrip(" -\u2010\u2013\u2212\u00a0\u2009\u3000") + draw(around)


def _nested(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A JSON value with that leaf somewhere in it, as a value or as a name."""
    harmless = st.none() | st.booleans() | st.integers(-999, 999) | st.text(string.ascii_letters, max_size=8)

    def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return (
            st.tuples(st.lists(harmless, max_size=3), inner).map(lambda pair: [*pair[0], pair[1]])
            | st.tuples(st.text(string.ascii_letters, max_size=5), inner).map(lambda pair: {pair[0]: pair[1]})
            | st.dictionaries(leaf.filter(lambda each: isinstance(each, str)), harmless, min_size=1, max_size=1)
        )

    return st.recursive(leaf, around, max_leaves=8)


@pytest.mark.parametrize("pan", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_every_schemes_published_numbers_are_found(pan: str) -> None:
    """As text, in groups, in a sentence, and as a JSON number."""
    groups = " ".join(pan[at : at + 4] for at in range(0, len(pan), 4))
    for value in (pan, groups, groups.replace(" ", "-"), f"pan={pan};", f"x{pan}", {"a": [int(pan)]}):
        assert contains_pan(value), value


@given(_nested(written_pans()))
def test_a_card_number_is_found_however_written_and_however_deep(value: Any) -> None:
    """With separators, in another script, among words, as a value or a name."""
    assert contains_pan(value)


@given(_nested(pans().map(int)))
def test_a_card_number_is_found_as_a_json_number(value: Any) -> None:
    """An integer is as good as text."""
    assert contains_pan(value)


@given(pans().filter(lambda pan: len(pan) <= 15))
def test_a_card_number_is_found_as_a_float(pan: str) -> None:
    """A JSON number with a point or an exponent, as far as a float is exact."""
    assert contains_pan(float(pan))


@given(pans(), st.text(string.digits, min_size=1, max_size=4), st.sampled_from([" ", "-"]))
def test_other_numbers_beside_it_do_not_hide_it(pan: str, other: str, separator: str) -> None:
    """`12 4111…` and `4111… 12` hold a card number as well."""
    assert contains_pan(f"{other}{separator}{pan}")
    assert contains_pan(f"{pan}{separator}{other}")


@given(pans())
def test_a_wrong_check_digit_is_no_card_number(pan: str) -> None:
    """Luhn decides: no other last digit passes."""
    for digit in string.digits.replace(pan[-1], ""):
        assert not contains_pan(pan[:-1] + digit)


@given(st.sampled_from("01789"), st.text(string.digits, min_size=12, max_size=18))
def test_a_number_that_begins_otherwise_is_no_card_number(first: str, rest: str) -> None:
    """Adyen's stored ids begin with 8; no scheme issues 0, 1, 7 or 9."""
    assert not contains_pan(first + rest)


@given(st.text(string.digits, max_size=12) | st.text(string.digits, min_size=20, max_size=40))
def test_a_number_too_short_or_too_long_is_no_card_number(digits: str) -> None:
    """Below 13 digits or above 19 in one run."""
    assert not contains_pan(digits)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**12), 10**12)
        | st.floats(-1e12, 1e12)
        | st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300, 5e-324])
        | st.text(string.ascii_letters + string.digits[:3], max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    )
)
def test_harmless_json_is_harmless(value: Any) -> None:
    """Amounts, words, flags, and the oddest floats: nothing raises, nothing is taken for a card."""
    assert not contains_pan(value)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-21T02:03:04.567890Z",
        "2026-11-21 02:03:04",
        "+49 30 1234567",
        "192.168.100.200",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0.6778.85",
        "8415718415172204",
        "pay_01m7y28hams3x8ttryrb253b63",
        "DE89 3704 0044 0532 0130 00",
        999_999_999_999,
        True,
        None,
        b"4111111111111111".hex(),
    ],
)
def test_what_checkout_usually_sends_is_let_through(value: Any) -> None:
    """Times, phones, addresses of machines, user agents, ids, account numbers, amounts."""
    assert not contains_pan(value)


@pytest.mark.parametrize("around", ["{}", "cus_{}", "cart {}, and more", "https://shop.example/{}?a=1"])
def test_ids_that_machines_make_are_hardly_ever_taken_for_a_card_number(around: str) -> None:
    """Of 5,000 UUIDs, ULIDs and digests each, from a seed, at most one; by digits alone 1 UUID in 800 would be."""
    seeded = random.Random(7)
    makers: dict[str, Callable[[], str]] = {
        "UUID": lambda: str(uuid.UUID(int=seeded.getrandbits(128), version=4)),
        "ULID": lambda: "".join(seeded.choices("0123456789abcdefghjkmnpqrstvwxyz", k=26)),
        "MD5": lambda: seeded.randbytes(16).hex(),
        "SHA-1": lambda: seeded.randbytes(20).hex().upper(),
        "SHA-256": lambda: seeded.randbytes(32).hex(),
    }
    for name, make in makers.items():
        assert sum(contains_pan(around.format(make())) for _ in range(5_000)) <= 1, name


@pytest.mark.parametrize(
    "value",
    [
        "41111111-1111-1111-5500-000000000004",
        "550e8400-e29b-41d4-a716-446655440000 4111111111111111",
        "4111111111111111 550e8400-e29b-41d4-a716-446655440000",
        "4111111111111111-550e8400-e29b-41d4-a716-446655440000x",
        "x" * 40 + "4111111111111111",
    ],
)
def test_an_id_beside_it_does_not_hide_a_card_number(value: str) -> None:
    """Only the id itself is let off, and only where it has a letter in it."""
    assert contains_pan(value)


def test_order_numbers_that_begin_with_a_day_are_none() -> None:
    """2026-11-21 and a number, however joined: no scheme's cards begin with 20. A date elsewhere hides nothing."""
    for number in range(1000):
        for joined in ("20261121{:06}", "20261121-{:06}", "ORD-20261121-{:08}", "2026 11 21 {:05}"):
            assert not contains_pan(joined.format(number))
    assert contains_pan("20261121-4111111111111111")
    assert contains_pan("4111111111111111-20261121")
    assert contains_pan("2223003122003222")


def test_a_value_nested_a_hundred_thousand_deep_is_searched() -> None:
    """A stack of its own: depth exhausts neither Python nor the search."""
    value: Any = "4111111111111111"
    for _ in range(100_000):
        value = [value]
    assert contains_pan(value)
    while isinstance(value, list):  # taken apart by hand: Python's own clean-up recurses
        value = value[0]


def test_a_long_text_is_searched_in_no_time() -> None:
    """64 kilobytes of digits and blanks, the worst that a body can hold, within a tenth of a second or so."""
    began = time.monotonic()
    for text in (
        "1 " * 32_768,
        "4-" * 32_768,
        "4" * 65_536,
        "4a" * 32_768,
        "4a4444" * 9_000,
        "4   4" * 13_000,
        "\u0664" * 30_000,
    ):
        contains_pan(text)
    assert time.monotonic() - began < 2


# ---------------------------------------------------------------- JSON as it is sent


def _as_sent(leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda value, ascii_, indent, separators: json.dumps(
            value, ensure_ascii=ascii_, indent=indent, separators=separators
        ).encode(),
        _nested(leaf),
        st.booleans(),
        st.sampled_from([None, 1]),
        st.sampled_from([None, (",", ":"), (" , ", " : ")]),
    )


_machine_ids = st.uuids().map(str) | st.binary(min_size=16, max_size=64).map(bytes.hex)
_numbers = st.integers(10**11, 10**20) | st.floats(1e11, 1e20) | pans().map(int) | pans().map(float)
_near_pans = st.text("0123456789- abcdf", min_size=10, max_size=80)


@given(_as_sent(written_pans() | pans() | _numbers | _machine_ids | _near_pans))
def test_json_that_is_let_through_by_its_bytes_has_no_card_number_in_its_values(data: bytes) -> None:
    assert not (json_contains_no_pan(data) and contains_pan(json.loads(data)))


@given(_as_sent(_machine_ids | pans() | st.integers(0, 10**20) | _near_pans))
def test_plain_json_is_judged_by_its_bytes_as_by_its_values(data: bytes) -> None:
    assert json_contains_no_pan(data) is not contains_pan(json.loads(data))


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 4.111111111111111e15}',
        b'{"a": 4111111111111110.9}',
        b"4.111111111111111E15",
        b'[41111111111111110e-1, "1"]',
        b'{"a": "4111\\u0031111 11111111"}',
        b'{"4111-1111 1111  1111": 1}',
        '{"a": "4111\u20111111\u201111111111"}'.encode(),
        '{"a": "\uff14111111111111111"}'.encode(),
    ],
)
def test_digits_that_stand_otherwise_in_the_bytes_are_left_to_the_values(data: bytes) -> None:
    assert not json_contains_no_pan(data)
    assert contains_pan(json.loads(data))


def test_parts_of_a_card_number_in_neighbouring_values_are_none() -> None:
    data = b'["4111111111", "111111", 4111111111, 111111, {"4111111111": 111111}]'
    assert json_contains_no_pan(data)
    assert not contains_pan(json.loads(data))
