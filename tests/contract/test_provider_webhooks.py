"""What the stand-ins tell by webhook, read by the adapters: signed, sent over real sockets, verified, understood."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3

from providers.contract import Money, Notice, NoticeKind, OutcomeKind, WebhookRefusedError
from providers.sandbox.server import Sandbox
from tests.contract.case import PATIENT, SHORT, Case
from tests.contract.drivers import ADYEN, STRIPE
from tests.contract.raw_server import RawServer, always, answer


class Ear:
    """Where a provider's webhooks come in."""

    def __init__(self, case: Case, url: str, seen: list[bytes]) -> None:
        self._case = case
        self._url = url
        self._seen = seen
        self.settings()

    def settings(self, **more: object) -> None:
        """Steer the stand-in's webhooks."""
        self._control("PUT", "webhooks", {"url": self._url, "delay_ms": 0, **more})

    def silence(self) -> None:
        """Nobody is told any more."""
        self._control("PUT", "webhooks", {"url": None})

    def happen(self, type: str) -> None:
        """Let something happen to the only charge."""
        self._control("POST", "events", {"charge": self._case.only_charge()["id"], "type": type})

    def deliveries(self) -> list[tuple[dict[str, str], bytes]]:
        """Headers and body of what came."""
        found = []
        for request in list(self._seen):
            head, _, body = request.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")[1:]
            found.append((dict(line.split(": ", 1) for line in lines), body))
        return found

    def notices(self) -> list[Notice]:
        """What was told so far, every signature verified."""
        now = dt.datetime.now(dt.UTC)
        read = self._case.provider.read_webhook
        return [notice for headers, body in self.deliveries() for notice in read(headers, body, now=now)]

    def wait_for(self, true: Callable[[list[Notice]], bool]) -> list[Notice]:
        """What was told, once it says that."""
        end = time.monotonic() + 3
        while not true(notices := self.notices()):
            assert time.monotonic() < end, notices
            time.sleep(0.003)
        return notices

    def of(self, **fields: object) -> list[Notice]:
        """The notices with these fields, once there is one."""

        def matches(notice: Notice) -> bool:
            return all(getattr(notice, name) == value for name, value in fields.items())

        return list(filter(matches, self.wait_for(lambda told: any(map(matches, told)))))

    def first(self, kind: NoticeKind) -> Notice:
        """The first notice of that kind."""
        return self.of(kind=kind)[0]

    def _control(self, method: str, what: str, body: dict[str, object]) -> None:
        url = f"{self._case.sandbox.control_url}/control/{self._case.driver.name}/{what}"
        reply = urllib3.request(method, url, json=body)
        assert reply.status == 200, reply.data


@pytest.fixture
def ear(case: Case) -> Iterator[Ear]:
    """Of the provider in turn."""
    yield from listening(case)


def listening(case: Case) -> Iterator[Ear]:
    """Until the test ends: the sandbox outlives it."""
    seen: list[bytes] = []
    with RawServer(always(answer(200, b"[accepted]"), seen)) as server:
        ear = Ear(case, server.url, seen)
        yield ear
        ear.silence()


@pytest.fixture
def stripe_ear(sandbox: Sandbox) -> Iterator[tuple[Case, Ear]]:
    """Of Stripe."""
    case = Case(STRIPE, STRIPE.connect(sandbox, STRIPE.good_key, 8), sandbox)
    for ear in listening(case):
        yield case, ear


@pytest.fixture
def adyen_ear(sandbox: Sandbox) -> Iterator[tuple[Case, Ear]]:
    """Of Adyen."""
    case = Case(ADYEN, ADYEN.connect(sandbox, ADYEN.good_key, 8), sandbox)
    for ear in listening(case):
        yield case, ear


def manual(case: Case, **change: Any) -> str:
    """An authorization that waits to be captured."""
    reference = case.charge(capture="manual", **change).provider_reference
    assert reference is not None
    return reference


# ---------------------------------------------------------------- what is told


def test_an_approval_names_attempt_payment_and_amount(case: Case, ear: Ear) -> None:
    """Enough to end an attempt whose answer was lost."""
    case.break_it("lose_reply", calls="authorize")
    case.charge(SHORT)
    notice = ear.first(NoticeKind.ATTEMPT)
    assert notice.outcome is not None
    assert (notice.outcome.kind, notice.attempt_id) == (OutcomeKind.APPROVED, "att_1")
    assert notice.provider_reference == notice.outcome.provider_reference == case.only_charge()["id"]
    assert notice.money == Money(1999, "EUR")


