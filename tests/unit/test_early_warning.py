"""The early warning of one provider: when it suspects, when it calms, and that trouble is not learned as normal."""

from __future__ import annotations

from router.breaker import BreakerSettings
from router.early_warning import EarlyWarning
from router.histogram import bucket_of
from router.windows import Counts

WELL = Counts(10, 0, 0, 0, {bucket_of(0.2): 2, bucket_of(0.3): 5, bucket_of(0.45): 3})
SLOW = Counts(10, 0, 0, 0, {bucket_of(0.6): 2, bucket_of(0.9): 5, bucket_of(1.35): 3})
FAILED = Counts(10, 10, 10)
NOTHING = Counts()
USUAL = Counts(20_000, 100, 0, 0, {bucket_of(0.2): 3980, bucket_of(0.3): 9950, bucket_of(0.45): 5970})


def watched() -> EarlyWarning:
    """A provider whose last hour is known, and that is well at second 0."""
    warning = EarlyWarning("stripe", BreakerSettings())
    warning.load(USUAL, 0.0, hours_ago=1)
    warning.feed(WELL, 0.0)
    return warning


def test_a_provider_that_is_well_is_not_suspect() -> None:
    """Nor does it have a reason to be."""
    warning = watched()
    for second in range(1, 300):
        assert not warning.feed(WELL, float(second))
    assert not warning.suspect
    assert warning.calm
    assert warning.reason == ""


def test_failures_make_it_suspect_and_say_so() -> None:
    """The change is told once."""
    warning = watched()
    assert warning.feed(FAILED, 1.0)
    assert not warning.feed(FAILED, 1.2)
    assert warning.suspect
    assert warning.reason == "more failures than the usual 0.5%"
    assert warning.evidence()["error_cusum"] == 24.0


def test_slower_answers_make_it_suspect_and_say_so() -> None:
    """Three times slower, all of them successes."""
    warning = watched()
    changed = [warning.feed(SLOW, 1.0 + i) for i in range(3)]
    assert changed.count(True) == 1
    assert warning.reasons == ("slower than usual (median 0.31 s)",)


def test_a_busy_machine_makes_no_quick_stand_in_suspect() -> None:
    """What usually answers within 2 ms takes 40 ms when the processor is shared; 200 ms are slow whoever it is."""
    warning = EarlyWarning("stripe", BreakerSettings())
    warning.load(Counts(20_000, 0, 0, 0, {bucket_of(0.002): 20_000}), 0.0, hours_ago=1)
    for i in range(100):
        assert not warning.feed(Counts(10, 0, 0, 0, {bucket_of(0.04): 10}), i * 0.2)
    assert [warning.feed(Counts(10, 0, 0, 0, {bucket_of(0.2): 10}), 20.0 + i) for i in range(3)].count(True) == 1


def test_latency_says_nothing_before_it_is_known() -> None:
    """A process that knows no past of this provider cannot say that it is slower."""
    warning = EarlyWarning("stripe", BreakerSettings())
    for i in range(40):
        warning.feed(SLOW, i * 0.2)
    assert not warning.suspect
    assert "latency_cusum" not in warning.evidence()


def test_it_calms_with_good_calls() -> None:
    """Some 210 of them, and the change is told."""
    warning = watched()
    warning.feed(FAILED, 1.0)
    changed = [warning.feed(WELL, 1.0 + i * 0.1) for i in range(1, 30)]
    assert changed.count(True) == 1
    assert not warning.suspect


def test_one_that_is_sent_nothing_is_asked_again_within_four_minutes() -> None:
    """It cannot prove itself: what speaks against it halves every minute."""
    warning = watched()
    warning.feed(FAILED, 1.0)
    for second in range(2, 110):
        warning.feed(NOTHING, float(second))
    assert warning.suspect
    for second in range(110, 240):
        warning.feed(NOTHING, float(second))
    assert not warning.suspect


