"""Sets of names, written as one would say them."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text that is separated by spaces."""
    return frozenset(text.split())
