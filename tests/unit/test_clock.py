"""Time and ids, as values that are passed in."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from router.clock import CROCKFORD, ManualClock, SequentialIds, SystemClock, TimeOrderedIds
from tests.fakes.threads import together


def test_an_id_is_its_prefix_and_twenty_six_letters_that_cannot_be_misread() -> None:
    """No i, l, o or u: an id can be read out on the phone."""
    prefix, _, rest = TimeOrderedIds(SystemClock()).new("pay").partition("_")
    assert prefix == "pay"
    assert len(rest) == 26
    assert set(rest) <= set(CROCKFORD)
    assert not set(CROCKFORD) & set("ilou")
    assert len(CROCKFORD) == 32


def test_later_ids_are_greater() -> None:
    """By the millisecond, over milliseconds, days and a century: new rows land at an index's end."""
    clock = ManualClock()
    ids = TimeOrderedIds(clock)
    made = []
    for step in (0.001, 0.001, 1, 86_400, 3_155_760_000):
        made.append(ids.new("pay"))
        clock.advance(step)
    made.append(ids.new("pay"))
    assert made == sorted(made)
    assert {len(each) for each in made} == {30}


def test_the_time_of_an_id_is_that_of_the_clock() -> None:
    """The first ten letters are milliseconds since 1970, as the ULID's specification has it."""
    number = 0
    for letter in TimeOrderedIds(ManualClock()).new("pay").removeprefix("pay_")[:10]:
        number = number * 32 + CROCKFORD.index(letter)
    assert dt.datetime.fromtimestamp(number / 1000, dt.UTC) == dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


@pytest.mark.parametrize("ids", [TimeOrderedIds(ManualClock()), SequentialIds()])
def test_ids_made_in_the_same_millisecond_by_many_threads_are_all_different(
    ids: TimeOrderedIds | SequentialIds,
) -> None:
    """The clock stands still, so only the random part tells them apart."""
    made: list[list[str]] = []

    together([lambda: made.append([ids.new("att") for _ in range(500)])] * 16)
    assert len({each for part in made for each in part}) == 16 * 500


def test_sequential_ids_are_the_same_in_every_run() -> None:
    """One count over all prefixes."""
    ids = SequentialIds()
    assert [ids.new("pay"), ids.new("att"), ids.new("pay")] == ["pay_1", "att_2", "pay_3"]


def test_a_manual_clock_moves_only_when_told_to() -> None:
    """Both its hands together; a sleep takes no time at all."""
    clock = ManualClock()
    assert (clock.now(), clock.monotonic()) == (dt.datetime(2026, 11, 21, tzinfo=dt.UTC), 0)
    clock.advance(1.5)
    clock.sleep(3600)
    assert clock.monotonic() == 3601.5
    assert clock.now() - dt.datetime(2026, 11, 21, tzinfo=dt.UTC) == dt.timedelta(seconds=3601.5)


def test_the_machines_clock_is_aware_and_does_not_step_back() -> None:
    """UTC for records; a monotonic one for durations; a sleep that takes its time."""
    clock = SystemClock()
    assert clock.now().utcoffset() == dt.timedelta()
    before = clock.monotonic()
    clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.01


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    """Random bytes are drawn many at a time: what is left of them must not be used twice."""
    ids = TimeOrderedIds(ManualClock())
    ids.new("pay")
    come, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(go, "\n".join(ids.new("pay") for _ in range(50)).encode())
        os._exit(0)
    os.close(go)
    with os.fdopen(come) as told:
        theirs = set(told.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert not theirs & {ids.new("pay") for _ in range(50)}


def test_ids_are_all_different_beyond_one_drawing() -> None:
    ids = TimeOrderedIds(ManualClock())
    assert len({ids.new("pay") for _ in range(10_000)}) == 10_000
