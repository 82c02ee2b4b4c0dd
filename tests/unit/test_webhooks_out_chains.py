"""What may be sent now, in which order, and how long what is refused waits: the pure parts of webhooks out."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from router.ledger.webhook_records import Delivery
from router.webhooks_out_chains import chains
from router.webhooks_out_retries import LEAST_TRIES, LONGEST_PAUSE_S, TRIED_FOR, is_over, pause_s, wait_s

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def _delivery(number: int, payment: int, version: int, in_s: int) -> Delivery:
    return Delivery(
        number=number,
        endpoint_id="whe_1",
        event_id=f"pay_{payment}:{version}",
        type="t",
        payment_id=f"pay_{payment}",
        version=version,
        state="pending",
        attempts=0,
        failures=0,
        failing_since=None,
        next_try_at=NOW + dt.timedelta(seconds=in_s),
        created_at=NOW,
    )


PLACES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(-3, 3)), unique_by=lambda each: each[:2], max_size=20
)


@given(PLACES)
def test_a_payments_events_go_in_order_and_none_before_its_first_is_due(places: list[tuple[int, int, int]]) -> None:
    """Every payment whose first is due goes, whole; of the others none does, and all wait as long as their first."""
    pending = [_delivery(number, *place) for number, place in enumerate(sorted(places))]
    of_payment: dict[str, list[Delivery]] = defaultdict(list)
    for each in pending:
        of_payment[each.payment_id].append(each)
    due, postponed = chains(pending, NOW)
    assert sorted((list(chain) for chain in due), key=lambda chain: chain[0].payment_id) == [
        whole for whole in of_payment.values() if whole[0].next_try_at <= NOW
    ]
    firsts = [chain[0].next_try_at for chain in due]
    assert firsts == sorted(firsts)
    for each in postponed:
        first = of_payment[each.payment_id][0]
        assert each.next_try_at == first.next_try_at > NOW
        assert next(was for was in pending if was.number == each.number).next_try_at < first.next_try_at


def test_waits_double_with_a_quarter_of_chance_up_to_an_hour() -> None:
    """In a day an event is tried some thirty times."""
    assert [wait_s(failures, 0.5) for failures in (1, 2, 3, 11, 99)] == [5, 10, 20, 3600, 3600]
    assert (wait_s(1, 0), wait_s(1, 1)) == (3.75, 6.25)
    assert [pause_s(failures, 0.5) for failures in (1, 2, 8, 99)] == [1, 2, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    tries, waited = 0, 0.0
    while waited < TRIED_FOR.total_seconds():
        tries += 1
        waited += wait_s(tries, 0.5)
    assert 28 <= tries <= 40


def test_trying_ends_after_a_day_of_tries() -> None:
    """Neither sooner, nor for want of tries."""
    day = NOW - TRIED_FOR
    assert is_over(day, LEAST_TRIES, NOW)
    assert not is_over(day, LEAST_TRIES - 1, NOW)
    assert not is_over(day + dt.timedelta(seconds=1), 99, NOW)
