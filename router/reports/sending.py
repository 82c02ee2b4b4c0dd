"""A report's file on its way to whoever asked for it: what it is called, what it is, and its bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from router.reports.files import Streamed, write_csv, write_json
from router.reports.query import Query

TYPES: Mapping[str, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
"""Every format that there is, with its content type."""
IN_MEMORY_BYTES = 1_000_000
"""Of a file that is made; beyond it is on disk, so that no slow reader holds a snapshot of the ledger."""
AT_ONCE_BYTES = 64 * 1024


def writer(kind: str) -> Callable[[Streamed, IO[bytes]], None]:
    """What writes this one of TYPES."""
    if kind == "xlsx":
        # A web process that makes no workbook does without its library's megabytes.
        from router.reports.workbook import write_xlsx

        return write_xlsx
    return {"csv": write_csv, "json": write_json}[kind]


def written(found: Streamed, kind: str) -> IO[bytes]:
    """The file, whole, to be read from its beginning and closed. Raises TooManyRowsError."""
    file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - closed by whoever sends it
    try:
        writer(kind)(found, file)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def sent(file: IO[bytes]) -> Iterator[bytes]:
    """Its bytes, part by part."""
    while part := file.read(AT_ONCE_BYTES):
        yield part


def name(query: Query, kind: str) -> str:
    """What a download is called: with the period and its zone, which a CSV says nowhere else."""
    first, end = (each.astimezone(query.zone) for each in (query.start, query.end))
    return f"routing-{first:%Y-%m-%d}-to-{end:%Y-%m-%d}-{query.zone.key.replace('/', '-')}.{kind}"
