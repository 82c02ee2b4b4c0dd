"""`pointsman ledger verify` finds whatever does not add up, on both databases, and nothing where all is well."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from flags.contract import RoutingFlags
from providers.contract import DeclineClass
from router import audit
from router.audit import Difference, verify
from router.cli import main
from router.ledger.engine import Database
from router.ledger.journal import Journals
from router.ledger.tables import payment_events
from router.modifications import Modifications
from router.sending import Sender
from tests.fakes.house import DEADLINE_S, TIMES, House, an_order, build_house
from tests.fakes.providers import ACTION, AUTHORIZED, REFUSED, UNKNOWN, FakeProvider, declined
from tests.integration import old_ledger
from tests.integration.ledgers import BACKENDS, ledger_on, with_tables

MADE: dict[str, str] = {}
"""Status or story to the payment's id: the same on both databases."""

pytestmark = pytest.mark.either_database


def lives(url: str) -> None:
    """A payment of every kind."""
    with_tables(url)
    database = Database(url, pool_size=4)
    house: House = build_house(database, [FakeProvider("stripe"), FakeProvider("adyen")])
    stripe, adyen = house.providers["stripe"], house.providers["adyen"]
    ids = house.payments._ids
    modifications = Modifications(
        ledger=house.ledger,
        journals=Journals(house.ledger, deadline_s=DEADLINE_S, clock=house.clock, ids=ids),
        sender=Sender(house.providers, TIMES, clock=house.clock, random=lambda: 0.5),
        deadline_s=DEADLINE_S,
        clock=house.clock,
    )
    made = {"captured": house.pay().payment.id}
    manual = an_order(capture="manual")
    for story in ("authorized", "refunded", "canceled"):
        stripe.outcomes.append(AUTHORIZED)
        made[story] = house.pay(manual.model_copy(update={"reference": story})).payment.id
    modifications.capture("m", made["refunded"], 1500, key="c")
    modifications.refund("m", made["refunded"], 700, key="r1")
    modifications.refund("m", made["refunded"], None, key="r2")
    modifications.cancel("m", made["canceled"], key="x")
    stripe.outcomes.append(declined(DeclineClass.HARD))
    made["declined"] = house.pay().payment.id
    stripe.outcomes.append(ACTION)
    made["requires_action"] = house.pay().payment.id
    stripe.outcomes.extend([UNKNOWN] * 3)
    made["processing"] = house.pay().payment.id
    house.clock.advance(100)
    house.payments.get("m", made["processing"])  # checkout asks again, which no event tells
    for each in (stripe, adyen):
        each.outcomes.append(REFUSED)
    made["parked"] = house.pay().payment.id
    house.flags.flags = RoutingFlags(enabled={"stripe": False, "adyen": False})
    house.clock.advance(15)
    house.payments.retry_parked(made["parked"])  # postponed, which no event tells
    MADE.update(made)
    database.close()


@pytest.fixture(params=BACKENDS)
def lived_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A ledger with a payment of every kind."""
    with ledger_on(request.param, request, tmp_path, prepare=lives) as url:
        yield url


@pytest.fixture
def lived(lived_url: str) -> Iterator[Database]:
    """The same, opened."""
    database = Database(lived_url, pool_size=4)
    yield database
    database.close()


def differences(database: Database) -> list[Difference]:
    return [each for progress in verify(database) for each in progress.differences]


def change(database: Database, statement: str, **values: Any) -> None:
    with database.write() as connection:
        assert connection.execute(sa.text(statement), values).rowcount == 1


def test_a_sound_ledger_has_no_differences(lived: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its payments went through, in whatever batches it is read, with no payment left out."""
    for size in (1, 3, 200):
        monkeypatch.setattr(audit, "BATCH", size)
        found = list(verify(lived))
        assert [each for progress in found for each in progress.differences] == []
        assert found[-1].payments == len(MADE)


def test_an_empty_ledger_is_sound(database: Database) -> None:
    """Nothing is read, nothing is wrong."""
    assert list(verify(database)) == []


@pytest.mark.parametrize("story", ["captured", "refunded", "declined", "processing", "parked", "canceled"])
@pytest.mark.parametrize("column", ["amount", "tries", "resolve_tries", "expires_at"])
def test_a_row_that_was_changed_behind_the_ledgers_back_is_found(lived: Database, story: str, column: str) -> None:
    """The payment and the column are named."""
    change(lived, f"UPDATE payments SET {column} = {column} + 1 WHERE id = :id", id=MADE[story])
    found = differences(lived)
    assert (MADE[story], column) in [(each.payment_id, each.column) for each in found]
    assert {each.payment_id for each in found} == {MADE[story]}


def test_values_that_may_be_a_customers_are_not_shown(lived: Database) -> None:
    """The order's e-mail address and tokens least of all; a status and an amount are."""
    order = json.dumps({"customer": {"email": "a@secret.example"}, "capture": "automatic"})
    change(
        lived,
        'UPDATE payments SET "order" = :o, status = :s WHERE id = :id',
        o=order,
        s="lost",
        id=MADE["captured"],
    )
    found = {each.column: each.text for each in differences(lived)}
    assert found["order"] == "is not what its events give"
    assert found["status"] == "is 'lost', its attempts and operations give 'captured'"
    assert "secret" not in str(found)
    assert "tok_s" not in str(found)


@pytest.mark.parametrize("version", [1, 2])
def test_a_missing_event_is_found(lived: Database, version: int) -> None:
    """In the middle or at the beginning of a life."""
    statement = "DELETE FROM payment_events WHERE payment_id = :id AND version = :v"
    change(lived, statement, id=MADE["refunded"], v=version)
    (found,) = differences(lived)
    assert (found.payment_id, found.column) == (MADE["refunded"], "version")


