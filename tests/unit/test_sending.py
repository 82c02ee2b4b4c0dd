"""The sends of an attempt: the same key again while it is unknown, and never more than is proved."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.contract import Health, Money, Outcome, OutcomeKind, Timeouts
from router.clock import ManualClock
from router.ledger.records import Attempt
from router.sending import LEAST_TIME_S, RESEND_WAIT_S, SENDS_IN_A_REQUEST, Sender, SendTimes, learned
from tests.fakes.providers import AUTHORIZED, CAPTURED, REFUSED, REJECTED, UNKNOWN, Call, FakeProvider, declined

DEADLINE_S = 25.0
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
NOTHING_CHARGED = Outcome(
    OutcomeKind.NOT_EXECUTED, Health.PROVIDER_ERROR, "acquirer_error", provider_reference="ref_1", final_record=True
)
PENDING = Outcome(OutcomeKind.UNKNOWN, Health.OK, "pending", provider_reference="ref_1")
ATTEMPT = Attempt("att_1", "pay_1", 1, "stripe", "att_1", {"payment": "pay_1", "amount": 1999}, NOW, at_once=True)


def boom(*_args: Any, **_named: Any) -> Any:
    """An adapter's own fault."""
    raise RuntimeError("an adapter must not raise")


def sender_of(
    provider: FakeProvider, clock: ManualClock | None = None, random: Callable[[], float] = lambda: 0.5
) -> Sender:
    """A sender that knows this one."""
    times = SendTimes(connect_s=1.0, read_s=10.0)
    return Sender({provider.name: provider}, times, clock=clock or ManualClock(), random=random)


class Leave:
    """Leave to call a provider as often as one likes; remembers what each send said."""

    def __init__(self) -> None:
        self.taught: list[Health] = []
        self.end = self.taught.append

    def begin(self) -> bool:
        return True

    def may_go_again(self, _reason: str | None) -> bool:
        return True


def leave() -> Any:
    """A `router.health.Call`."""
    return Leave()


def authorize(*outcomes: Outcome, left_s: float = DEADLINE_S) -> tuple[Attempt, Outcome, FakeProvider, list[Health]]:
    """An attempt whose sends are answered so; how it ended, and what was asked and learned."""
    provider, call = FakeProvider("stripe", outcomes), leave()
    attempt, outcome = sender_of(provider).authorize(ATTEMPT, left_s, call)
    return attempt, outcome, provider, call.taught


@pytest.mark.parametrize("outcome", [CAPTURED, AUTHORIZED, declined(), REFUSED, REJECTED, PENDING])
def test_what_the_first_send_settles_is_sent_once(outcome: Outcome) -> None:
    """An approval, a decline, a proof that nothing happened, or a payment that the provider has and works on."""
    attempt, told, provider, taught = authorize(outcome)
    assert (told, len(provider.calls), taught) == (outcome, 1, [outcome.health])
    assert (attempt.outcome, attempt.sends) == (outcome.kind.value, 1)


@pytest.mark.parametrize("later", [CAPTURED, declined(), NOTHING_CHARGED])
@pytest.mark.parametrize("between", [(), (UNKNOWN,), (REFUSED,)], ids=len)
def test_an_unknown_send_is_repeated_under_its_own_key_until_it_is_known(
    between: tuple[Outcome, ...], later: Outcome
) -> None:
    """The same key and the same parameters, byte for byte; the provider's answer to them is believed."""
    attempt, told, provider, taught = authorize(UNKNOWN, *between, later)
    assert told == later
    assert {(each.idempotency_key, id(each.params)) for each in provider.calls} == {("att_1", id(ATTEMPT.params))}
    assert (attempt.outcome, attempt.sends) == (later.kind.value, len(between) + 2)
    assert taught == [each.health for each in (UNKNOWN, *between, later)]


