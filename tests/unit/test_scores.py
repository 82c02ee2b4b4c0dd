"""What scores know: the definition, computed the long way, is what they answer, whenever and in whatever order."""

from __future__ import annotations

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import scores as scores_module
from router.scores import PRIOR_ALL_ANSWERS, PRIOR_APPROVAL, PRIOR_AVAILABILITY, Score, Scores
from router.segments import Segment, segment

NAMES = ("stripe", "adyen")
START = 1_795_000_000.0
HOUR = 3600.0
VISA_DE = segment(1999, "visa", "DE", "card")
VISA_DE_LARGE = segment(500_000, "visa", "DE", "card")
AMEX_DE = segment(1999, "amex", "DE", "card")
VISA_FR = segment(1999, "visa", "FR", "card")
SEGMENTS = (VISA_DE, VISA_DE_LARGE, AMEX_DE, VISA_FR)
Answer = tuple[str, Segment, bool, float]


def the_long_way(answers: list[Answer], wanted: Segment, provider: str, at: float, half_life_h: float) -> float:
    """Approval by its definition (facts/routing.md)."""

    def share(prior: float, weight: float, *counts: bool) -> float:
        kept = [each for each, is_of in zip(answers, counts, strict=True) if is_of]
        weights = [2 ** ((each[3] - at) / (half_life_h * HOUR)) for each in kept]
        approved = sum(w for w, each in zip(weights, kept, strict=True) if each[2])
        return (approved + weight * prior) / (sum(weights) + weight)

    own = [each[0] == provider for each in answers]
    country = [mine and each[1].country == wanted.country for mine, each in zip(own, answers, strict=True)]
    branch = [mine and each[1].brand == wanted.brand for mine, each in zip(country, answers, strict=True)]
    leaf = [mine and each[1] == wanted for mine, each in zip(branch, answers, strict=True)]
    everyone = share(PRIOR_APPROVAL, PRIOR_ALL_ANSWERS, *[True] * len(answers))
    rate = share(everyone, 20, *own)
    rate = share(rate, 40, *country)
    rate = share(rate, 40, *branch)
    return share(rate, 100, *leaf)


ANSWERS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(SEGMENTS), st.booleans(), st.floats(START, START + 400 * HOUR)),
    max_size=40,
)


@given(ANSWERS, st.sampled_from(SEGMENTS), st.floats(0.5, 50), st.floats(0, 100))
def test_approval_is_what_its_definition_says(
    answers: list[Answer], wanted: Segment, half_life_h: float, later_h: float
) -> None:
    """Whatever the order, over hundreds of half-lives, with answers of one process or of another."""
    scores = Scores(NAMES, half_life_h=half_life_h)
    for number, (provider, where, approved, at) in enumerate(answers):
        if number % 2:
            scores.hear_others(provider, where, int(approved), int(not approved), good_at=at, bad_at=at)
        else:
            scores.hear_answer(provider, where, approved, at)
    at = max([START, *(each[3] for each in answers)]) + later_h * HOUR
    for provider, score in scores.read(wanted, at).items():
        assert score.approval == pytest.approx(the_long_way(answers, wanted, provider, at, half_life_h), abs=1e-9)


def test_an_answer_counts_half_after_a_half_life() -> None:
    """Its effective number is what is left of it."""
    scores = Scores(NAMES)
    for _ in range(100):
        scores.hear_answer("stripe", VISA_DE, True, START)
    assert scores.read(VISA_DE, START)["stripe"].answers == pytest.approx(100)
    assert scores.read(VISA_DE, START + 6 * HOUR)["stripe"].answers == pytest.approx(50)
    assert scores.read(VISA_DE, START)["adyen"].answers == 0


def test_a_process_that_knows_nothing_prefers_nobody() -> None:
    """The same priors for every provider, at any moment."""
    for at in (0.0, START, 1e12):
        found = Scores(NAMES).read(VISA_DE, at)
        for score in found.values():
            assert score == pytest.approx(Score(PRIOR_APPROVAL, PRIOR_AVAILABILITY, 0.0))
        assert list(found) == list(NAMES)


def test_a_new_provider_begins_with_what_all_of_them_have() -> None:
    """Not with the fixed prior, that would shut it out where the others do better."""
    scores = Scores(NAMES)
    for number in range(2000):
        scores.hear_answer("stripe", VISA_DE, number % 20 != 0, START)
    assert scores.read(VISA_DE, START)["adyen"].approval == pytest.approx(0.949, abs=0.001)


