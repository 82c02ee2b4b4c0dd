"""Identifiers in the vendors' shapes: random, so that they stay unique over restarts and resets."""

from __future__ import annotations

import random
import string

_random = random.SystemRandom().getrandbits(128)
_ids = random.Random(_random)  # noqa: S311 - unique, not secret; ten times faster than the system's
_BASE62 = string.ascii_letters + string.digits
_BASE36 = string.ascii_uppercase + string.digits


def stripe_id(prefix: str) -> str:
    """`pi_3…` and the like: the prefix and 24 letters and digits."""
    return f"{prefix}_3{''.join(_ids.choices(_BASE62, k=23))}"


def stripe_secret(intent_id: str) -> str:
    """A client secret: the intent's id, `_secret_`, 25 letters and digits."""
    return f"{intent_id}_secret_{''.join(_ids.choices(_BASE62, k=25))}"


def psp_reference() -> str:
    """An Adyen pspReference: 16 capital letters and digits."""
    return "".join(_ids.choices(_BASE36, k=16))
