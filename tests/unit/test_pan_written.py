"""Card numbers as they are written: what looks first misses none, and no text makes the search long."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router.pan_written import holds_pan, json_holds_no_pan, places
from router.telemetry.scrubbing import Scrubber
from tests.integration.transcripts import WRITTEN, card_number

NUMBERS = st.integers(0, 2**32).map(lambda seed: card_number(random.Random(seed)))
MARKS = " -+\t\n\r\x00\x7f._/,:;|*~'\"=#\u00a0\u2009\u2010\u2212\uff0d"


@st.composite
def planted(draw: st.DrawFn) -> str:
    """A card number, as one of the ways has it, or with marks between groups or digits of it."""
    number = draw(NUMBERS)
    if draw(st.booleans()):
        written = WRITTEN[draw(st.sampled_from(sorted(WRITTEN)))](number)
    else:
        marks = draw(st.lists(st.text(MARKS, min_size=1, max_size=3), min_size=1, max_size=4))
        size = draw(st.sampled_from((1, 4, 5, 6)))
        parts = [number[at : at + size] for at in range(0, len(number), size)]
        written = "".join(part + marks[place % len(marks)] for place, part in enumerate(parts))
    return draw(st.text(max_size=5)) + written + draw(st.text(max_size=5))


IDS = st.uuids().map(str) | st.integers(0, 2**256).map("{:x}".format)
LEAVES = (
    planted()
    | NUMBERS.map(int)
    | NUMBERS.map(lambda number: -int(number))
    | NUMBERS.map(lambda number: float(number[:16]))
    | NUMBERS.map(lambda number: int(number) / 10**6)
    | IDS
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('0123456789 -.,:"\\/%&#;ae+\t\x7f\u0664', max_size=40)
)
BODIES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(planted() | IDS | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)
WORDINGS = st.sampled_from(
    (
        {},
        {"ensure_ascii": False},
        {"separators": (",", ":")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {"indent": 1},
        {"separators": (" , ", " : ")},
    )
)


@given(BODIES, WORDINGS)
@example("4111 +1111 +1111 +1111", {})
@example("4111\x7f 1111\x7f 1111\x7f 1111", {"ensure_ascii": False})
@example({"a": 4111111111111111}, {})
@example([4111, 1111, 1111, 1111], {"separators": (" - ", ":")})
@example(4.1111111111111112e18, {})
def test_where_the_bytes_are_sure_the_values_hold_none(body: Any, wording: dict[str, Any]) -> None:
    """The gate looks at the bytes, and believes them: so they may never be surer than the values."""
    data = json.dumps(body, **wording).encode("utf-8", "surrogatepass")
    if json_holds_no_pan(data):
        assert not holds_pan(json.loads(data))


@pytest.mark.parametrize("wording", [{}, {"ensure_ascii": False}], ids=["escaped", "as it is"])
@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_the_bytes_are_not_sure_of_a_number_however_it_is_written(
    write: Callable[[str], str], wording: dict[str, Any]
) -> None:
    """Alone: what stands around the others has marks of its own, for which the bytes are looked at closely."""
    written = write("4111111111111111")
    assert holds_pan(written)
    assert not json_holds_no_pan(json.dumps(written, **wording).encode())


@given(st.text('0123456789 -.eE+\t,[]{}:"', max_size=60))
def test_the_bytes_are_no_surer_of_what_a_client_words_himself(text: str) -> None:
    """Numbers with exponents, spaces where no writer of JSON puts them."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return
    if json_holds_no_pan(text.encode()):
        assert not holds_pan(value)


@given(planted())
@example("4111\n 1111\n 1111\n 1111")
@example("4111 \t1111 \t1111 \t1111")
@example("4111+ 1111+ 1111+ 1111")
@example("4111-\n1111-\n1111-\n1111")
def test_the_gate_refuses_whatever_the_scrubber_would_take_out(text: str) -> None:
    assert holds_pan(text) or not places(text)


BYTES = 64 * 1024


@pytest.mark.parametrize(
    "unit",
    [
        "\\",
        "\\" * 50 + "1",
        "4.",
        "4 ",
        "4111.",
        "4111 ",
        "0-",
        "%25",
        "%E2%80",
        "&amp;",
        "eyJ-",
        "\u0661 ",
        "1\t ",
        "=\\",
    ],
)
def test_a_body_full_of_it_is_read_in_no_time(unit: str) -> None:
    """64 KB of backslashes once took 28 s of a processor, and all threads wait for who has it."""
    text = (unit * BYTES)[: BYTES // (3 if unit > "\x7f" else 1)] + "1" * 13
    scrubber, begun = Scrubber(), time.thread_time()
    holds_pan(text)
    json_holds_no_pan(json.dumps(text).encode())
    scrubber.text(text)
    # Measured: 1.5 s at most, here and with everything else at work.
    assert time.thread_time() - begun < 6.0