@pytest.mark.parametrize("then", [REFUSED, REJECTED, dataclasses.replace(REFUSED, reason="rate_limited")])
def test_unknown_and_then_refused_stays_unknown(then: Outcome) -> None:
    """A refused re-send proves nothing about the first: it must not fail over."""
    attempt, told, provider, _ = authorize(UNKNOWN, then, then)
    assert told == UNKNOWN
    assert (attempt.outcome, attempt.reason, attempt.sends) == ("unknown", "http_503", SENDS_IN_A_REQUEST)
    assert len(provider.calls) == SENDS_IN_A_REQUEST


ANY = st.sampled_from([UNKNOWN, REFUSED, REJECTED, CAPTURED, declined(), PENDING, NOTHING_CHARGED])


@given(st.lists(ANY, min_size=4, max_size=4))
def test_only_a_first_send_or_the_providers_record_can_prove_that_nothing_happened(outcomes: list[Outcome]) -> None:
    """Whatever the sends say: not executed only where the one and only send was, never above the bound of sends."""
    attempt, told, provider, _ = authorize(*outcomes)
    assert 1 <= attempt.sends == len(provider.calls) <= SENDS_IN_A_REQUEST
    if told.kind is OutcomeKind.NOT_EXECUTED and not told.final_record:
        assert outcomes[0].kind is OutcomeKind.NOT_EXECUTED
        assert attempt.sends == 1
    if outcomes[0] is UNKNOWN and told is not UNKNOWN:
        assert told.kind in (OutcomeKind.APPROVED, OutcomeKind.DECLINED) or told.final_record


def test_without_time_nothing_is_sent() -> None:
    """A commit that took too long: proved not executed, and no mark against the provider."""
    attempt, told, provider, taught = authorize(left_s=LEAST_TIME_S / 2 - 0.01)
    assert (told.kind, told.reason, provider.calls) == (OutcomeKind.NOT_EXECUTED, "no_time_left", [])
    assert (attempt.outcome, taught) == ("not_executed", [])


def test_a_send_that_used_the_time_up_is_not_repeated_and_stays_unknown() -> None:
    """There is no time for a second; that proves nothing about the first."""
    clock, provider = ManualClock(), FakeProvider("stripe", [UNKNOWN])
    provider.during = lambda _call: clock.advance(9.8)
    attempt, told = sender_of(provider, clock).authorize(ATTEMPT, 10.0, leave())
    assert (len(provider.calls), told, attempt.outcome, attempt.sends) == (1, UNKNOWN, "unknown", 1)
    assert attempt.latency_us is not None
    assert 9_800_000 <= attempt.latency_us <= 10_000_000


def test_a_circuit_that_opened_since_lets_nothing_be_sent() -> None:
    """Between the commit and the call: proved not executed, so the next provider may be tried."""
    provider, call = FakeProvider("stripe", [CAPTURED]), leave()
    call.begin = lambda: False
    attempt, told = sender_of(provider).authorize(ATTEMPT, DEADLINE_S, call)
    assert (told.kind, told.reason, provider.calls) == (OutcomeKind.NOT_EXECUTED, "circuit_opened", [])
    assert (attempt.outcome, call.taught) == ("not_executed", [])


def test_a_re_send_that_may_not_go_leaves_it_unknown() -> None:
    """The circuit opened, or the budget for re-sends is spent: the worker finds out."""
    provider, call = FakeProvider("stripe", [UNKNOWN, CAPTURED]), leave()
    call.may_go_again = lambda reason: reason != UNKNOWN.reason
    attempt, told = sender_of(provider).authorize(ATTEMPT, DEADLINE_S, call)
    assert (told, attempt.outcome, attempt.sends) == (UNKNOWN, "unknown", 1)


