"""Payments whose tokens are sealed: what works without the key, what waits for it, and sealing anew beside them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from providers.contract import Health, Notice, NoticeKind, Outcome, OutcomeKind
from router.api.views import payment_json
from router.audit import verify
from router.clock import SystemClock
from router.ledger.decisions import DecisionLedger
from router.ledger.engine import Database
from router.ledger.records import Payment
from router.ledger.sealed import Seals, UnreadableError
from router.ledger.sealed_rows import PLACES, SealedRows
from router.ledger.tables import payments
from router.payments import Answer
from router.resealing import keys_in_use, reseal
from router.sealing import Ring, key_id, new_key
from tests.fakes.home import Home
from tests.fakes.house import teach
from tests.fakes.ledger import fresh_ledger
from tests.fakes.providers import CAPTURED, UNKNOWN

OLD, NEW = new_key(), new_key()
ACTION = Outcome(
    OutcomeKind.REQUIRES_ACTION,
    Health.OK,
    provider_reference="ref_a",
    next_action={"type": "sdk", "provider": "stripe", "client_secret": "pi_planted_secret"},
)
PLANTED = ("tok_s", "tok_a", "tok_t", "pi_planted_secret", "whsec_planted")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        database.seals = Seals(Ring([OLD]))
        yield database


@pytest.fixture
def home(database: Database) -> Home:
    return Home(database)


def holds(database: Database, words: tuple[str, ...] = PLANTED) -> list[tuple[str, str]]:
    """Where any of these words stands in the ledger, in any column of any table."""
    found = []
    with database.read() as connection:
        for table in sa.inspect(connection).get_table_names():
            for row in connection.execute(sa.text(f"SELECT * FROM {table}")):
                text = json.dumps([str(each) for each in row])
                found += [(table, word) for word in words if word in text]
    return found


def differences(database: Database) -> list[object]:
    return [each for progress in verify(database) for each in progress.differences]


def a_life(home: Home, database: Database, *, outage: bool = True) -> dict[str, Payment]:
    """A payment that was captured, one that awaits its customer, one in doubt, one parked; a secret and a notice.

    Without an `outage` none is parked, and the providers can be asked.
    """
    home.stripe.outcomes.append(CAPTURED)
    lives = {"captured": home.house.pay().payment, "awaiting": home.awaiting(ACTION)}
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    lives["doubtful"] = home.house.pay().payment
    if outage:
        for name in home.house.providers:
            teach(home.house.health, Health.PROVIDER_ERROR, provider=name)
        lives["parked"] = home.house.pay().payment
    statuses = ["captured", "requires_action", "processing", "parked"]
    assert [each.status for each in lives.values()] == statuses[: len(lives)]
    DecisionLedger(database).secret("console", "whsec_planted", home.clock.now())
    notice = Notice("n-1", NoticeKind.ATTEMPT, "x", provider_reference="ref_of_nobody", outcome=ACTION)
    home.inbox.store("stripe", [notice], now=home.clock.now())
    return lives


HALF_A_CHARACTER = Outcome(
    OutcomeKind.REQUIRES_ACTION,
    Health.OK,
    provider_reference="ref_h",
    next_action={"type": "sdk", "ü": "half a character: \ud800", "a": 1.5},
)


def rotate(database: Database) -> int:
    *_, last = reseal(SealedRows(database), SystemClock(), batch=2)
    assert last.is_done
    return last.changed


# ---------------------------------------------------------------- what is sealed


def test_a_vendors_text_without_utf_8_is_sealed_and_read_as_it_came(home: Home, database: Database) -> None:
    """Raised when the provider has acted, an error here would lose its answer, and each of the next ones."""
    awaiting, attempts, _ = home.now(home.awaiting(HALF_A_CHARACTER))
    assert awaiting.next_action == attempts[0].next_action == HALF_A_CHARACTER.next_action
    assert list(awaiting.next_action or ()) == list(HALF_A_CHARACTER.next_action or ())
    assert holds(database, ("half a character",)) == []
    notice = Notice("n-2", NoticeKind.ATTEMPT, "x", provider_reference="ref_of_nobody", outcome=HALF_A_CHARACTER)
    home.inbox.store("stripe", [notice], now=home.clock.now())
    assert [each.notice.outcome for each in home.inbox.due(home.clock.now(), limit=9)] == [HALF_A_CHARACTER]


def test_no_token_stands_in_the_ledger_and_all_is_read_as_it_was(home: Home, database: Database) -> None:
    """And the ledger agrees with itself; without sealing each of the words is found."""
    lives = a_life(home, database)
    assert holds(database) == []
    assert differences(database) == []
    awaiting, attempts, _ = home.now(lives["awaiting"])
    assert awaiting.next_action == attempts[0].next_action == ACTION.next_action
    assert home.ledger.order_of(awaiting)["payment_method"]["tokens"]["stripe"] == "tok_s"
    assert [each.notice.outcome for each in home.inbox.due(home.clock.now(), limit=9)] == [ACTION]
    assert DecisionLedger(database).secret("console", "another", home.clock.now()) == "whsec_planted"


def test_plain_rows_are_read_and_sealed_by_a_rotation(home: Home, database: Database) -> None:
    """A ledger of the version before: everything planted is found in it, and nothing after one rotation."""
    database.seals = Seals(Ring([OLD]), writes=False)
    lives = a_life(home, database)
    assert {word for _, word in holds(database)} == set(PLANTED)
    database.seals = Seals(Ring([OLD]))
    versions = home.now(lives["captured"])[0].version
    assert rotate(database) > 8
    assert holds(database) == []
    assert differences(database) == []
    assert home.now(lives["captured"])[0].version == versions
    assert rotate(database) == 0


def test_what_calls_itself_sealed_is_sealed_all_the_same(home: Home) -> None:
    """A checkout's token is a token, whatever it looks like: nobody opens another's seal by sending it."""
    stolen = Ring([OLD]).seal('{"stripe": "tok_stolen"}', "tokens:pay_1")
    order = {"payment_method": {"type": "card", "tokens": {"sealed": stolen}}}
    seals = Seals(Ring([OLD]))
    assert seals.open_order(seals.order(order, "pay_1"), "pay_1") == order


# ---------------------------------------------------------------- a key that is not here


def test_without_its_key_a_payment_in_doubt_waits_and_is_found_out_afterwards(home: Home, database: Database) -> None:
    """Nothing is sent, nothing is given up; reading, reports and the other payments go on."""
    lives = a_life(home, database, outage=False)
    calls = len(home.stripe.calls)
    database.seals = Seals(Ring([NEW]))
    home.clock.advance(61.0)
    home.resolver.run_once()
    assert (len(home.stripe.calls), home.status(lives["doubtful"])) == (calls, "processing")
    assert home.status(lives["captured"]) == "captured"
    awaiting, attempts, _ = home.now(lives["awaiting"])
    with pytest.raises(UnreadableError):
        payment_json(Answer(awaiting, attempts))
    database.seals = Seals(Ring([NEW, OLD]))
    home.stripe.outcomes.append(CAPTURED)
    home.clock.advance(61.0)
    home.resolver.run_once()
    assert home.status(lives["doubtful"]) == "captured"
    assert (home.stripe.calls[-1].params, home.stripe.calls[-1].idempotency_key) == (
        home.stripe.calls[calls - 1].params,
        home.stripe.calls[calls - 1].idempotency_key,
    )


def test_without_its_key_a_parked_payment_stays_parked(home: Home, database: Database) -> None:
    """It is no error of its own that would end it, but the ledger that is not readable now."""
    parked = a_life(home, database)["parked"]
    database.seals = Seals(Ring([NEW]))
    with pytest.raises(UnreadableError, match=key_id(OLD)):
        home.house.payments.retry_parked(parked.id)
    found = home.now(parked)[0]
    assert (found.status, found.faults) == ("parked", 0)


def test_a_notice_that_cannot_be_opened_stays_in_the_inbox(home: Home, database: Database) -> None:
    """And does not hold up the others."""
    a_life(home, database)
    database.seals = Seals(Ring([NEW]))
    home.inbox.store("stripe", [Notice("n-2", NoticeKind.OTHER, "x")], now=home.clock.now())
    assert [each.notice.id for each in home.inbox.due(home.clock.now(), limit=9)] == ["n-2"]
    database.seals = Seals(Ring([OLD]))
    assert [each.notice.id for each in home.inbox.due(home.clock.now(), limit=9)] == ["n-1", "n-2"]


def test_a_changed_token_is_told_and_the_payment_is_held(home: Home, database: Database) -> None:
    """By whoever tries to use it, and by the ledger's check, which names the column."""
    parked = a_life(home, database)["parked"]
    with database.write() as connection:
        order = dict(parked.order)
        sealed = connection.execute(sa.select(payments.c.order).where(payments.c.id == parked.id)).scalar_one()
        token = sealed["payment_method"]["tokens"]["sealed"]
        bad = token[:60] + ("B" if token[60] != "B" else "C") + token[61:]
        order["payment_method"] = {**order["payment_method"], "tokens": {"sealed": bad}}
        connection.execute(payments.update().where(payments.c.id == parked.id).values(order=order))
    with pytest.raises(UnreadableError, match="changed since"):
        home.house.payments.retry_parked(parked.id)
    assert home.status(parked) == "parked"
    assert f"tokens:{parked.id}" in database.seals.troubles()
    (difference,) = differences(database)
    assert "order" in str(difference)
    assert "changed since" in str(difference)


