"""What needs a person: the operator's queue, what an operator may see, and a verdict that names what it is about."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from jsonschema import Draft202012Validator

from providers.contract import Notice, NoticeKind
from providers.sandbox.server import Sandbox
from router.cli import main
from router.ledger.unavailable import CommitUnknownError, LedgerUnavailableError
from tests.integration.desk import OTHER
from tests.integration.shop import order
from tests.integration.till import AMOUNT, Till, problem, till_shop

BOTH = {"payments-unknown-outcome-policy": "void-and-fail-over"}
HOUR_US = 3_700_000_000


@pytest.fixture(params=[("sqlite", "stripe"), ("postgres", "adyen")], ids="-".join)
def till(
    request: pytest.FixtureRequest, sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Till]:
    """A desk of its own, where an unknown outcome is tried elsewhere: so two attempts can be in doubt."""
    primary = request.param[1]
    flags = {"payments-primary-provider": primary, **BOTH}
    with till_shop(request, sandbox, tmp_path_factory.mktemp("till"), flags=flags) as found:
        yield Till(*found)


def doubly_doubtful(till: Till, **changed: Any) -> dict[str, Any]:
    """A payment of which neither provider has answered, an hour ago."""
    for name in OTHER:
        till.shop.fault(name, "drop_request")
    body: dict[str, Any] = till.shop.pay(**changed).json or {}
    assert (body["status"], len(body["attempts"])) == ("processing", 2)
    with till.shop.core.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE attempts SET started_at = started_at - {HOUR_US}")
    till.resolve()
    return body


def verdict(outcome: str, **more: str) -> dict[str, str]:
    return {"outcome": outcome, "evidence": "dashboard, read by Ada", **more}


def operator(till: Till, merchant: str = "default") -> str:
    """A key that can do nothing but operate."""
    return till.shop.add_key(f"operate-{merchant}-{till.shop.url}", merchant=merchant, scopes=("operate",))


def test_the_queue_lists_what_is_in_doubt_and_empties(till: Till) -> None:
    """Each thing under its id, since when and at which provider; resolved by those ids, it is gone."""
    key = operator(till)
    assert till.shop.send("GET", "/v1/attention", api_key=key).json == {"payments": [], "next": None}
    body = doubly_doubtful(till)
    answer = till.shop.send("GET", "/v1/attention", api_key=key)
    (row,) = (answer.json or {})["payments"]
    assert (row["id"], row["reference"], row["amount"]) == (body["id"], body["reference"], AMOUNT)
    assert "resolve" in row["attention"]
    attempts = [each["id"] for each in body["attempts"]]
    assert [each["attempt"] for each in row["in_doubt"]] == attempts
    assert {each["provider"] for each in row["in_doubt"]} == set(OTHER)
    assert {(each["kind"], each["state"], each["operation"]) for each in row["in_doubt"]} == {
        ("authorization", "unknown", None)
    }
    assert all(each["since"] < body["created_at"] for each in row["in_doubt"])
    found = problem(till.do(body, "resolve", verdict("not_executed"), api_key=key), 409, "state-conflict")
    assert found["in_doubt"] == attempts
    till.shop.control("DELETE", "/control")
    for attempt in attempts:
        answer = till.do(body, "resolve", verdict("not_executed", attempt=attempt), api_key=key)
        assert answer.status_code in (200, 202), answer.text
    assert (answer.json or {})["status"] == "failed"
    till.resolve()  # a void that was under way is overtaken
    assert till.shop.send("GET", "/v1/attention", api_key=key).json == {"payments": [], "next": None}


def test_the_queue_is_an_operators_and_of_its_own_merchant(till: Till) -> None:
    """Another scope is refused, another merchant's operator sees nothing, and cannot resolve."""
    body = doubly_doubtful(till)
    for scope in ("payments", "reports"):
        key = till.shop.add_key(f"{scope}-{till.shop.url}", merchant="default", scopes=(scope,))
        problem(till.shop.send("GET", "/v1/attention", api_key=key), 403, "forbidden")
    other = operator(till, "other")
    assert till.shop.send("GET", "/v1/attention", api_key=other).json == {"payments": [], "next": None}
    problem(till.shop.send("GET", f"/v1/payments/{body['id']}", api_key=other), 404, "not-found")
    named = verdict("declined", attempt=body["attempts"][0]["id"])
    problem(till.do(body, "resolve", named, api_key=other), 404, "not-found")


