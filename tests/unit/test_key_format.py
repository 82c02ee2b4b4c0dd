"""API keys are found by secret scanners, and what only looks like one is told apart without the ledger."""

from __future__ import annotations

import re
import secrets

from hypothesis import given
from hypothesis import strategies as st

from router.key_format import ALPHABET, PATTERN, PREFIX, SECRET_LETTERS, hint_of, is_impossible, new_key


@given(st.integers(0, len(ALPHABET) ** SECRET_LETTERS - 1))
def test_every_key_has_the_form_and_its_checksum(number: int) -> None:
    key = new_key(lambda _n: number)
    assert re.fullmatch(PATTERN, key)
    assert not is_impossible(key)


def test_the_random_bits_are_at_least_160() -> None:
    asked: list[int] = []
    new_key(lambda n: asked.append(n) or 0)  # type: ignore[func-returns-value]
    assert asked[0] >= 2**160


@given(st.integers(0, 32), st.sampled_from(ALPHABET))
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    key = new_key(lambda n: n // 3)
    at = len(PREFIX) + place
    changed = key[:at] + letter + key[at + 1 :]
    assert is_impossible(changed) == (changed != key)


def test_keys_of_before_and_any_other_text_are_for_the_ledger_to_know() -> None:
    assert not is_impossible("pm_" + secrets.token_urlsafe(32))
    assert not is_impossible("the-key-of-this-test")
    assert is_impossible(PREFIX)
    assert is_impossible(new_key(secrets.randbelow) + "\n")


def test_a_hint_shows_four_letters_of_the_secret_and_nothing_of_keys_of_before() -> None:
    key = new_key(secrets.randbelow)
    assert hint_of(key) == key[: len(PREFIX) + 4] + "…"
    assert hint_of("pm_abc") == ""