def test_declines_do_not_touch_availability_nor_failures_approval() -> None:
    """A decline is an available provider; a provider that is away has answered nothing."""
    scores = Scores(NAMES)
    scores.hear_calls("stripe", 10, 5, START)
    scores.hear_answer("adyen", VISA_DE, False, START)
    found = scores.read(VISA_DE, START)
    assert found["stripe"].availability == pytest.approx((5 + 50 * 0.999) / 60)
    assert found["adyen"].availability == pytest.approx(0.999)
    assert found["stripe"].answers == 0
    assert found["stripe"].availability == pytest.approx(scores.availability("stripe", START))


def test_availability_forgets_in_minutes() -> None:
    """After a half-life of five minutes ten failures are five, beside the same fifty."""
    scores = Scores(NAMES)
    scores.hear_calls("stripe", 10, 10, START)
    assert scores.availability("stripe", START + 300) == pytest.approx(50 * 0.999 / 55)
    assert scores.availability("stripe", START + 86_400) == pytest.approx(0.999)
    scores.hear_calls("stripe", 10, 0, START + 86_400)
    assert scores.availability("stripe", START + 86_400) == pytest.approx((10 + 50 * 0.999) / 60)
    scores.hear_calls("stripe", 0, 0, START)
    scores.hear_calls("nobody", 1, 1, START)
    assert scores.availability("nobody", START) == PRIOR_AVAILABILITY


def test_what_a_client_reports_is_a_call_and_perhaps_an_answer() -> None:
    """A call that failed is no answer, whatever is told beside it."""
    scores = Scores(NAMES)
    scores.hear_reported("stripe", VISA_DE, approved=True, failed=False, at=START)
    scores.hear_reported("stripe", VISA_DE, approved=False, failed=True, at=START)
    scores.hear_reported("stripe", VISA_DE, approved=None, failed=False, at=START)
    heard = [(each.segment, each.good, each.bad) for each in scores.take_heard()]
    assert heard == [(None, 1, 0), (VISA_DE, 1, 0), (None, 0, 1), (None, 1, 0)]
    assert scores.read(VISA_DE, START)["stripe"].answers == 1


def test_what_was_heard_here_is_taken_once_and_what_others_told_never() -> None:
    """Two processes would tell each other the same for ever."""
    scores = Scores(NAMES)
    scores.hear_answer("stripe", VISA_DE, True, START)
    scores.hear_others("stripe", VISA_DE, 5, 5, good_at=START, bad_at=START)
    scores.hear_others("stripe", None, 5, 5, good_at=START, bad_at=START)
    scores.hear_others("nobody", AMEX_DE, 5, 5, good_at=START, bad_at=START)
    assert len(scores.take_heard()) == 1
    assert scores.take_heard() == []
    assert scores.segments() == 1


# ---------------------------------------------------------------- another half-life


def test_another_half_life_leaves_what_is_known_and_goes_on_from_there() -> None:
    """At the moment of the change nothing moves; from then on the new rate discounts."""
    scores = Scores(NAMES)
    for number in range(100):
        scores.hear_answer("stripe", VISA_DE, number % 4 != 0, START + number)
    at = START + 2 * HOUR
    before = scores.read(VISA_DE, at)["stripe"]
    assert scores.set_half_life(1, at)
    after = scores.read(VISA_DE, at)["stripe"]
    assert after == pytest.approx(before)
    assert scores.read(VISA_DE, at + HOUR)["stripe"].answers == pytest.approx(before.answers / 2)
    assert not scores.set_half_life(1, at)


@pytest.mark.parametrize(("asked", "in_force"), [(0, 0.1), (-1, 0.1), (1e9, 720), (24, 24)])
def test_a_half_life_stays_within_its_bounds(asked: float, in_force: float) -> None:
    """Whatever the flag says."""
    scores = Scores(NAMES)
    scores.set_half_life(asked, START)
    assert scores.half_life_h == in_force
    assert Scores(NAMES, half_life_h=asked).half_life_h == in_force


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("half_life_h", [0.1, 6, 720])
def test_years_of_silence_and_a_clock_that_jumps_do_no_harm(half_life_h: float) -> None:
    """Rates stay rates, and what comes afterwards is learned."""
    scores = Scores(NAMES, half_life_h=half_life_h)
    year = 365 * 24 * HOUR
    for at in (START, START + 20 * year, START, START - year, START + 20 * year):
        scores.hear_answer("stripe", VISA_DE, False, at)
        scores.hear_calls("stripe", 3, 1, at)
        scores.hear_others("stripe", None, 1, 1, good_at=at, bad_at=at - year)
        for moment, where in itertools.product((at, at + 20 * year, at - 20 * year), (VISA_DE, VISA_FR)):
            for score in scores.read(where, moment).values():
                assert 0 <= score.approval <= 1
                assert 0 <= score.availability <= 1
                assert score.answers >= 0
    at = START + 20 * year
    for _ in range(100):
        scores.hear_answer("stripe", VISA_DE, True, at)
    assert scores.read(VISA_DE, at)["stripe"].approval > 0.9


