"""What a real router learns of each payment, by whatever way its answer comes: once, and only an issuer's answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from router.segments import segment
from tests.integration.desk import LetterBox, letter_box
from tests.integration.till import AMOUNT, THREE_D_SECURE, Till, pass_step

pytestmark = pytest.mark.either_database

Taught = Callable[[], list[tuple[str, bool]]]
VISA_DE = segment(AMOUNT, "visa", "DE", "card")
LOSE = {"mode": "lose_reply", "calls": "authorize"}
HARD = {"mode": "decline", "decline_code": "expired_card"}


@pytest.fixture
def box(till: Till) -> Iterator[LetterBox]:
    with letter_box(till.shop) as box:
        yield box


@pytest.fixture
def taught(till: Till) -> Taught:
    """The answers that the ledger keeps since the test began, in the order of providers: each provider and whether
    it approved. What is told twice is there twice.
    """
    core = till.shop.core
    held: dict[tuple[str, str, int], tuple[int, int]] = {}

    def rows() -> dict[tuple[str, str, int], tuple[int, int]]:
        core.score_sharing.tell()
        query = "SELECT process, provider, segment, starts_s, good, bad FROM score_counts WHERE segment <> '*'"
        return {
            (row["process"], row["provider"] + "/" + row["segment"], row["starts_s"]): (row["good"], row["bad"])
            for row in till.shop.rows(query)
        }

    def news() -> list[tuple[str, bool]]:
        found: list[tuple[str, bool]] = []
        for key, (good, bad) in rows().items():
            old_good, old_bad = held.get(key, (0, 0))
            provider = key[1].split("/")[0]
            found += [(provider, True)] * (good - old_good) + [(provider, False)] * (bad - old_bad)
        return sorted(found)

    held.update(rows())
    return news


def details(till: Till, back: dict[str, str]) -> dict[str, object]:
    """What checkout sends of what the browser brought back; Stripe knows by itself."""
    return {"details": back} if till.primary == "adyen" else {}


def everything_again(till: Till, box: LetterBox) -> None:
    """All that is still told of it: webhooks, twice, and the resolver."""
    letters = box.all_told()
    for letter in [*letters, *letters]:
        assert box.forward(letter).status_code == 200
    till.read_notices()
    till.resolve(2)


def test_a_payment_that_is_approved_at_once_teaches_once(till: Till, box: LetterBox, taught: Taught) -> None:
    """Captured, refunded, told by webhook: one answer, in its own segment."""
    before = till.shop.core.scores.read(VISA_DE, till.shop.core.clock.now().timestamp())[till.primary].answers
    body = till.paid()
    after = till.shop.core.scores.read(VISA_DE, till.shop.core.clock.now().timestamp())[till.primary].answers
    assert after - before == pytest.approx(1, abs=0.01)
    till.done(body, "refunds")
    everything_again(till, box)
    assert taught() == [(till.primary, True)]


def test_a_manual_payment_teaches_when_it_is_authorized(till: Till, box: LetterBox, taught: Taught) -> None:
    """Its capture, or its cancellation, is no answer of an issuer."""
    till.done(till.authorized(), "capture")
    till.done(till.authorized(), "cancel")
    everything_again(till, box)
    assert taught() == [(till.primary, True)] * 2


def test_a_decline_teaches_once(till: Till, box: LetterBox, taught: Taught) -> None:
    """Whatever its webhook says once more."""
    till.shop.fault(till.primary, **HARD)
    assert till.paid()["status"] == "declined"
    everything_again(till, box)
    assert taught() == [(till.primary, False)]


def test_a_passed_step_teaches_when_it_is_completed(till: Till, box: LetterBox, taught: Taught) -> None:
    """Not while the customer is away; and completing it twice teaches it once."""
    body = till.waiting()
    assert taught() == []
    brought = details(till, pass_step(body))
    till.done(body, "complete", brought)
    assert taught() == [(till.primary, True)]
    till.do(body, "complete", brought)
    everything_again(till, box)
    assert taught() == [(till.primary, True)]


@pytest.mark.parametrize("way", ["complete", "webhook"])
def test_a_failed_step_teaches_nothing_at_any_provider(till: Till, box: LetterBox, taught: Taught, way: str) -> None:
    """It is the customer's; counted at one of two providers only, that one would look worse than it is."""
    body = till.waiting()
    brought = details(till, pass_step(body, result="fail"))
    if way == "complete":
        assert till.done(body, "complete", brought)["status"] == "declined"
    everything_again(till, box)
    assert taught() == []


