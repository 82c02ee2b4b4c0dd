"""The last hours as lanes: what is drawn where."""

from __future__ import annotations

import datetime as dt

from flags.changes import FlagChange
from router.console.lanes import WINDOWS
from router.console.page_now import who_set
from router.console.timeline import percentile, timeline
from router.ledger.console import Count
from router.ledger.flips import Flip
from router.transitions import State, Transition

NOW = dt.datetime(2026, 11, 21, 14, 0, 5, tzinfo=dt.UTC)
WINDOW = WINDOWS["15m"]
END = dt.datetime(2026, 11, 21, 14, 0, 10, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    """So long before the window's end."""
    return END - dt.timedelta(seconds=seconds)


def move(version: int, state: State, seconds: float, **more: object) -> Transition:
    return Transition("stripe", version, state, at(seconds), "worker:1", "why", **more)  # type: ignore[arg-type]


def change(seconds: float, old: str | None, new: str) -> FlagChange:
    told = None if old is None else {"on": True, "serves": old}
    return FlagChange(1, "flag", "payments-primary-provider", 1, told, {"on": True, "serves": new}, at(seconds), "w")


def flip(**more: object) -> Flip:
    values = {"state": "confirmed", "incident": "inc_stripe_1", "reason": "open too long", "evidence": {}} | more
    return Flip("flip_1", "flag", "stripe", "adyen", created_at=at(100), **values)  # type: ignore[arg-type]


def drawn(**more: object):  # type: ignore[no-untyped-def]
    values = {"counts": [], "moves": {}, "changes": [], "primary": "stripe", "flips": []} | more
    return timeline(WINDOW, NOW, ("stripe", "adyen"), **values)  # type: ignore[arg-type]


def test_bars_stand_on_each_other_and_are_as_high_as_their_share_of_the_fullest() -> None:
    """Ten approved and ten declined of Stripe's fill its lane; five of Adyen's a quarter of theirs."""
    lanes = drawn(
        counts=[
            Count(at(20), "stripe", "approved", 10),
            Count(at(20), "stripe", "declined", 10),
            Count(at(10), "adyen", "not_executed", 3),
            Count(at(10), "adyen", None, 2),
            Count(at(901), "stripe", "approved", 99),
        ]
    ).lanes

    assert [(bar.x, bar.y, bar.height, bar.kind) for bar in lanes[0].bars] == [
        (88, 50.0, 50.0, "approved"),
        (88, 0.0, 50.0, "declined"),
    ]
    assert [(bar.x, bar.y, bar.height, bar.kind) for bar in lanes[1].bars] == [
        (89, 85.0, 15.0, "failed"),
        (89, 75.0, 10.0, "unknown"),
    ]
    assert (lanes[0].approval_rate, lanes[1].approval_rate, lanes[1].failed) == (0.5, None, 5)


def test_the_approval_line_breaks_where_issuers_did_not_answer() -> None:
    """Two neighbours make a line, a lone bucket a dot, two answers nothing."""
    counts = [Count(at(seconds), "stripe", "approved", 4) for seconds in (100, 90, 50)]
    counts += [Count(at(90), "stripe", "declined", 4), Count(at(30), "stripe", "approved", 2)]
    lane = drawn(counts=counts).lanes[0]

    assert lane.approval == "M80.5 0 L81.5 50"
    assert lane.dots == [(85.5, 0.0)]


def test_a_circuits_bands_meet_and_fill_the_time_until_now() -> None:
    """Closed before its first move; each state until the next; nothing after this moment."""
    moves = [
        move(4, State.CLOSED, 30, suspect=True),
        move(3, State.SLOW_START, 60, share=0.25),
        move(2, State.HALF_OPEN, 100),
        move(1, State.OPEN, 200),
    ]
    bands = drawn(moves={"stripe": moves}).lanes[0].bands

    assert [(band.kind, band.x, band.width) for band in bands] == [
        ("closed", 0.0, 70.0),
        ("open", 70.0, 10.0),
        ("half_open", 80.0, 4.0),
        ("slow_start", 84.0, 3.0),
        ("suspect", 87.0, 2.5),
    ]
    assert "25%" in bands[3].title


def test_an_outage_of_a_second_is_still_seen() -> None:
    """It has a least width; and what began before the window begins with it."""
    bands = drawn(moves={"stripe": [move(2, State.CLOSED, 99), move(1, State.OPEN, 100)]}).lanes[0].bands
    assert [band.kind for band in bands] == ["closed", "open", "closed"]
    assert bands[1].width >= WINDOW.buckets / 400
    assert [band.kind for band in drawn(moves={"stripe": [move(1, State.OPEN, 5000)]}).lanes[0].bands] == ["open"]


def test_the_primary_is_drawn_as_the_flag_served_it_and_a_flip_is_marked() -> None:
    """Stripe until the change, Adyen since; the flip's override and its write are two marks."""
    found = drawn(
        primary="adyen",
        changes=[change(90, "stripe", "adyen")],
        flips=[flip(confirmed_at=at(90), requested_at=at(91))],
    )

    assert [(band.kind, band.x, band.width) for band in found.primary] == [
        ("stripe", 0.0, 81.0),
        ("adyen", 81.0, 8.5),
    ]
    assert [(mark.kind, mark.x) for mark in found.marks] == [("flip", 80.0), ("written", 81.0)]
    assert [each.kind for each in found.news] == ["flag", "flip"]


def test_what_is_not_known_of_the_primary_is_left_out() -> None:
    """Before the router first saw the flag, nothing is claimed."""
    assert [band.x for band in drawn(changes=[change(90, None, "stripe")]).primary] == [81.0]


def test_probes_that_fail_again_are_no_news() -> None:
    """One line for the opening, however many rounds follow."""
    moves = [
        move(5, State.OPEN, 10, failed_rounds=2),
        move(4, State.HALF_OPEN, 20),
        move(3, State.OPEN, 30, failed_rounds=1),
        move(2, State.HALF_OPEN, 40),
        move(1, State.OPEN, 50),
    ]
    assert [each.at for each in drawn(moves={"stripe": moves}).news] == [at(50)]


def test_rounds_of_probes_are_drawn_only_where_they_can_be_seen() -> None:
    """In a quarter of an hour each of them; in six hours the outage that they were in."""
    moves = [
        move(4, State.CLOSED, 20),
        move(3, State.HALF_OPEN, 21),
        move(2, State.HALF_OPEN, 41),
        move(1, State.OPEN, 60),
    ]
    assert [band.kind for band in drawn(moves={"stripe": moves}).lanes[0].bands] == [
        *("closed", "open", "half_open", "half_open", "closed"),
    ]
    found = timeline(
        WINDOWS["6h"], NOW, ("stripe",), counts=[], moves={"stripe": moves}, changes=[], primary="stripe", flips=[]
    )
    assert [band.kind for band in found.lanes[0].bands] == ["closed", "open", "closed"]


def test_a_relapse_in_slow_start_is_news() -> None:
    """It counts as a failed round, too; but payments had begun to come back, and are kept away again."""
    moves = [
        move(4, State.OPEN, 10, failed_rounds=1),
        move(3, State.SLOW_START, 20, share=0.1),
        move(2, State.HALF_OPEN, 30),
        move(1, State.OPEN, 40),
    ]
    assert [each.at for each in drawn(moves={"stripe": moves}).news] == [at(10), at(20), at(40)]


def test_a_circuit_is_not_drawn_as_closed_before_what_is_known_of_it() -> None:
    """Moves that were cut off leave a gap; only before the first of all was it closed."""
    moves = [move(9, State.CLOSED, 30), move(8, State.OPEN, 100)]
    assert [band.kind for band in drawn(moves={"stripe": moves}).lanes[0].bands] == ["open", "closed"]


def test_who_set_the_flag_is_the_machine_only_where_its_write_fits() -> None:
    """A flip's write, a restore's, a person's, and what was there before."""
    newest = change(90, "stripe", "adyen")
    by_us = who_set([newest], [flip(requested_at=at(91))])
    assert by_us is not None
    assert (by_us.who, by_us.flip) == ("pointsman, by flip", "flip_1")
    restored = who_set([newest], [flip(requested_at=at(500), restore_sent_at=at(91), restore_by="operator: Ada")])
    assert restored is not None
    assert restored.who == "restored for operator: Ada"
    for flips in ([], [flip()], [flip(requested_at=at(89))], [flip(requested_at=at(500))]):
        found = who_set([newest], flips)
        assert found is not None
        assert (found.who, found.flip) == ("a person", None)
    first = who_set([change(90, None, "stripe")], [])
    assert first is not None
    assert "first saw" in first.who
    assert who_set([], []) is None


def test_percentiles_are_of_the_nearest_rank() -> None:
    """Of nothing there is none; of one it is that."""
    assert percentile([], 0.5) is None
    assert percentile([7], 0.95) == 7
    assert (percentile(range(1, 101), 0.5), percentile(range(1, 101), 0.95)) == (50, 95)