def test_a_payment_without_events_is_found(lived: Database) -> None:
    """It was written by something else."""
    with lived.write() as connection:
        connection.execute(payment_events.delete().where(payment_events.c.payment_id == MADE["captured"]))
    assert [(each.payment_id, each.text) for each in differences(lived)] == [(MADE["captured"], "has no events")]


@pytest.mark.parametrize(
    ("story", "statement", "column"),
    [
        ("captured", "UPDATE attempts SET outcome = 'declined' WHERE payment_id = :id", "status"),
        ("declined", "UPDATE attempts SET outcome = 'approved' WHERE payment_id = :id", "status"),
        ("captured", "UPDATE attempts SET capture = NULL WHERE payment_id = :id", "amount_captured"),
        ("refunded", "UPDATE operations SET amount = 701 WHERE payment_id = :id AND amount = 700", "amount_refunded"),
        ("refunded", "UPDATE operations SET state = 'failed' WHERE payment_id = :id AND kind = 'capture'", "status"),
        ("authorized", "UPDATE attempts SET provider = 'adyen' WHERE payment_id = :id", "provider"),
    ],
)
def test_a_payment_that_does_not_stand_where_its_attempts_say_is_found(
    lived: Database, story: str, statement: str, column: str
) -> None:
    """Status and amounts are computed anew."""
    change(lived, statement, id=MADE[story])
    found = differences(lived)
    assert (MADE[story], column) in [(each.payment_id, each.column) for each in found]
    assert {each.payment_id for each in found} == {MADE[story]}


def test_a_payment_that_is_worked_on_is_compared_with_its_events_only(lived: Database) -> None:
    """Between two commits its attempts may be ahead of it."""
    change(lived, "UPDATE payments SET lease_holder = 'me' WHERE id = :id", id=MADE["captured"])
    change(lived, "UPDATE attempts SET outcome = NULL WHERE payment_id = :id", id=MADE["captured"])
    assert [(each.payment_id, each.column) for each in differences(lived)] == [(MADE["captured"], "lease_holder")]


def test_a_postponed_payment_is_sound_while_it_is_tried_and_when_that_was_cut_short(database: Database) -> None:
    """No event says when it is tried next; the one that ends its waiting says that it waits no more."""
    house = build_house(database, [FakeProvider("stripe")])
    stripe = house.providers["stripe"]
    stripe.outcomes.append(REFUSED)
    payment = house.pay().payment
    house.ledger.postpone(payment, house.clock.now() + dt.timedelta(seconds=90), now=payment.updated_at)
    house.clock.advance(100)
    seen: list[Difference] = []
    stripe.during = lambda _call: seen.extend(differences(database))
    stripe.outcomes.append(UNKNOWN)
    house.payments.retry_parked(payment.id)
    assert seen == []
    found = house.ledger.get(payment.id)
    assert found is not None
    assert found[0].next_try_at is None
    assert differences(database) == []


def test_a_payment_that_the_first_version_wrote_after_the_upgrade_is_found(database: Database) -> None:
    """No event sets the columns that came later, and nobody filled them in: it needs a person."""
    old_ledger.write(database, "late", "captured", [("stripe", "approved")])
    columns = {each.column for each in differences(database)}
    assert {"attempt_id", "told", "resolve_at", "attention"} <= columns


def test_a_payment_with_thousands_of_events_is_read_piece_by_piece(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are held in memory at once."""
    monkeypatch.setattr(audit, "EVENTS_AT_ONCE", 7)
    house = build_house(database, [FakeProvider("stripe")])
    payment = house.pay().payment
    for number in range(30):
        payment = house.ledger.change(payment, {"tries": number}, event="tried", now=house.clock.now())
    assert differences(database) == []
    change(database, "UPDATE payments SET tries = 28 WHERE id = :id", id=payment.id)
    assert [each.text for each in differences(database)] == ["is 28, its events give 29"]


# ---------------------------------------------------------------- the command


def test_the_command_ends_with_0_or_1_and_lists_what_differs(
    lived_url: str, lived: Database, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a difference on standard output, the progress on standard error."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", lived_url)
    assert main(["ledger", "verify"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{len(MADE)} payments checked, 0 differences\n")
    change(lived, "UPDATE payments SET amount_captured = 1 WHERE id = :id", id=MADE["captured"])
    assert main(["ledger", "verify"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"{MADE['captured']}\tamount_captured\tis 1, its events give 1999",
        f"{MADE['captured']}\tamount_captured\tis 1, its attempts and operations give 1999",
    ]
    assert said.err == f"{len(MADE)} payments checked, 2 differences\n"


def test_the_command_says_how_far_it_is(
    lived_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, so that the list can be piped."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", lived_url)
    monkeypatch.setattr("router.cli.PROGRESS_S", 0.0)
    monkeypatch.setattr(audit, "BATCH", 4)
    assert main(["ledger", "verify"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "4 payments checked, up to 2026-11-21 00:00:00; 0 differences"
    assert lines[-1] == f"{len(MADE)} payments checked, 0 differences"


def test_the_command_creates_no_tables(
    bare_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger of another version is said to be one, in a line."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", bare_url)
    assert main(["ledger", "verify"]) == 1
    assert "pointsman migrate" in capsys.readouterr().err
    with Database(bare_url).read() as connection:
        assert sa.inspect(connection).get_table_names() == []