def test_segments_beyond_the_cap_are_learned_as_brand_and_country(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory has a bound; the answers are not lost, and are told as what they were learned as."""
    monkeypatch.setattr(scores_module, "SEGMENTS_HELD", 2)
    scores = Scores(NAMES)
    scores._pruned_at = START
    for where in (VISA_DE, VISA_DE_LARGE, AMEX_DE):
        scores.hear_answer("stripe", where, False, START)
    assert scores.segments() == 2
    assert [each.segment for each in scores.take_heard()] == [VISA_DE, VISA_DE_LARGE, AMEX_DE.parent()]
    found = scores.read(AMEX_DE, START)
    assert found["stripe"].approval < found["adyen"].approval
    assert found["stripe"].answers == 0
    assert scores.read(AMEX_DE.parent(), START) == found


def test_where_segments_are_full_the_least_known_give_way_once_a_half_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shop whose customers change is not bound for ever to the first thousand segments it saw."""
    monkeypatch.setattr(scores_module, "SEGMENTS_HELD", 3)
    scores = Scores(NAMES)
    for where in (VISA_DE, VISA_DE, VISA_DE_LARGE, VISA_DE_LARGE, AMEX_DE):
        scores.hear_answer("stripe", where, True, START)
    before = scores.read(VISA_DE, START + HOUR)["stripe"]
    scores.hear_answer("adyen", VISA_FR, True, START + HOUR)
    assert scores.segments() == 3
    assert scores.read(VISA_FR, START + HOUR)["adyen"].answers == pytest.approx(1)
    assert scores.read(AMEX_DE, START + HOUR)["stripe"].answers == 0
    after = scores.read(VISA_DE, START + HOUR)["stripe"]
    assert after.answers == pytest.approx(before.answers)
    assert after.approval == pytest.approx(before.approval, abs=0.01)
    scores.hear_answer("adyen", AMEX_DE, True, START + 2 * HOUR)
    assert scores.segments() == 3


def test_segments_that_nobody_uses_any_more_are_forgotten_with_the_landmark() -> None:
    """Else the memory of a process that lives for months would be all that ever was."""
    scores = Scores(NAMES)
    scores.hear_answer("stripe", VISA_FR, True, START)
    scores.hear_answer("stripe", VISA_DE, True, START + 70 * 6 * HOUR)
    assert scores.segments() == 1


def test_scores_adopt_what_others_were_taught_and_lose_nothing_meanwhile() -> None:
    """An answer that comes between the reading of the past and its adoption is in both: known, and still to tell."""
    scores = Scores(NAMES)
    scores.hear_answer("stripe", AMEX_DE, True, START)
    scores.take_heard()
    taught = scores.blank()
    taught.hear_others("stripe", VISA_DE, 3, 0, good_at=START, bad_at=0.0)
    scores.hear_answer("stripe", VISA_DE, True, START)
    scores.adopt(taught)
    assert scores.read(VISA_DE, START)["stripe"].answers == pytest.approx(4)
    assert scores.read(AMEX_DE, START)["stripe"].answers == 0
    assert len(scores.take_heard()) == 1


def test_readers_see_whole_tables_while_one_thread_learns_and_landmarks_move() -> None:
    """With every answer approved no reader may ever see less than the prior, nor a rate above one."""
    scores = Scores(NAMES, half_life_h=0.1, prior_approval=0.5)
    stop, wrong = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            for score in scores.read(VISA_DE, START).values():
                if not 0.5 - 1e-9 <= score.approval <= 1 or score.answers < 0:
                    wrong.append(score)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for each in readers:
        each.start()
    for number in range(3000):
        scores.hear_answer("stripe", VISA_DE, True, START + number * 60)
        if number % 10 == 0:
            scores.set_half_life(0.1 + number % 3, START + number * 60)
    stop.set()
    for each in readers:
        each.join()
    assert wrong == []
