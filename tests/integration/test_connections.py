"""How many connections a process may have to SQLite at once, and how many it keeps."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from router.ledger.engine import KEPT_BY_A_WORKER, KEPT_CONNECTIONS, OVERFLOW, Database


@pytest.mark.parametrize("kept", [KEPT_CONNECTIONS, KEPT_BY_A_WORKER])
@pytest.mark.parametrize("threads", [1, 2, KEPT_CONNECTIONS, KEPT_CONNECTIONS + 1, 40])
def test_as_many_as_there_is_room_for_may_be_in_use_and_few_are_kept(tmp_path: Path, threads: int, kept: int) -> None:
    """Threads, loops, and no more: one beyond them waits. A busy minute's are closed when they come back."""
    database = Database(f"sqlite:///{tmp_path}/ledger.db", pool_size=threads, kept=kept)
    pool = database.engine.pool
    assert isinstance(pool, sa.QueuePool)
    pool._timeout = 0.01
    for _ in range(2):
        with contextlib.ExitStack() as in_use:
            for _ in range(threads + OVERFLOW):
                in_use.enter_context(database.look())
            assert pool.checkedout() == database.most_connections == threads + OVERFLOW
            with pytest.raises(sa.exc.TimeoutError):
                database.engine.connect()
        assert (pool.checkedout(), pool.checkedin()) == (0, min(threads, kept))
    database.close()