@pytest.mark.parametrize(("money", "currency"), [(500, "ISK"), (50000, "IDR"), (500, "CLP")])
def test_money_is_told_in_iso_units(case: Case, ear: Ear, money: int, currency: str) -> None:
    """Whatever the vendor calls it."""
    case.charge(money=Money(money, currency))
    assert ear.first(NoticeKind.ATTEMPT).money == Money(money, currency)


def test_a_decline_is_told_as_it_was_answered(case: Case, ear: Ear) -> None:
    """The same word, class and network code by both ways."""
    for word, (token, _, _) in case.driver.declined.items():
        answered = case.charge(token=token, attempt_id=f"att_{word}")
        [notice] = ear.of(attempt_id=f"att_{word}")
        assert notice.outcome is not None
        assert (notice.outcome.kind, notice.outcome.decline) == (answered.kind, answered.decline)


def test_captures_and_refunds_are_told_with_what_they_moved(case: Case, ear: Ear) -> None:
    """And name the operation, where the vendor can carry it."""
    reference = manual(case)
    case.provider.capture(reference, Money(1500, "EUR"), idempotency_key="cap_1", timeouts=PATIENT)
    captured = ear.first(NoticeKind.CAPTURED)
    assert (captured.provider_reference, captured.money) == (reference, Money(1500, "EUR"))
    assert captured.operation_key == (None if case.driver is STRIPE else "cap_1")
    for key, amount in (("ref_1", 400), ("ref_2", 300)):
        answered = case.provider.refund(reference, Money(amount, "EUR"), idempotency_key=key, timeouts=PATIENT)
        for notice in ear.of(operation_key=key):
            assert (notice.kind, notice.money) == (NoticeKind.REFUNDED, Money(amount, "EUR"))
            assert (notice.provider_reference, notice.modification_reference) == (
                reference,
                answered.provider_reference,
            )
    ear.happen("refund_failed")
    failed = ear.first(NoticeKind.REFUND_FAILED)
    assert (failed.operation_key, failed.money, failed.provider_reference) == ("ref_2", Money(300, "EUR"), reference)
    assert failed.reason


def test_a_capture_that_fails_afterwards_is_told(case: Case, ear: Ear) -> None:
    """It lowers what was captured, and is not mistaken for a decline."""
    reference = case.charge().provider_reference
    ear.happen("capture_failed")
    failed = ear.first(NoticeKind.CAPTURE_FAILED)
    assert (failed.provider_reference, bool(failed.reason)) == (reference, True)
    outcomes = [each.outcome.kind for each in ear.notices() if each.outcome is not None]
    assert OutcomeKind.DECLINED not in outcomes


def test_a_void_is_told_as_canceled(case: Case, ear: Ear) -> None:
    """Under the provider's own id."""
    reference = manual(case)
    case.provider.void(reference, idempotency_key="void_1", timeouts=PATIENT)

    def is_canceled(notice: Notice) -> bool:
        return notice.outcome is not None and notice.outcome.kind is OutcomeKind.CANCELED

    notices = ear.wait_for(lambda told: any(map(is_canceled, told)))
    [notice] = filter(is_canceled, notices)
    assert notice.provider_reference == reference
    assert notice.operation_key == (None if case.driver is STRIPE else "void_1")


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_is_told_from_its_beginning_to_its_end(case: Case, ear: Ear, end: str) -> None:
    """Of the payment that it is about."""
    reference = case.charge().provider_reference
    ear.happen("dispute_opened")
    ear.happen(f"dispute_{end}")
    notices = ear.wait_for(lambda told: any(each.reason == end for each in told))
    disputes = [each for each in notices if each.kind is NoticeKind.DISPUTE]
    assert [disputes[0].reason, disputes[-1].reason] == ["opened", end]
    assert {each.provider_reference for each in disputes} == {reference}
    assert len({each.modification_reference for each in disputes}) == 1


