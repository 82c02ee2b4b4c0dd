"""One suite for every provider: what it answers, what it says of its health, and what its own books say.

Runs against the sandbox over real sockets. The books are the truth: an outcome that they contradict is a lie, and
the dangerous lies are `not_executed` with a charge in them and `approved` without.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from providers.contract import (
    Health,
    ModificationKind,
    ModificationOutcome,
    Money,
    Outcome,
    OutcomeKind,
)
from providers.sandbox.server import Sandbox
from tests.contract.case import PATIENT, REQUEST, SHORT, Case
from tests.contract.drivers import DRIVERS, Driver
from tests.contract.raw_server import RawServer, always, answer


def per_decline() -> list[Any]:
    """Every declined token of every provider."""
    return [pytest.param(driver, word, id=f"{driver.name}-{word}") for driver in DRIVERS for word in driver.declined]


def per_amount() -> list[Any]:
    """Every special amount of every provider."""
    return [
        pytest.param(driver, Money(*money), sent, id=f"{driver.name}-{money[1]}")
        for driver in DRIVERS
        for money, sent in driver.amounts.items()
    ]


# ---------------------------------------------------------------- all well


def test_an_automatic_payment_is_approved_and_captured(case: Case) -> None:
    """And the books name the order, the attempt and its key."""
    outcome = case.charge()
    assert (outcome.kind, outcome.health, outcome.captured) == (OutcomeKind.APPROVED, Health.OK, True)
    charge = case.only_charge()
    assert charge["id"] == outcome.provider_reference
    assert (charge["reference"], charge["attempt"], charge["idempotency_key"]) == ("ORD-1", "att_1", "att_1")
    assert (charge["amount"], charge["currency"], charge["status"]) == (1999, "EUR", "captured")


def test_a_manual_payment_is_approved_and_only_authorized(case: Case) -> None:
    """The money waits."""
    outcome = case.charge(capture="manual")
    assert (outcome.kind, outcome.captured) == (OutcomeKind.APPROVED, False)
    assert case.only_charge()["status"] == "authorized"


def test_a_payment_that_the_merchant_starts_is_approved(case: Case) -> None:
    """A stored card, nobody at the screen."""
    assert case.charge(initiator="merchant").kind is OutcomeKind.APPROVED


def test_the_same_key_again_is_the_same_charge(case: Case) -> None:
    """A re-send is not a second attempt."""
    first, second = case.charge(), case.charge()
    assert first == second
    case.only_charge()


def test_the_same_key_with_other_parameters_is_unknown_and_not_the_providers_fault(case: Case) -> None:
    """Whatever the first send did still stands, so this one proves nothing."""
    case.charge()
    outcome = case.charge(money=Money(2500, "EUR"))
    if outcome.kind is OutcomeKind.APPROVED:  # Adyen answers with the first result, whatever it is sent
        assert outcome.provider_reference == case.only_charge()["id"]
    else:
        assert (outcome.kind, outcome.health) == (OutcomeKind.UNKNOWN, Health.IGNORED)
    assert case.only_charge()["amount"] == 1999


@pytest.mark.parametrize(("driver", "word"), per_decline())
def test_a_declined_card_is_declined_with_its_class(driver: Driver, word: str, sandbox: Sandbox) -> None:
    """A decline is a healthy provider, and no money moves."""
    case = Case(driver, driver.connect(sandbox, driver.good_key, 1), sandbox)
    token, decline_class, cascade = driver.declined[word]
    outcome = case.charge(token=token)
    assert (outcome.kind, outcome.health) == (OutcomeKind.DECLINED, Health.OK)
    assert outcome.decline is not None
    assert (outcome.decline.code, outcome.decline.decline_class, outcome.decline.cascade, outcome.decline.known) == (
        word,
        decline_class,
        cascade,
        True,
    )
    assert case.books() == []


def test_an_acquirers_fault_is_on_the_providers_record(case: Case) -> None:
    """Nothing was charged and nothing will be: the books say so, and the answer carries the provider's id of it."""
    outcome = case.charge(token=case.driver.acquirer_fault)
    assert (outcome.kind, outcome.reason, outcome.health) == (
        OutcomeKind.NOT_EXECUTED,
        "acquirer_error",
        Health.PROVIDER_ERROR,
    )
    assert outcome.final_record
    assert outcome.provider_reference
    assert case.books() == []