@given(st.floats(0, 1, exclude_max=True))
def test_waits_between_sends_are_within_their_bounds(drawn: float) -> None:
    """Long enough for a new connection, short enough for a request; at both ends of the randomness."""
    clock, provider, at = ManualClock(), FakeProvider("stripe", [UNKNOWN] * 3), list[float]()

    def note(_call: Call) -> None:
        at.append(clock.monotonic())

    provider.during = note
    sender_of(provider, clock, lambda: drawn).authorize(ATTEMPT, DEADLINE_S, leave())
    least, most = RESEND_WAIT_S
    assert len(at) == SENDS_IN_A_REQUEST
    for before, after in itertools.pairwise(at):
        assert after - before == pytest.approx(least + (most - least) * drawn)
        assert least <= round(after - before, 9) <= most


@given(st.floats(0, 30), st.floats(0, 12))
def test_no_send_and_no_wait_goes_beyond_the_deadline(left_s: float, each_takes_s: float) -> None:
    """Every send's bounds fit into what is left, and nothing starts without half of the least time."""
    clock, provider, asked = ManualClock(), FakeProvider("stripe", [UNKNOWN] * 3), list[Timeouts]()

    def take(call: Call) -> None:
        left = left_s - clock.monotonic()
        assert left >= LEAST_TIME_S / 2
        assert call.timeouts.connect_s > 0
        assert call.timeouts.read_s > 0
        assert call.timeouts.connect_s + call.timeouts.read_s <= left + 1e-9
        asked.append(call.timeouts)
        clock.advance(min(each_takes_s, call.timeouts.connect_s + call.timeouts.read_s))

    provider.during = take
    sender_of(provider, clock, lambda: 1.0).authorize(ATTEMPT, left_s, leave())
    assert clock.monotonic() <= left_s + 1e-6
    assert len(asked) <= SENDS_IN_A_REQUEST


def test_an_adapter_that_raises_may_have_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against its contract: unknown, so sent again under its key and never failed over."""
    provider = FakeProvider("stripe")
    monkeypatch.setattr(provider, "authorize", boom)
    attempt, told = sender_of(provider).authorize(ATTEMPT, DEADLINE_S, leave())
    assert (told.kind, told.reason, attempt.outcome) == (OutcomeKind.UNKNOWN, "adapter_failed", "unknown")
    assert attempt.sends == SENDS_IN_A_REQUEST


@pytest.mark.parametrize("outcome", [UNKNOWN, REFUSED, REJECTED, PENDING])
def test_a_workers_re_send_that_says_nothing_leaves_it_unknown(outcome: Outcome) -> None:
    """A process that died left it `started`: from now on it is unknown, and one more send is counted."""
    provider = FakeProvider("stripe", [outcome])
    attempt, told = sender_of(provider).resend(ATTEMPT, DEADLINE_S)
    assert (attempt.outcome, attempt.sends, told) == ("unknown", 2, outcome)
    assert provider.calls[0].idempotency_key == "att_1"


def test_a_workers_re_send_that_is_answered_ends_it() -> None:
    """Captured with its approval, as it was sent to be."""
    attempt, _ = sender_of(FakeProvider("stripe", [CAPTURED])).resend(ATTEMPT, DEADLINE_S)
    assert (attempt.outcome, attempt.capture, attempt.sends) == ("approved", "done", 2)


def test_what_a_provider_charges_is_kept_with_the_attempt() -> None:
    """Once told, an answer that does not tell it again takes nothing back."""
    told = learned(ATTEMPT, dataclasses.replace(CAPTURED, fee=Money(90, "EUR")), NOW)
    assert (told.fee_actual, told.fee_currency) == (90, "EUR")
    again = learned(told, CAPTURED, NOW)
    assert (again.fee_actual, again.fee_currency) == (90, "EUR")
    assert (learned(ATTEMPT, CAPTURED, NOW).fee_actual, learned(ATTEMPT, CAPTURED, NOW).fee_currency) == (None, None)
    later = learned(learned(ATTEMPT, CAPTURED, NOW), dataclasses.replace(CAPTURED, fee=Money(7, "USD")), NOW)
    assert (later.fee_actual, later.fee_currency) == (7, "USD")
