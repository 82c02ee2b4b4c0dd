"""What is sealed opens under its key, for what it was sealed for, unchanged; and in no other case."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.sealing import Ring, TamperedError, UnknownKeyError, is_sealed, key_id, key_of, new_key

OLD, NEW = new_key(), new_key()
RING = Ring([NEW, OLD])


@given(text=st.text(max_size=300))
@settings(max_examples=50)
def test_any_text_comes_back(text: str) -> None:
    """Line breaks and whatever looks like a separator among it."""
    assert RING.open(RING.seal(text, "tokens:pay_1"), "tokens:pay_1") == text


def test_the_first_key_seals_and_all_open() -> None:
    """What was sealed under the old key is read beside the new one, and names its key."""
    old = Ring([OLD]).seal("pm_1", "of")
    assert (key_of(old), RING.open(old, "of")) == (key_id(OLD), "pm_1")
    new = RING.seal("pm_1", "of")
    assert key_of(new) == key_id(NEW) == RING.first
    assert "pm_1" not in new
    assert is_sealed(new)
    assert is_sealed({"sealed": new, "type": "redirect"})
    assert not is_sealed("pm_1")
    assert not is_sealed({"sealed": "yes"})


def test_a_key_that_is_not_here_is_named() -> None:
    """The id, which tells nothing of the key, and not what was sealed."""
    with pytest.raises(UnknownKeyError, match=key_id(OLD)) as refused:
        Ring([NEW]).open(Ring([OLD]).seal("pm_1", "of"), "of")
    assert refused.value.key_id == key_id(OLD)
    assert OLD[:8] not in key_id(OLD)


@pytest.mark.parametrize("place", range(0, 120, 7))
def test_one_changed_byte_is_found(place: int) -> None:
    """Anywhere in the token: version, moment, salt, text or signature."""
    sealed = RING.seal("pm_1", "of")
    prefix, _, token = sealed.rpartition(":")
    data = bytearray(base64.urlsafe_b64decode(token))
    data[place % len(data)] ^= 1
    with pytest.raises(TamperedError, match="changed"):
        RING.open(f"{prefix}:{base64.urlsafe_b64encode(bytes(data)).decode()}", "of")


def test_a_token_moved_to_another_row_is_not_opened() -> None:
    """Somebody who can write the ledger, and has no key, charges nobody with another's card."""
    with pytest.raises(TamperedError, match="another row"):
        RING.open(RING.seal("pm_1", "tokens:pay_1"), "tokens:pay_2")


def test_sealing_anew_moves_to_the_first_key_and_once_only() -> None:
    """What is under the first key stays to the letter; what it belongs to goes along."""
    old = Ring([OLD]).seal("pm_1", "of")
    new = RING.reseal(old)
    assert (key_of(new), Ring([NEW]).open(new, "of")) == (key_id(NEW), "pm_1")
    assert RING.reseal(new) == new
    with pytest.raises(UnknownKeyError):
        Ring([NEW]).reseal(old)
    with pytest.raises(TamperedError):
        RING.reseal(old[:-8] + "AAAAAAA=")


def test_wrong_keys_are_named_by_their_place_and_never_quoted() -> None:
    """The line that stops a start."""
    with pytest.raises(ValueError, match="number 2 is not a Fernet key") as refused:
        Ring([NEW, "no-key-at-all"])
    assert "no-key-at-all" not in str(refused.value)
    with pytest.raises(ValueError, match="there is no key"):
        Ring([])


def test_a_ring_keeps_what_it_is_joined_with_behind_its_own() -> None:
    """A process goes on reading what it holds, whatever is taken out of its file."""
    joined = Ring([NEW]).joined(Ring([OLD, NEW]))
    assert joined.ids == (key_id(NEW), key_id(OLD))
    assert RING.joined(Ring([OLD])) is RING