@pytest.mark.parametrize("mode", ["lose_reply", "hang"])
def test_an_acquirers_fault_whose_answer_was_lost_is_replayed_as_its_record(case: Case, mode: str) -> None:
    """The same key is answered with its first result, which ends the doubt; no charge is in the books."""
    case.break_it(mode, calls="authorize")
    lost = case.charge(SHORT, token=case.driver.acquirer_fault)
    assert (lost.kind, lost.final_record) == (OutcomeKind.UNKNOWN, False)
    case.break_it("ok")
    outcome = case.charge(token=case.driver.acquirer_fault)
    assert (outcome.kind, outcome.final_record) == (OutcomeKind.NOT_EXECUTED, True)
    assert case.charge(token=case.driver.acquirer_fault) == outcome
    assert case.books() == []


@pytest.mark.parametrize("mode", ["down", "errors", "rate_limited", "garbage", "drop_request"])
def test_a_send_that_was_refused_is_no_record_of_the_payment(case: Case, mode: str) -> None:
    """It proves nothing of an earlier send: that one was charged, as the books say."""
    case.charge()
    case.break_it(mode)
    assert not case.charge(SHORT).final_record
    case.only_charge()


def test_a_revoked_key_is_no_record_of_the_payment(driver: Driver, sandbox: Sandbox) -> None:
    """A payment that was charged with the key before it was revoked stands."""
    case = Case(driver, driver.connect(sandbox, driver.good_key, 1), sandbox)
    case.charge()
    case.provider = driver.connect(sandbox, driver.revoked_key, 1)
    outcome = case.charge()
    assert (outcome.kind, outcome.final_record) == (OutcomeKind.NOT_EXECUTED, False)
    case.only_charge()


def test_a_card_that_wants_3d_secure_requires_action(case: Case) -> None:
    """Never failed over: the customer is about to pay here."""
    outcome = case.charge(token=case.driver.requires_action, return_url="https://shop.example/return")
    assert (outcome.kind, outcome.health) == (OutcomeKind.REQUIRES_ACTION, Health.OK)
    assert outcome.next_action is not None  # a reference may come only with the result: Adyen's redirect has none
    assert outcome.next_action["type"] == "redirect"
    assert str(outcome.next_action["url"]).startswith("http")
    assert case.books() == []


@pytest.mark.parametrize(("driver", "money", "sent"), per_amount())
def test_an_amount_is_booked_in_the_vendors_own_minor_units(
    driver: Driver, money: Money, sent: int, sandbox: Sandbox
) -> None:
    """ISO 4217 outside, the vendor's exceptions inside; refunded in the same."""
    case = Case(driver, driver.connect(sandbox, driver.good_key, 1), sandbox)
    outcome = case.charge(money=money)
    assert outcome.kind is OutcomeKind.APPROVED, outcome
    charge = case.only_charge()
    assert (charge["amount"], charge["currency"]) == (sent, money.currency)
    assert outcome.provider_reference is not None
    case.provider.refund(outcome.provider_reference, money, idempotency_key="ref_1", timeouts=PATIENT)
    assert case.only_charge()["amount_refunded"] == sent


# ---------------------------------------------------------------- capture, void, refund


def authorized(case: Case) -> str:
    """The provider's reference of a payment that waits to be captured."""
    reference = case.charge(capture="manual").provider_reference
    assert reference is not None
    return reference


@pytest.mark.parametrize("amount", [1999, 500])
def test_an_authorization_is_captured_in_whole_or_in_part(case: Case, amount: int) -> None:
    """At once, or when the webhook says so: the books know."""
    reference = authorized(case)
    outcome = case.provider.capture(reference, Money(amount, "EUR"), idempotency_key="cap_1", timeouts=PATIENT)
    assert (outcome.kind, outcome.health) == (case.driver.modified, Health.OK)
    charge = case.only_charge()
    assert (charge["status"], charge["amount_captured"]) == ("captured", amount)


