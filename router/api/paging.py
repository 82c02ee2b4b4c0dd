"""Lists come in pages, each with the cursor of the one that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import BaseModel, Field

from router.order import Text80

PAGE = 50
"""Rows of a page of on-call's lists."""

Row = TypeVar("Row")
Cursor = TypeVar("Cursor", str, int)


class CursorQuery(BaseModel):
    """Where in a list to go on."""

    cursor: Text80 | None = Field(None, description="`next` of a page")


def page_of(
    read: Callable[[int], Sequence[Row]], cursor: Callable[[Row], Cursor]
) -> tuple[Sequence[Row], Cursor | None]:
    """A page of what `read` finds, given how many rows to read at most; and the cursor of the next page, or None.

    One row more than a page is asked for: whether there is one says whether there is a next page.
    """
    rows = read(PAGE + 1)
    return rows[:PAGE], cursor(rows[PAGE - 1]) if len(rows) > PAGE else None
