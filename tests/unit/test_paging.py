"""A page, and the cursor of the one that follows, if any does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from router.api.paging import PAGE, page_of


def first(rows: Sequence[int], limit: int) -> Sequence[int]:
    return rows[:limit]


@pytest.mark.parametrize("rows", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 2 * PAGE + 1])
def test_pages_hold_every_row_once_and_end(rows: int) -> None:
    """Also where the last page is full: there is no empty one after it."""
    pages: list[Sequence[int]] = []
    cursor: int | None = None
    while not pages or cursor is not None:
        left = range(rows) if cursor is None else range(cursor + 1, rows)
        page, cursor = page_of(partial(first, left), int)
        pages.append(page)
    assert [row for page in pages for row in page] == list(range(rows))
    assert len(pages) == max(1, -(-rows // PAGE))