def test_an_authorization_is_voided(case: Case) -> None:
    """The customer's money is free again."""
    outcome = case.provider.void(authorized(case), idempotency_key="void_1", timeouts=PATIENT)
    assert (outcome.kind, outcome.health) == (case.driver.modified, Health.OK)
    assert case.only_charge()["status"] == "canceled"


@pytest.mark.parametrize(
    ("amounts", "status"), [([1999], "refunded"), ([500], "captured"), ([500, 1499], "refunded")]
)
def test_a_payment_is_refunded_in_whole_or_in_parts(case: Case, amounts: list[int], status: str) -> None:
    """Each part under a key of its own."""
    reference = case.charge().provider_reference
    assert reference is not None
    for number, amount in enumerate(amounts):
        outcome = case.provider.refund(
            reference, Money(amount, "EUR"), idempotency_key=f"ref_{number}", timeouts=PATIENT
        )
        assert (outcome.kind, outcome.health) == (case.driver.modified, Health.OK)
        assert outcome.provider_reference
    charge = case.only_charge()
    assert (charge["amount_refunded"], charge["status"]) == (sum(amounts), status)


def test_a_refund_sent_twice_under_one_key_is_one_refund(case: Case) -> None:
    """A lost answer must not pay back twice."""
    reference = case.charge().provider_reference
    assert reference is not None
    for _ in range(2):
        case.provider.refund(reference, Money(500, "EUR"), idempotency_key="ref_1", timeouts=PATIENT)
    assert case.only_charge()["amount_refunded"] == 500


Modify = Callable[[Case, str], ModificationOutcome]
FORBIDDEN: dict[str, tuple[str, Modify]] = {
    "void after capture": (
        "automatic",
        lambda case, ref: case.provider.void(ref, idempotency_key="x_1", timeouts=PATIENT),
    ),
    "capture twice": (
        "automatic",
        lambda case, ref: case.provider.capture(ref, Money(1999, "EUR"), idempotency_key="x_1", timeouts=PATIENT),
    ),
    "capture too much": (
        "manual",
        lambda case, ref: case.provider.capture(ref, Money(2000, "EUR"), idempotency_key="x_1", timeouts=PATIENT),
    ),
    "refund too much": (
        "automatic",
        lambda case, ref: case.provider.refund(ref, Money(2000, "EUR"), idempotency_key="x_1", timeouts=PATIENT),
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_the_payments_state_forbids_does_not_happen(case: Case, what: str) -> None:
    """Refused at once where the provider says so; never our fault, never a mark against the provider."""
    capture, modify = FORBIDDEN[what]
    reference = case.charge(capture=capture).provider_reference
    assert reference is not None
    before = case.only_charge()
    outcome = modify(case, reference)
    expected = ModificationKind.REFUSED if case.driver.refuses_by_state else case.driver.modified
    assert (outcome.kind, outcome.health, outcome.our_fault) == (expected, Health.OK, False)
    assert case.only_charge() == before


# ---------------------------------------------------------------- every fault


@dataclass(frozen=True)
class Fault:
    """A fault mode, and what an authorization in it must come to."""

    mode: dict[str, Any]
    kind: OutcomeKind
    health: Health
    reason: str
    charges: int


FAULTS = {
    "down": Fault({"mode": "down"}, OutcomeKind.NOT_EXECUTED, Health.UNREACHABLE, "connection_refused", 0),
    "errors": Fault({"mode": "errors"}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "http_503", 0),
    "errors after charging": Fault(
        {"mode": "errors", "acts": True}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "http_503", 1
    ),
    "rate_limited": Fault(
        {"mode": "rate_limited"}, OutcomeKind.NOT_EXECUTED, Health.PROVIDER_ERROR, "rate_limited", 0
    ),
    "slow": Fault(
        {"mode": "slow", "latency_ms": 5000}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "read_timeout", 0
    ),
    "hang": Fault({"mode": "hang"}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "read_timeout", 1),
    "lose_reply": Fault({"mode": "lose_reply"}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "connection_reset", 1),
    "drop_request": Fault(
        {"mode": "drop_request"}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "connection_reset", 0
    ),
    "garbage": Fault({"mode": "garbage"}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "senseless_answer", 0),
    "garbage after charging": Fault(
        {"mode": "garbage", "acts": True}, OutcomeKind.UNKNOWN, Health.PROVIDER_ERROR, "senseless_answer", 1
    ),
}


@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "pooled connection"])
@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_classified_as_the_facts_say_and_the_books_agree(case: Case, name: str, warm: bool) -> None:
    """On the first connection, and on one that was used before."""
    fault = FAULTS[name]
    if warm:
        assert case.provider.probe(timeouts=PATIENT).healthy
    case.break_it(**fault.mode)
    outcome = case.charge(SHORT)
    assert (outcome.kind, outcome.health, outcome.reason) == (fault.kind, fault.health, fault.reason)
    assert not outcome.our_fault
    assert len(case.books()) == fault.charges


