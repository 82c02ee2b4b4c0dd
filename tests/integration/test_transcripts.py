"""Card numbers planted in hundreds of exchanges with a real router: none survives (at length: `make transcripts`)."""

from __future__ import annotations

import random
from pathlib import Path

from providers.sandbox.server import Sandbox
from tests.integration.transcripts import WRITTEN, Searcher, card_number, run

COUNT = 300


def test_no_planted_card_number_survives(sandbox: Sandbox, tmp_path: Path) -> None:
    """Not in an answer, the log, what Sentry was sent, or the bytes of the ledger's files."""
    found = run(COUNT, 7, tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}", sandbox)
    assert found.survivors == []
    assert found.planted == COUNT
    # That nothing was found says something only if there was something to search.
    assert found.refused > COUNT / 4
    assert min(found.rows[name] for name in ("payments", "attempts", "webhooks", "payment_events")) > 5
    assert all(found.searched_bytes[where] > 10_000 for where in ("answers", "log", "Sentry", "ledger.db"))


def test_the_search_finds_each_way_of_writing_it() -> None:
    """By its own means: a search that finds nothing proves nothing."""
    draw, searcher = random.Random(1), Searcher()
    for write in WRITTEN.values():
        number = card_number(draw)
        searcher.planted.add(number)
        assert searcher.found(f'{{"note": "a {write(number)} b"}}') == {number}