# ---------------------------------------------------------------- sealing anew


def test_a_rotation_leaves_nothing_under_the_old_key(home: Home, database: Database) -> None:
    """Only then is it free to go; and everything is read with the new key alone."""
    lives = a_life(home, database)
    database.seals = Seals(Ring([NEW, OLD]))
    before = keys_in_use(SealedRows(database))
    assert set(before) == {key_id(OLD)}
    assert {place.name for place in PLACES if "endpoint" not in place.name} == set(before[key_id(OLD)])
    rotate(database)
    assert set(keys_in_use(SealedRows(database))) == {key_id(NEW)}
    database.seals = Seals(Ring([NEW]))
    assert home.now(lives["awaiting"])[0].next_action == ACTION.next_action
    assert differences(database) == []


def test_a_rotation_killed_after_any_commit_is_begun_again(home: Home, database: Database) -> None:
    """Between any two commits both keys are needed, nothing is lost, and the ledger agrees with itself."""
    a_life(home, database)
    database.seals = Seals(Ring([NEW, OLD]))
    for killed_after in itertools.count(1):
        rounds = reseal(SealedRows(database), SystemClock(), batch=1)
        seen = list(itertools.islice(rounds, killed_after))
        rounds.close()
        assert differences(database) == []
        assert holds(database) == []
        if seen[-1].is_done:
            break
    assert set(keys_in_use(SealedRows(database))) == {key_id(NEW)}