def test_a_second_dispute_is_told_under_a_name_of_its_own(case: Case, ear: Ear) -> None:
    """So that it can be told from late news of the first, which was won."""
    reference = case.charge().provider_reference
    for event in ("dispute_opened", "dispute_won", "dispute_opened"):
        ear.happen(event)
    # A delivery may come twice: two openings are two names.
    notices = ear.wait_for(
        lambda told: len({each.modification_reference for each in told if each.reason == "opened"}) >= 2
    )
    disputes = [each for each in notices if each.kind is NoticeKind.DISPUTE]
    won, opened = [
        {each.modification_reference for each in disputes if each.reason == reason} for reason in ("won", "opened")
    ]
    assert len(opened) == 2
    assert won < opened
    assert {each.provider_reference for each in disputes} == {reference}
    assert len({each.id for each in disputes}) == len(disputes)


def test_a_technical_cancel_is_told_by_our_own_id(adyen_ear: tuple[Case, Ear]) -> None:
    """What was found is canceled; what was not found proves nothing, until it arrives and dies."""
    case, ear = adyen_ear
    reference = manual(case)
    case.provider.void_attempt("att_1", idempotency_key="att_1-void", timeouts=PATIENT)
    notice = ear.wait_for(lambda told: len(told) == 2)[1]
    assert notice.outcome is not None
    assert (notice.outcome.kind, notice.attempt_id) == (OutcomeKind.CANCELED, "att_1")
    assert notice.provider_reference == reference
    case.provider.void_attempt("att_late", idempotency_key="att_late-void", timeouts=PATIENT)
    failed = ear.first(NoticeKind.VOID_FAILED)
    assert (failed.attempt_id, failed.provider_reference) == ("att_late", None)
    case.charge(attempt_id="att_late", capture="manual")
    late = ear.wait_for(lambda told: told[-1].name == "TECHNICAL_CANCEL" and told[-1].kind is NoticeKind.ATTEMPT)[-1]
    assert late.outcome is not None
    assert (late.outcome.kind, late.attempt_id) == (OutcomeKind.CANCELED, "att_late")
    assert late.id != failed.id


def test_a_challenge_is_told_with_where_to_go(stripe_ear: tuple[Case, Ear]) -> None:
    """As it was answered."""
    case, ear = stripe_ear
    token = case.driver.requires_action
    answered = case.charge(token=token, return_url="https://shop.example/return")
    notice = ear.first(NoticeKind.ATTEMPT)
    assert notice.outcome == answered


# ---------------------------------------------------------------- how it is delivered


def test_doubled_deliveries_have_one_id_and_different_things_two(case: Case, ear: Ear) -> None:
    """By which they are told apart in the inbox."""
    ear.settings(mode="duplicate")
    reference = manual(case)
    case.provider.capture(reference, Money(1999, "EUR"), idempotency_key="cap_1", timeouts=PATIENT)
    case.provider.refund(reference, Money(500, "EUR"), idempotency_key="ref_1", timeouts=PATIENT)
    case.provider.refund(reference, Money(500, "EUR"), idempotency_key="ref_2", timeouts=PATIENT)
    expected = 2 * (9 if case.driver is STRIPE else 4)
    notices = ear.wait_for(lambda told: len(told) == expected)
    by_id = {notice.id: notice for notice in notices}
    assert len(by_id) == expected // 2
    assert all(by_id[notice.id] == notice for notice in notices)


def test_a_batch_tells_several_things(adyen_ear: tuple[Case, Ear]) -> None:
    """Each item with a signature of its own; one that is spoilt spoils them all."""
    case, ear = adyen_ear
    ear.settings(mode="hold", batch=3)
    for number in range(3):
        case.charge(attempt_id=f"att_{number}")
    ear.settings(batch=3)
    notices = ear.wait_for(lambda told: len(told) == 3)
    assert [notice.attempt_id for notice in notices] == ["att_0", "att_1", "att_2"]
    [(headers, body)] = ear.deliveries()
    with pytest.raises(WebhookRefusedError):
        case.provider.read_webhook(headers, body.replace(b"att_2", b"att_3"), now=dt.datetime.now(dt.UTC))


def test_a_delivery_kept_for_later_is_refused_by_its_age(stripe_ear: tuple[Case, Ear]) -> None:
    """A replay of an hour later; within minutes it is the inbox that knows it."""
    case, ear = stripe_ear
    case.charge()
    ear.first(NoticeKind.ATTEMPT)
    [(headers, body)] = ear.deliveries()
    for hours in (1, -1):
        with pytest.raises(WebhookRefusedError):
            case.provider.read_webhook(headers, body, now=dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours))
