"""Hours and days of simulated time: no flap, no more writes than the limits allow. `make flip-table` shows it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from router.clock import ManualClock, SequentialIds
from router.flip_rules import Limits
from router.ledger.engine import Database
from router.ledger.flips import Flip
from router.transitions import State
from tests.fakes.flags import FakeStore
from tests.fakes.flips import FlipWorker

HOUR_S = 3600


def crowd(database: Database, store: FakeStore) -> list[FlipWorker]:
    """Two workers under the limits that are the default, who set the flag back by themselves."""
    ids = SequentialIds()
    return [
        FlipWorker(
            database,
            store.clock,
            store.source,
            store,
            ids,
            limits=Limits(),
            changes=store.changes,
            restore="automatic",
        )
        for _ in range(2)
    ]


def play(workers: list[FlipWorker], *, for_s: int, step_s: int, is_down: Callable[[int], bool]) -> dict[str, float]:
    """The circuit follows the provider; seconds in which payments went to a broken primary, and to a stand-in."""
    seconds = {"down": 0.0, "primary down": 0.0, "opened": 0.0}
    state = State.CLOSED
    for now_s in range(0, for_s, step_s):
        wanted = State.OPEN if is_down(now_s) else State.CLOSED
        if wanted is not state:
            workers[0].go(wanted)
            seconds["opened"] += wanted is State.OPEN
            state = wanted
        for worker in workers:
            worker.run_once()
        seconds["down"] += step_s * is_down(now_s)
        seconds["primary down"] += step_s * (is_down(now_s) and workers[0].primary == "stripe")
        workers[0].clock.advance(step_s)
    return seconds


def table(title: str, worker: FlipWorker, store: FakeStore, seconds: dict[str, float]) -> str:
    """What happened, for people."""
    lines = [title, f"{'decided':>9} {'confirmed':>9} {'restored':>9}  state      incident        from -> to"]
    lines += [_line(flip) for flip in reversed(worker.rows())]
    lines.append(
        f"circuit opened {seconds['opened']:.0f} times, down for {seconds['down']:.0f} s, of which the primary was"
        f" the failing provider for {seconds['primary down']:.0f} s; {len(store.moves)} writes, alerts: "
        + (", ".join(f"{worker.told.count(kind)} {kind}" for kind in dict.fromkeys(worker.told)) or "none")
    )
    return "\n".join(lines)


def _line(flip: Flip) -> str:
    moments = (flip.created_at, flip.confirmed_at, flip.restored_at)
    shown = " ".join(f"{'-' if each is None else format(each, '%H:%M:%S'):>9}" for each in moments)
    return f"{shown}  {flip.state:<10} {flip.incident:<15} {flip.from_value} -> {flip.to_value}"


def most_in_an_hour(store: FakeStore) -> int:
    """Of all writes to the flag, the most in any hour."""
    at = [each.at for each in store.audit]
    return max((sum(0 <= (other - each).total_seconds() < HOUR_S for other in at) for each in at), default=0)


def test_a_provider_that_flaps_for_an_hour_is_flipped_away_from_exactly_once(database: Database) -> None:
    """Twenty seconds down, twenty up: ninety openings, one flip, and the primary stays where it was moved to."""
    store = FakeStore(ManualClock())
    workers = crowd(database, store)
    seconds = play(workers, for_s=HOUR_S, step_s=4, is_down=lambda now_s: now_s % 40 < 20)
    print(table("\n20 s down, 20 s up, for an hour", workers[0], store, seconds))
    assert seconds["opened"] == 90
    assert [flip.state for flip in workers[0].rows()] == ["confirmed"]
    assert (len(store.moves), store.primary) == (1, "third")
    # Sixty seconds of open time are a minute and forty of this.
    assert seconds["primary down"] <= 64


def test_a_provider_that_is_down_ten_minutes_each_hour_for_a_day_stays_within_the_limits(database: Database) -> None:
    """Restored by itself: a flip and a restore each hour, ten minutes apart at least."""
    store = FakeStore(ManualClock())
    workers = crowd(database, store)
    seconds = play(workers, for_s=24 * HOUR_S, step_s=120, is_down=lambda now_s: now_s % HOUR_S < 600)
    print(table("\nten minutes down each hour for a day, restored by itself", workers[0], store, seconds))
    rows = workers[0].rows()
    assert [flip.state for flip in rows] == ["restored"] * 24
    assert len(store.moves) == 48
    assert most_in_an_hour(store) <= Limits().per_hour
    at = [each.at for each in store.audit]
    apart = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(at)]
    assert min(apart) >= Limits().cooldown_s
    assert store.primary == "stripe"