def test_the_command_shows_all_merchants(
    till: Till, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For who has no key at hand: payment, merchant, and what is in doubt of it."""
    monkeypatch.setenv("ROUTER_DATABASE_URL", till.shop.url)
    monkeypatch.setenv("ROUTER_RUN_DIR", str(till.shop.core.settings.run_dir))
    assert main(["attention"]) == 0
    assert capsys.readouterr() == ("", "0 payments need a person\n")
    body = doubly_doubtful(till)
    assert main(["attention"]) == 0
    shown = capsys.readouterr()
    first, *rest = shown.out.splitlines()
    assert first.split("\t")[:4] == [body["id"], "default", "processing", f"{AMOUNT} EUR"]
    assert [line.split("\t")[1:3] for line in rest] == [
        [each["id"], "authorization unknown"] for each in body["attempts"]
    ]
    assert shown.err == "1 payments need a person\n"


def test_an_operator_may_read_what_it_is_to_resolve(till: Till) -> None:
    """And no more than that: neither lists nor pays; a key of another scope reads nothing."""
    key, body = operator(till), till.paid()
    answer = till.shop.send("GET", f"/v1/payments/{body['id']}", api_key=key)
    assert (answer.status_code, (answer.json or {})["id"]) == (200, body["id"])
    problem(till.shop.send("GET", f"/v1/payments?reference={body['reference']}", api_key=key), 403, "forbidden")
    problem(till.shop.pay(api_key=key), 403, "forbidden")
    reports = till.shop.add_key(f"reports-{till.shop.url}", merchant="default", scopes=("reports",))
    problem(till.shop.send("GET", f"/v1/payments/{body['id']}", api_key=reports), 403, "forbidden")


def test_a_verdict_names_one_thing_and_a_reference_of_that_vendor(till: Till) -> None:
    """Two names, or another vendor's reference, are refused naming the field; nothing is changed."""
    body = doubly_doubtful(till)
    first, second = body["attempts"]
    both = verdict("declined", attempt=first["id"], operation=second["id"])
    errors = problem(till.do(body, "resolve", both), 422, "invalid-request")["errors"]
    assert [each["field"] for each in errors] == ["operation"]
    theirs = {"stripe": "pi_3Abc", "adyen": "8515131751004933"}
    wrong = {"stripe": ["8515131751004933", "re_3Abc"], "adyen": ["pi_3Abc", "851513175100493", "abcdefghijklmnop"]}
    for attempt in (first, second):
        for reference in wrong[attempt["provider"]]:
            asked = verdict("approved", attempt=attempt["id"], provider_reference=reference)
            errors = problem(till.do(body, "resolve", asked), 422, "invalid-request")["errors"]
            assert [each["field"] for each in errors] == ["provider_reference"]
            assert reference not in str(errors)
    asked = verdict("approved", attempt=first["id"], provider_reference=theirs[first["provider"]])
    now = till.do(body, "resolve", asked).json or {}
    assert now["attempts"][0]["provider_reference"] == theirs[first["provider"]]


def test_a_dispute_is_shown(till: Till) -> None:
    """Null until the provider tells of one; then the latest of it, as the contract describes it."""
    body = till.paid()
    assert body["dispute"] is None
    reference = body["attempts"][0]["provider_reference"]
    told = Notice("n1", NoticeKind.DISPUTE, "charge.dispute.created", provider_reference=reference, reason="opened")
    assert till.notices().apply(till.primary, told) == "applied"
    now = till.shop.read(body["id"])
    assert (now["dispute"]["reason"], now["dispute"]["notice"]) == ("opened", "charge.dispute.created")
    document = till.shop.send("GET", "/openapi.json", api_key=None).json or {}
    schemas = document["components"]["schemas"]
    schema = {"$ref": "#/components/schemas/PaymentView", "components": {"schemas": schemas}}
    for shown in (body, now):
        Draft202012Validator(schema).validate(shown)


def test_a_payment_that_somebody_else_is_at_says_so(till: Till) -> None:
    """Another key: its first request is not "still running"."""
    body = till.authorized()
    till.change_all("lease_holder = 'another', lease_until = 9000000000000000")
    answer = till.do(body, "capture")
    assert "first request" not in problem(answer, 409, "request-in-progress")["detail"]
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_payment_whose_first_commit_was_lost_from_sight_is_not_said_to_be_uncharged(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is on record, and a worker carries it out: 503 `outcome-unknown`; the same key finds it."""
    ledger, database, asked = type(till.shop.core.ledger), till.shop.core.database, order()
    create, way = ledger.create, "write" if database.is_sqlite else "write_at_once"
    write = getattr(database, way)

    def create_and_lose(*args: Any, **named: Any) -> None:
        with monkeypatch.context() as within:
            within.setattr(database, way, write_and_lose)
            monkeypatch.setattr(ledger, "get", away)
            create(*args, **named)

    here = threading.get_ident()

    @contextlib.contextmanager
    def write_and_lose() -> Iterator[sa.Connection]:
        with write() as connection:
            yield connection
        if threading.get_ident() == here:  # a process counts and follows by itself, meanwhile
            raise CommitUnknownError("the connection is gone")

    def away(*_args: Any) -> Any:
        raise LedgerUnavailableError

    monkeypatch.setattr(ledger, "create", create_and_lose)
    answer = till.shop.pay(asked, key="k")
    monkeypatch.undo()
    found = problem(answer, 503, "outcome-unknown")
    assert "nothing" not in found["detail"].lower()
    assert int(answer.headers["Retry-After"]) >= 1
    assert till.books(asked["reference"]) == []
    till.change_all("lease_until = 0")
    till.resolve()
    again = till.shop.pay(asked, key="k")
    assert (again.status_code, again.headers["Idempotent-Replayed"]) == (201, "true")
    assert (again.json or {})["status"] == "captured"
    assert len(till.books(asked["reference"])) == 1
