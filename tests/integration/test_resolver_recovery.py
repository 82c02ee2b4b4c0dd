"""What checkout has given up on, what a dead process left behind, and what a paused one must not do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.contract import Outcome, Params
from providers.sandbox.server import Sandbox
from router.resolver import HELD_DEAD_AFTER
from tests.integration.desk import OTHER, SECRETS, Desk, LetterBox, letter_box
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.shop import HANG_READ_TIMEOUT_S, Shop, Spy, open_shop

pytestmark = pytest.mark.either_database

GIVEN_UP_S = 1000.0
DEAD_S = GIVEN_UP_S + 2 * HELD_DEAD_AFTER.total_seconds()
LOSE = {"mode": "lose_reply", "calls": "authorize"}
Setting = tuple[Shop, str, dict[str, Spy]]


class PowerCutError(BaseException):
    """The process is gone: nothing after it runs."""


@pytest.fixture(scope="module", params=[(backend, name) for backend in BACKENDS for name in OTHER], ids="-".join)
def mortal_shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    """A router whose calls can be interrupted, over each ledger, with each provider as the primary."""
    backend, primary = request.param
    spies: dict[str, list[Spy]] = {name: [] for name in OTHER}
    settings: dict[str, Any] = {
        "flags": {"payments-primary-provider": primary},
        "breaker_minimum_calls": 1000,
        "read_timeout_seconds": HANG_READ_TIMEOUT_S,
        "spies": spies,
        **SECRETS,
    }
    folder = tmp_path_factory.mktemp("mortal")
    with ledger_on(backend, request, folder) as url, open_shop(url, sandbox_process, folder, **settings) as shop:
        yield shop, primary, {name: found[0] for name, found in spies.items()}


@pytest.fixture
def desk(mortal_shop: Setting, sandbox: Sandbox) -> Iterator[Desk]:
    """The worker, with both providers well and their books empty."""
    yield Desk(mortal_shop[0])
    for spy in mortal_shop[2].values():
        spy.before.clear()
        spy.after.clear()


@pytest.fixture
def primary(mortal_shop: Setting) -> str:
    return mortal_shop[1]


@pytest.fixture
def spy(mortal_shop: Setting) -> Spy:
    """Before the primary."""
    return mortal_shop[2][mortal_shop[1]]


@pytest.fixture
def box(desk: Desk) -> Iterator[LetterBox]:
    with letter_box(desk.shop) as box:
        yield box


def doubtful(desk: Desk, provider: str, **fault: Any) -> dict[str, Any]:
    """A payment in doubt; its provider stays broken."""
    desk.shop.fault(provider, **fault)
    body: dict[str, Any] = desk.shop.pay().json or {}
    assert body["status"] == "processing"
    return body


def work(desk: Desk, box: LetterBox, rounds: int = 3) -> None:
    """The worker's rounds, with the post between them."""
    for _ in range(rounds):
        desk.resolve()
        box.forward_all()
        desk.read_notices()


def sends(desk: Desk, provider: str) -> int:
    """How many authorizations reached that provider."""
    found: int = desk.shop.control("GET", f"/control/{provider}")["authorizations"]
    return found


# ---------------------------------------------------------------- given up


def test_a_payment_that_checkout_gave_up_on_is_not_sent_again_but_undone(
    desk: Desk, primary: str, box: LetterBox
) -> None:
    """Its charge is found, by look-up or by webhook, and refunded: canceled, and nobody charged it an hour later."""
    body = doubtful(desk, primary, **LOSE)
    desk.shop.fault(primary, "ok")
    desk.forget_checkout(body["id"], GIVEN_UP_S)
    before = sends(desk, primary)
    work(desk, box)
    assert sends(desk, primary) == before
    now = desk.shop.read(body["id"])
    assert now["status"] == "canceled"
    assert desk.shop.charged(body["reference"]) == [(primary, "refunded", 1999)]
    # Where there is no look-up, a void by our own id is asked for first; it comes too late for what was captured.
    voided = ["void"] if primary == "adyen" else []
    assert [kind[0] for kind in desk.operations(body["id"])] == [*voided, "refund"]
    assert desk.row(body["id"])["resolve_at"] is None


def test_a_given_up_authorization_is_voided(desk: Desk, primary: str, box: LetterBox) -> None:
    """Nothing of it was captured: released, and canceled."""
    desk.shop.fault(primary, **LOSE)
    body = desk.shop.pay(capture="manual").json or {}
    desk.shop.fault(primary, "ok")
    desk.forget_checkout(body["id"], GIVEN_UP_S)
    before = sends(desk, primary)
    work(desk, box)
    assert sends(desk, primary) == before
    assert desk.shop.read(body["id"])["status"] == "canceled"
    assert desk.shop.charged(body["reference"]) == [(primary, "canceled", 1999)]


def test_checkout_that_asks_again_in_time_gets_its_payment(desk: Desk, primary: str) -> None:
    """A worker that has not looked yet finds it expected again, and settles it."""
    body = doubtful(desk, primary, mode="drop_request")
    desk.shop.fault(primary, "ok")
    desk.forget_checkout(body["id"], GIVEN_UP_S)
    assert desk.shop.read(body["id"])["status"] == "processing"
    assert desk.resolve() == 1
    assert desk.shop.read(body["id"])["status"] == "captured"