def test_one_send_is_one_request(case: Case) -> None:
    """Neither the SDK nor the pool repeats anything by itself."""
    case.break_it("errors")
    before = case.requests()
    case.charge()
    assert case.requests() == before + 1


@pytest.mark.parametrize("name", ["lose_reply", "hang", "errors after charging", "garbage after charging"])
def test_a_resend_under_the_same_key_finds_the_charge_that_was_made(case: Case, name: str) -> None:
    """Approved, with one charge in the books and not two."""
    case.break_it(**FAULTS[name].mode)
    assert case.charge(SHORT).kind is OutcomeKind.UNKNOWN
    case.break_it("ok")
    outcome = case.charge()
    assert (outcome.kind, outcome.captured) == (OutcomeKind.APPROVED, True)
    assert outcome.provider_reference == case.only_charge()["id"]


def test_a_resend_of_a_request_that_was_dropped_makes_the_charge(case: Case) -> None:
    """A re-send is a command: the payment is made now, once."""
    case.break_it("drop_request")
    assert case.charge(SHORT).kind is OutcomeKind.UNKNOWN
    case.break_it("ok")
    assert case.charge().kind is OutcomeKind.APPROVED
    case.only_charge()


def test_a_forced_decline_that_no_table_names_is_soft_and_reported(case: Case) -> None:
    """No cascade on what nobody understands."""
    case.break_it("decline", decline_code="987")
    outcome = case.charge()
    assert outcome.decline is not None
    assert (outcome.kind, outcome.decline.cascade, outcome.decline.known) == (OutcomeKind.DECLINED, False, False)
    assert case.books() == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_refund_in_every_fault_is_never_reported_done(case: Case, name: str) -> None:
    """And said to be not executed only where the books show no refund."""
    reference = case.charge().provider_reference
    assert reference is not None
    fault = FAULTS[name]
    case.break_it(**fault.mode)
    outcome = case.provider.refund(reference, Money(500, "EUR"), idempotency_key="ref_1", timeouts=SHORT)
    assert (str(outcome.kind), outcome.health, outcome.reason) == (str(fault.kind), fault.health, fault.reason)
    assert case.only_charge()["amount_refunded"] == 500 * fault.charges


# ---------------------------------------------------------------- credentials and probes


def test_a_revoked_key_is_refused_and_is_our_own_fault(driver: Driver, sandbox: Sandbox) -> None:
    """Nothing was done; several in a row take the provider out."""
    case = Case(driver, driver.connect(sandbox, driver.revoked_key, 1), sandbox)
    outcome = case.charge()
    assert (outcome.kind, outcome.health) == (OutcomeKind.NOT_EXECUTED, Health.CREDENTIALS_REFUSED)
    assert outcome.our_fault
    assert driver.revoked_key not in repr(outcome)
    assert case.provider.probe(timeouts=PATIENT).health is Health.CREDENTIALS_REFUSED
    assert case.books() == []