def test_what_another_writes_in_the_same_moment_stands(home: Home, database: Database) -> None:
    """The rotation has read a value that is another by the time it writes."""
    awaiting = a_life(home, database)["awaiting"]
    database.seals = Seals(Ring([NEW, OLD]))
    place = next(each for each in PLACES if each.name == "payments.next_action")
    rows = SealedRows(database)
    read = rows._read

    def and_then(*given: object, **named: object) -> object:
        found = read(*given, **named)  # type: ignore[arg-type]  # passed through
        with database.write() as connection:
            connection.execute(payments.update().where(payments.c.id == awaiting.id).values(next_action=None))
        return found

    rows._read = and_then  # type: ignore[method-assign,assignment]  # between its read and its write
    batch = rows.reseal(place, None, limit=100)
    assert (batch.changed, batch.missed) == (0, 1)
    assert home.now(awaiting)[0].next_action is None


def test_payments_go_on_while_everything_is_sealed_anew(database: Database) -> None:
    """Threads pay, and are resolved, under the new key and the old one; no payment fails, none is left plain."""
    home = Home(database)
    home.stripe.outcomes.extend([UNKNOWN] * 3)
    doubtful = home.house.pay().payment
    for _ in range(20):
        home.stripe.outcomes.append(CAPTURED)
        home.house.pay()
    database.seals = Seals(Ring([NEW, OLD]))
    paid: list[Answer] = []
    stop = threading.Event()

    def pay() -> None:
        while not stop.is_set():
            paid.append(home.house.pay())

    thread = threading.Thread(target=pay)
    thread.start()
    try:
        rotate(database)
    finally:
        stop.set()
        thread.join()
    assert paid
    assert {each.payment.status for each in paid} == {"captured"}
    assert holds(database) == []
    rotate(database)
    assert set(keys_in_use(SealedRows(database))) == {key_id(NEW)}
    assert differences(database) == []
    assert home.status(doubtful) == "processing"