def test_trouble_is_not_learned() -> None:
    """Neither while suspect nor while the caller says that the provider is not healthy."""
    warning = watched()
    before = warning.thresholds(0.0)
    warning.feed(FAILED, 1.0)
    for minute in range(1, 20):
        warning.feed(FAILED, minute * 60.0)
        assert warning.thresholds(minute * 60.0 + 30) is before
    assert warning.evidence()["base_failure_rate"] == 0.005
    other = watched()
    before = other.thresholds(0.0)
    for minute in range(1, 20):
        other.feed(WELL, minute * 60.0, healthy=False)
        assert other.thresholds(minute * 60.0 + 30) is before


def test_after_an_hour_of_suspicion_it_learns_again() -> None:
    """Or a provider that has moved to another continent would be suspect for ever."""
    warning = watched()
    before = warning.thresholds(0.0)
    for second in range(10, 3600, 10):
        warning.feed(SLOW, float(second), healthy=False)
    assert warning.thresholds(3600.0) is before
    for second in range(3600, 3800, 10):
        warning.feed(SLOW, float(second), healthy=False)
    assert warning.thresholds(3900.0) is not before


def test_reset_suspects_nothing_and_keeps_what_is_normal() -> None:
    """For a circuit that opened: what was before it closes says nothing of after."""
    warning = watched()
    warning.feed(FAILED, 1.0)
    warning.reset()
    assert not warning.suspect
    assert warning.calm
    assert warning.evidence()["base_failure_rate"] == 0.005


def test_a_failure_whose_call_was_counted_before_is_a_failure() -> None:
    """A call that hung counted in an earlier batch; then it fails, and the batch has no call of its own."""
    warning = watched()
    for i in range(5):
        warning.feed(Counts(0, 1), 1.0 + i)
    assert warning.suspect


# ---------------------------------------------------------------- a provider that is not known yet


def test_nothing_is_suspected_before_two_hundred_calls_are_known() -> None:
    """A provider that fails at once may always do so; from the two hundredth call on it is judged."""
    warning = EarlyWarning("stripe", BreakerSettings())
    for i in range(20):
        assert not warning.can_judge
        assert not warning.feed(FAILED, i * 0.2)
        assert warning.evidence()["error_cusum"] == 0.0, "what was seen before is not held against it later"
    assert warning.can_judge
    assert warning.feed(FAILED, 5.0)
    assert warning.suspect


def test_calls_of_earlier_hours_count_as_known() -> None:
    """A process that begins knows what the ledger kept: it suspects from its first call on."""
    warning = EarlyWarning("stripe", BreakerSettings())
    warning.load(Counts(199), 0.0, hours_ago=3)
    assert not warning.can_judge
    warning.load(Counts(1), 0.0, hours_ago=2)
    assert warning.feed(FAILED, 1.0)


def test_calls_while_the_circuit_is_not_well_make_no_provider_known() -> None:
    """They are not learned, so they tell nothing of what is usual."""
    warning = EarlyWarning("stripe", BreakerSettings())
    for i in range(40):
        warning.feed(WELL, i * 0.2, healthy=False)
    assert not warning.can_judge
    assert not warning.feed(FAILED, 10.0)


def test_a_process_that_begins_in_trouble_judges_by_the_past() -> None:
    """It learns nothing of the present, but has from the ledger what is usual: slowness it hears of is slowness."""
    warning = EarlyWarning("stripe", BreakerSettings())
    warning.thresholds(0.0)
    warning.load(USUAL, 0.0, hours_ago=1)
    warning.load(USUAL, 0.0, hours_ago=2)
    warning.feed(NOTHING, 60.0, healthy=False)
    assert "p99 of 39,800 calls" in warning.thresholds(60.0).reasons["slow_call_s"]
    for i in range(3):
        warning.feed(SLOW, 60.0 + i, healthy=False)
    assert warning.suspect
    settled = warning.thresholds(61.0)
    assert warning.thresholds(600.0) is settled, "it moves no further while there is trouble"