def test_a_step_that_the_customer_walked_away_from_teaches_nothing(
    till: Till, box: LetterBox, taught: Taught
) -> None:
    """Canceled by checkout, as it is given up."""
    till.done(till.waiting(), "cancel")
    everything_again(till, box)
    assert taught() == []


def test_a_doubt_teaches_what_the_resolver_found(till: Till, taught: Taught) -> None:
    """Once, and not before; resolving it again changes nothing."""
    till.shop.fault(till.primary, "drop_request")
    body = till.shop.pay().json or {}
    assert body["status"] == "processing"
    assert taught() == []
    till.shop.fault(till.primary, "ok")
    till.resolve(3)
    assert till.shop.read(body["id"])["status"] == "captured"
    assert taught() == [(till.primary, True)]


def test_a_doubt_teaches_what_a_webhook_told(till: Till, box: LetterBox, taught: Taught) -> None:
    """The resolver finds nothing new after it."""
    till.shop.fault(till.primary, **LOSE)
    body = till.shop.pay().json or {}
    assert (body["status"], taught()) == ("processing", [])
    box.forward_all()
    till.read_notices()
    assert till.shop.read(body["id"])["status"] == "captured"
    assert taught() == [(till.primary, True)]
    till.shop.fault(till.primary, "ok")
    everything_again(till, box)
    assert taught() == [(till.primary, True)]


@pytest.mark.parametrize(("outcome", "learned"), [("approved", [True]), ("not_executed", [])])
def test_a_doubt_teaches_what_an_operator_saw(till: Till, taught: Taught, outcome: str, learned: list[bool]) -> None:
    """That nothing was charged is no answer of an issuer."""
    till.shop.fault(till.primary, "drop_request" if outcome == "not_executed" else "lose_reply")
    body = till.shop.pay().json or {}
    till.shop.fault(till.primary, "ok")
    verdict = {"outcome": outcome, "evidence": "seen in the dashboard"}
    if outcome == "approved":
        (charge,) = till.books(body["reference"])
        verdict["provider_reference"] = charge["id"]
    answer = till.do(body, "resolve", verdict)
    assert answer.status_code == 200, answer.text
    assert taught() == [(till.primary, each) for each in learned]


def test_a_payment_paid_elsewhere_after_a_refused_connection_teaches_there(till: Till, taught: Taught) -> None:
    """A failover is the provider's fault, and no issuer's answer."""
    till.shop.fault(till.primary, "down")
    body = till.shop.pay().json or {}
    assert body["status"] == "captured"
    assert taught() == [(body["provider"], True)]
    till.shop.fault(till.primary, "ok")


def test_our_own_mistake_teaches_nothing(till: Till, taught: Taught) -> None:
    """A token that the provider does not know is neither an issuer's answer nor the provider's fault."""
    tokens = {"stripe": "pm_card_visa_unheard_of", "adyen": "no-such-token"}
    till.shop.pay(payment_method={"type": "card", "tokens": {till.primary: tokens[till.primary]}})
    assert [each for each in taught() if each[1]] == []


def test_a_step_is_asked_for_by_both() -> None:
    """What the tests above stand on."""
    assert set(THREE_D_SECURE["tokens"]) == {"stripe", "adyen"}


def test_what_was_learned_is_shown_of_each_provider(till: Till, taught: Taught) -> None:
    """`GET /v1/providers` has the figures that decisions go by."""

    def shown() -> dict[str, float]:
        rows = (till.shop.send("GET", "/v1/providers").json or {})["providers"]
        assert all(0 < each["availability"] <= 1 for each in rows)
        return {each["name"]: each["approval"] for each in rows}

    before = shown()
    till.shop.fault(till.primary, **HARD)
    for _ in range(3):
        till.paid()
    assert taught() == [(till.primary, False)] * 3
    assert shown()[till.primary] < before[till.primary]
