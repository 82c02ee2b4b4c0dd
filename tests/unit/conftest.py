"""What many unit tests stand on: a real ledger of their own, and a process over it whose clock they move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from router.ledger.engine import Database
from tests.fakes.home import VOIDING, Home
from tests.fakes.ledger import fresh_ledger


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite ledger with this version's tables."""
    with fresh_ledger(tmp_path) as database:
        yield database


@pytest.fixture
def home(database: Database) -> Home:
    """A process, with its worker's loops by hand."""
    return Home(database)


@pytest.fixture
def voiding(database: Database) -> Home:
    """One under the policy that authorizes only, and fails over on unknown."""
    return Home(database, VOIDING)