@pytest.mark.parametrize(
    ("mode", "health"),
    [
        ("ok", Health.OK),
        ("down", Health.UNREACHABLE),
        ("errors", Health.PROVIDER_ERROR),
        ("rate_limited", Health.PROVIDER_ERROR),
        ("hang", Health.PROVIDER_ERROR),
        ("garbage", Health.PROVIDER_ERROR),
    ],
)
def test_a_probe_tells_whether_the_provider_works_and_moves_no_money(case: Case, mode: str, health: Health) -> None:
    """With our own credentials, over the same pool."""
    case.break_it(mode)
    result = case.provider.probe(timeouts=SHORT)
    assert (result.health, result.healthy) == (health, health is Health.OK)
    assert case.books() == []


@pytest.mark.parametrize("state", ["able", "unable"])
def test_an_account_says_whether_it_may_take_payments(case: Case, state: str) -> None:
    """The vendor's own call, through its SDK."""
    case.set_account(state=state)
    standing = case.provider.account(timeouts=PATIENT)
    assert standing is not None
    assert (standing.state.value, bool(standing.reasons)) == (state, state == "unable")


@pytest.mark.parametrize("mode", ["down", "errors", "rate_limited", "hang", "garbage"])
def test_an_account_that_cannot_be_asked_about_is_not_known(case: Case, mode: str) -> None:
    """Nothing was learned, and no call raises."""
    case.set_account(state="unable")
    case.break_it(mode)
    assert case.provider.account(timeouts=SHORT) is None


def test_a_key_without_the_right_to_ask_learns_nothing_of_its_account(driver: Driver, sandbox: Sandbox) -> None:
    """A refused look is no verdict."""
    assert driver.connect(sandbox, driver.revoked_key, 1).account(timeouts=PATIENT) is None


# ---------------------------------------------------------------- threads, connections, files


def test_sixteen_threads_share_one_adapter(case: Case) -> None:
    """Every attempt is charged once, under its own name, over no more connections than the pool has."""
    outcomes: list[Outcome] = []

    def many(thread: int) -> None:
        for number in range(6):
            outcomes.append(case.charge(attempt_id=f"att_{thread}_{number}", reference=f"ORD-{thread}-{number}"))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.APPROVED}
    charges = {charge["attempt"]: charge for charge in case.books()}
    assert len(charges) == len(outcomes) == 96
    assert {outcome.provider_reference for outcome in outcomes} == {charge["id"] for charge in charges.values()}
    assert all(charge["idempotency_key"] == attempt for attempt, charge in charges.items())


def test_fifty_calls_need_one_connection(driver: Driver) -> None:
    """A new connection for each would cost a TLS handshake each."""
    body = {"id": "pi_1", "status": "succeeded", "resultCode": "Authorised", "pspReference": "NC6HT9CRT65ZGN82"}
    with RawServer(always(answer(200, json.dumps(body).encode()))) as server:
        provider = driver.url(server.url, driver.good_key)
        params = provider.render(replace(REQUEST, token=driver.approved))
        kinds = {provider.authorize(params, idempotency_key=f"k{n}", timeouts=PATIENT).kind for n in range(50)}
        assert kinds == {OutcomeKind.APPROVED}
        assert server.accepted == 1


def test_no_file_is_written_under_home(
    case: Case, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A vendor's SDK that keeps a telemetry id does it without being asked."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    provider = case.driver.connect(case.sandbox, case.driver.good_key, 1)
    Case(case.driver, provider, case.sandbox).charge()
    assert list(tmp_path.rglob("*")) == []


def test_what_is_rendered_is_json_and_survives_the_ledger(case: Case) -> None:
    """Stored before the call, read back after a crash, and sent unchanged."""
    params = case.provider.render(replace(REQUEST, token=case.driver.approved))
    stored = json.loads(json.dumps(params))
    assert stored == params
    outcome = case.provider.authorize(stored, idempotency_key="att_1", timeouts=PATIENT)
    assert outcome.kind is OutcomeKind.APPROVED