def test_what_the_provider_does_not_have_is_held_dead_only_after_a_while(
    desk: Desk, primary: str, box: LetterBox
) -> None:
    """Not found right after the last send proves nothing; a quarter of an hour later it is canceled."""
    body = doubtful(desk, primary, mode="drop_request")
    desk.shop.fault(primary, "ok")
    desk.forget_checkout(body["id"], GIVEN_UP_S)
    work(desk, box)
    assert desk.row(body["id"])["status"] == "processing"
    desk.forget_checkout(body["id"], DEAD_S)
    work(desk, box)
    assert desk.row(body["id"])["status"] == "canceled"
    assert desk.row(body["id"])["resolve_at"] is None
    assert desk.shop.charged(body["reference"]) == []
    assert desk.shop.pay(reference=body["reference"]).status_code == 201


def test_an_approval_of_an_attempt_that_was_held_dead_is_undone_by_itself(
    desk: Desk, primary: str, box: LetterBox
) -> None:
    """The send was on its way for an hour: its approval comes by webhook, and the money goes back."""
    body = doubtful(desk, primary, mode="drop_request")
    desk.shop.fault(primary, "ok")
    desk.forget_checkout(body["id"], GIVEN_UP_S + DEAD_S)
    work(desk, box)
    assert desk.row(body["id"])["status"] == "canceled"
    _arrive_late(desk, body, primary)
    work(desk, box)
    assert desk.shop.read(body["id"])["status"] == "canceled"
    statuses = {status for _, status, _ in desk.shop.charged(body["reference"])}
    assert statuses <= {"refunded", "canceled"}
    assert statuses
    assert desk.row(body["id"])["resolve_at"] is None


def _arrive_late(desk: Desk, body: dict[str, Any], provider: str) -> None:
    core = desk.shop.core
    query = "SELECT id FROM attempts WHERE payment_id = :id"
    attempt = next(each for each in (core.ledger.get(body["id"]) or (None, []))[1])
    assert attempt.id == desk.scalar(query, id=body["id"])
    core.providers[provider].authorize(
        core.ledger.params_of(attempt), idempotency_key=attempt.idempotency_key, timeouts=core.sender.timeouts(5.0)
    )


# ---------------------------------------------------------------- a dead process


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_a_dead_process_left_started_is_resolved(desk: Desk, primary: str, spy: Spy, moment: str) -> None:
    """Killed just before or just after its call: when its lease is over, the re-send settles it with one charge."""
    _die(spy, moment)
    with pytest.raises(PowerCutError):
        desk.shop.pay(reference=f"dead-{moment}", key=f"dead-{moment}-{desk.shop.url}-{primary}")
    (payment_id,) = desk.shop.core.ledger.ids_by_reference("default", f"dead-{moment}", limit=1, before=None)
    assert desk.resolve() == 0, "its lease runs"
    again = desk.shop.pay(reference="another", key=f"dead-{moment}-{desk.shop.url}-{primary}")
    assert again.status_code == 422
    desk.change_all(f"lease_until = 1 WHERE id = '{payment_id}'")
    assert desk.resolve() == 1
    now = desk.shop.read(payment_id)
    assert (now["status"], now["provider"]) == ("captured", primary)
    assert desk.shop.charged(f"dead-{moment}") == [(primary, "captured", 1999)]
    desk.change_all("reference = id, holds_reference = FALSE")


def _die(spy: Spy, moment: str) -> None:
    def before(_key: str, _params: Params) -> None:
        spy.before.clear()
        raise PowerCutError

    def after(_key: str, _outcome: Outcome) -> None:
        spy.after.clear()
        raise PowerCutError

    if moment == "before":
        spy.before.append(before)
    else:
        spy.after.append(after)


def test_a_process_that_wakes_past_its_lease_writes_nothing_and_sends_nothing(
    desk: Desk, primary: str, spy: Spy
) -> None:
    """Paused in its call while a worker settled the payment: it answers what the ledger says, with one charge."""

    def sleep_past_the_lease(_key: str, _outcome: Outcome) -> None:
        spy.after.clear()
        desk.change_all("lease_until = 1 WHERE lease_until IS NOT NULL")
        assert desk.resolve() == 1

    spy.after.append(sleep_past_the_lease)
    desk.shop.fault(OTHER[primary], "ok")
    answer = desk.shop.pay()
    body = answer.json or {}
    assert (answer.status_code, body["status"]) == (201, "captured")
    assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]
    events = desk.shop.rows("SELECT type FROM payment_events WHERE payment_id = :id ORDER BY number", id=body["id"])
    assert [each["type"] for each in events] == ["created", "claimed", "resolving"]


def test_a_failover_by_a_process_past_its_lease_is_not_sent(desk: Desk, primary: str, spy: Spy) -> None:
    """It was told "refused" and would go on to the next provider: the ledger says that it may not any more."""
    desk.shop.fault(primary, "down")

    def taken_over(_key: str, _outcome: Outcome) -> None:
        spy.after.clear()
        desk.change_all("lease_until = 1 WHERE lease_until IS NOT NULL")
        desk.resolve()

    spy.after.append(taken_over)
    answer = desk.shop.pay()
    body = answer.json or {}
    assert (answer.status_code, body["status"]) == (202, "processing")
    assert desk.shop.charges(OTHER[primary]) == []
    desk.shop.fault(primary, "ok")
    assert desk.resolve() == 1
    assert desk.shop.charged(body["reference"]) == [(primary, "captured", 1999)]
