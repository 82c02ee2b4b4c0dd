"""Events reach checkout's endpoints in each payment's order, at least once, whoever dies or refuses, for a day."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import hmac
from collections import defaultdict
from collections.abc import Mapping

import pytest
import sqlalchemy as sa

from router import webhooks_out
from router.housekeeping import KEPT
from router.ledger import webhook_endpoints as webhook_endpoints_ledger
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.event_feed import Position
from router.ledger.records import Payment
from router.ledger.tables import payment_events, to_micros, webhook_deliveries, webhook_endpoints
from router.ledger.webhook_endpoints import MOST_OF_A_MERCHANT, TooManyEndpointsError
from router.ledger.webhook_records import Recorded, Result
from router.signing import SIGNATURE
from router.webhooks_out import LEASE, WELL_AFTER
from router.webhooks_out_endpoints import BadEndpointError, NoSuchEndpointError
from router.webhooks_out_feed import FAR, FAR_S, PAGE
from router.webhooks_out_post import Posted
from router.webhooks_out_retries import TRIED_FOR
from tests.fakes.threads import together
from tests.fakes.webhooks_out import ACCEPTED, GONE, REFUSED, Bureau, Told

pytestmark = pytest.mark.either_database

CAPTURED = "pointsman.payment.captured"


@pytest.fixture
def bureau(database: Database) -> Bureau:
    return Bureau(database)


def _in_order(ids: list[str]) -> bool:
    """Whether each payment's events came for the first time in the order of their versions, from the first on."""
    seen: dict[str, list[int]] = defaultdict(list)
    for each in ids:
        payment, _, version = each.partition(":")
        if int(version) not in seen[payment]:
            seen[payment].append(int(version))
    return all(versions == sorted(versions) for versions in seen.values())


# ---------------------------------------------------------------- what is sent


def test_what_happens_after_an_endpoint_is_made_is_told_to_it(bureau: Bureau) -> None:
    """Once, its own merchant's events only, signed, under the event's id, as a CloudEvent without a secret."""
    bureau.pays()
    endpoint, secret = bureau.endpoints.create(merchant="shop", url="https://one.example/in?key=1")
    bureau.pays("another")
    payment = bureau.pays()
    bureau.becomes(payment, "captured")
    relay = bureau.worker()
    assert (relay.run_once(), relay.run_once()) == (2, 0)
    first, second = bureau.inboxes.got
    assert bureau.inboxes.ids() == [f"{payment.id}:1", f"{payment.id}:2"]
    assert (first.url, first.event["type"], second.event["type"]) == (
        endpoint.url,
        "pointsman.payment.created",
        CAPTURED,
    )
    assert second.event["data"]["status"] == "captured"
    assert second.event["id"] == second.event_id
    unix_s, signed = (part.partition("=")[2] for part in second.headers[SIGNATURE].split(","))
    assert int(unix_s) == bureau.clock.now().timestamp()
    wanted = hmac.new(secret.encode(), f"{unix_s}.".encode() + second.body, hashlib.sha256).hexdigest()
    assert signed == wanted
    assert second.headers["Content-Type"].startswith("application/cloudevents+json")
    done = bureau.records(endpoint)[1]
    assert (done.state, done.attempts, done.last_status, done.ended_at) == ("accepted", 1, 200, bureau.clock.now())
    assert done.body is None


def test_an_endpoint_is_told_of_the_types_it_wants(bureau: Bureau) -> None:
    """One that names none is told of all but what says nothing; who names that gets it."""
    bureau.endpoint("all")
    bureau.endpoint("some", types=[CAPTURED])
    bureau.endpoint("updates", types=["pointsman.payment.updated"])
    payment = bureau.becomes(bureau.pays(), "processing", "captured")
    bureau.worker().run_once()
    assert bureau.inboxes.ids("https://all.example/in") == [f"{payment.id}:1", f"{payment.id}:3"]
    assert bureau.inboxes.ids("https://some.example/in") == [f"{payment.id}:3"]
    assert bureau.inboxes.ids("https://updates.example/in") == [f"{payment.id}:2"]


def test_what_an_endpoint_does_not_want_costs_no_commit_until_it_is_much(bureau: Bureau) -> None:
    """And it is not read again and again either."""
    endpoint = bureau.endpoint(types=[CAPTURED])

    def position() -> tuple[int, int]:
        with bureau.database.read() as connection:
            table = webhook_endpoints
            row = connection.execute(sa.select(table.c.xact, table.c.number)).one()
        return row[0], row[1]

    began, relay = position(), bureau.worker()
    bureau.pays()
    assert [relay.due() for _ in range(3)] == [[], [], []]
    for _ in range(FAR + PAGE):
        bureau.pays()
    for _ in range(FAR // PAGE + 2):
        bureau.clock.advance(1)
        relay.run_once()
    assert position() > began
    payment = bureau.becomes(bureau.pays(), "captured")
    bureau.clock.advance(1)
    bureau.go_on(relay, 5)
    assert bureau.inboxes.ids() == [f"{payment.id}:2"]
    assert bureau.states(endpoint) == {f"{payment.id}:2": "accepted"}


# ---------------------------------------------------------------- order


def test_the_next_event_of_a_payment_waits_until_the_one_before_it_is_accepted(bureau: Bureau) -> None:
    """While other payments go on."""
    endpoint = bureau.endpoint()
    stuck, free = bureau.pays(), bureau.pays()
    bureau.inboxes.refuse(f"{stuck.id}:1")
    bureau.becomes(stuck, "authorized", "captured")
    bureau.becomes(free, "authorized", "captured")
    relay = bureau.worker()
    bureau.go_on(relay, 60)
    came = bureau.inboxes.ids()
    assert [each for each in came if each.startswith(free.id)] == [f"{free.id}:{version}" for version in (1, 2, 3)]
    assert {each for each in came if each.startswith(stuck.id)} == {f"{stuck.id}:1"}
    assert 3 <= came.count(f"{stuck.id}:1") <= 6
    bureau.inboxes.refuse()
    bureau.go_on(relay, 60)
    assert bureau.inboxes.ids()[-3:] == [f"{stuck.id}:{version}" for version in (1, 2, 3)]
    assert set(bureau.states(endpoint).values()) == {"accepted"}
    assert bureau.now_is(endpoint).failing_since is None


def test_of_many_payments_each_keeps_its_order_though_one_in_three_is_refused(bureau: Bureau) -> None:
    """Several workers at one instant, new events meanwhile: nothing is lost."""
    endpoints = [bureau.endpoint(name) for name in ("one", "two", "three")]
    count = 0

    def answer(_told: Told) -> Posted:
        nonlocal count
        count += 1
        return REFUSED if count % 3 == 0 else ACCEPTED

    bureau.inboxes.answer = answer
    workers = [bureau.worker() for _ in range(3)]
    payments = [bureau.pays() for _ in range(12)]
    for status in ("authorized", "captured", "canceled"):
        payments = [bureau.becomes(each, status) for each in payments]
        for _ in range(3):
            together([worker.run_once for worker in workers])
            bureau.clock.advance(5)
    for _ in range(200):
        together([worker.run_once for worker in workers])
        bureau.clock.advance(20)
        if all(set(bureau.states(each).values()) == {"accepted"} for each in endpoints):
            break
    for endpoint in endpoints:
        wanted = {f"{payment.id}:{version}" for payment in payments for version in (1, 2, 3, 4)}
        assert bureau.states(endpoint) == dict.fromkeys(wanted, "accepted")
        assert _in_order(bureau.inboxes.ids(endpoint.url))


# ---------------------------------------------------------------- refusals


def test_an_endpoint_that_is_dead_is_tried_with_one_event_at_a_time_and_ever_less_often(bureau: Bureau) -> None:
    """A hundred payments wait; they do not knock each for itself."""
    endpoint = bureau.endpoint()
    bureau.inboxes.answer = lambda _told: Posted(None, "connection_refused", 0.0)
    for _ in range(100):
        bureau.pays()
    relay = bureau.worker()
    relay.run_once()
    at_first = len(bureau.inboxes.got)
    assert at_first <= webhooks_out.AT_ONCE
    bureau.go_on(relay, 3600, step_s=2)
    assert 25 <= len(bureau.inboxes.got) - at_first <= 50
    standing = bureau.now_is(endpoint)
    assert (standing.state, standing.failing_since) == ("enabled", bureau.clock.now() - dt.timedelta(seconds=3600))
    assert bureau.records(endpoint)[0].last_reason == "connection_refused"
    bureau.inboxes.refuse()
    bureau.go_on(relay, 130)
    assert set(bureau.states(endpoint).values()) == {"accepted"}
    assert len(bureau.states(endpoint)) == 100


def test_an_endpoint_that_accepts_nothing_for_a_day_is_disabled_with_an_alert(bureau: Bureau) -> None:
    """Its events wait for whoever enables it again; meanwhile it gets no request."""
    endpoint = bureau.endpoint()
    bureau.inboxes.answer = lambda _told: REFUSED
    payment = bureau.pays()
    relay = bureau.worker()
    bureau.go_on(relay, TRIED_FOR.total_seconds() - 60, step_s=30)
    assert bureau.now_is(endpoint).state == "enabled"
    bureau.go_on(relay, 3 * 3600, step_s=30)
    standing = bureau.now_is(endpoint)
    assert (standing.state, standing.cause) == ("disabled", "it did not accept an event for 24 hours")
    (alert,) = AlertLedger(bureau.database).all()
    assert (alert.kind, alert.detail["endpoint"], alert.detail["last"]) == (
        "webhook_disabled",
        endpoint.id,
        "http_500",
    )
    assert bureau.states(endpoint) == {f"{payment.id}:1": "given_up"}
    assert 20 <= len(bureau.inboxes.got) <= 60
    tried = len(bureau.inboxes.got)
    later = bureau.pays()
    bureau.go_on(relay, 600, step_s=60)
    assert len(bureau.inboxes.got) == tried
    bureau.inboxes.refuse()
    assert bureau.endpoints.enable(endpoint.id, "shop").state == "enabled"
    relay.run_once()
    assert bureau.inboxes.ids()[tried:] == [f"{later.id}:1"]


def test_one_event_that_is_refused_for_a_day_disables_the_endpoint_too(bureau: Bureau) -> None:
    """Though it accepts all others: what is behind that event would wait for ever, and nobody would know."""
    endpoint = bureau.endpoint()
    poison = bureau.pays()
    bureau.becomes(poison, "captured")
    bureau.inboxes.refuse(f"{poison.id}:1")
    relay = bureau.worker()
    for _ in range(26):
        bureau.pays()
        bureau.go_on(relay, 3600, step_s=300)
    assert bureau.now_is(endpoint).state == "disabled"
    states = bureau.states(endpoint)
    assert (states[f"{poison.id}:1"], states[f"{poison.id}:2"]) == ("given_up", "pending")
    bureau.endpoints.enable(endpoint.id, "shop")
    bureau.go_on(relay, 10)
    assert bureau.states(endpoint)[f"{poison.id}:2"] == "accepted"


def test_after_a_day_without_a_worker_one_refusal_disables_nothing(bureau: Bureau) -> None:
    """An endpoint is given up for what was tried, not for what nobody tried."""
    endpoint = bureau.endpoint()
    bureau.inboxes.answer = lambda _told: REFUSED
    bureau.pays()
    relay = bureau.worker()
    relay.run_once()
    bureau.clock.advance(3 * 86_400)
    relay.run_once()
    assert len(bureau.inboxes.got) == 2
    assert bureau.now_is(endpoint).state == "enabled"


def test_an_endpoint_that_is_gone_is_disabled_at_once_with_an_alert_each_time(bureau: Bureau) -> None:
    """What it was to be told waits, and is told when somebody enables it."""
    endpoint = bureau.endpoint()
    payment = bureau.pays()
    relay = bureau.worker()
    for times in (1, 2):
        bureau.inboxes.answer = lambda _told: GONE
        relay.run_once()
        assert (bureau.now_is(endpoint).state, bureau.now_is(endpoint).cause) == ("disabled", "it answered 410 Gone")
        assert [each.kind for each in AlertLedger(bureau.database).all()] == ["webhook_disabled"] * times
        bureau.go_on(relay, 60)
        assert len(bureau.inboxes.got) == times
        bureau.endpoints.enable(endpoint.id, "shop")
    bureau.inboxes.refuse()
    relay.run_once()
    assert bureau.states(endpoint) == {f"{payment.id}:1": "accepted"}


def test_a_fault_of_ours_with_one_event_is_its_refusal(bureau: Bureau) -> None:
    """The round is recorded all the same."""
    endpoint = bureau.endpoint()
    good, bad = bureau.pays(), bureau.pays()

    def answer(told: Told) -> Posted:
        if told.event_id == f"{bad.id}:1":
            raise ZeroDivisionError
        return ACCEPTED

    bureau.inboxes.answer = answer
    bureau.go_on(bureau.worker(), 20)
    assert bureau.states(endpoint) == {f"{good.id}:1": "accepted", f"{bad.id}:1": "pending"}
    assert {each.last_reason for each in bureau.records(endpoint)} == {None, "router_fault"}


def test_an_endpoint_that_is_dead_leaves_a_bounded_number_of_rows(
    bureau: Bureau, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest stays in the feed, and comes when there is room, in order."""
    monkeypatch.setattr(webhooks_out, "WINDOW", 10)
    endpoint = bureau.endpoint()
    bureau.inboxes.answer = lambda _told: REFUSED
    payments = [bureau.becomes(bureau.pays(), "captured") for _ in range(12)]
    relay = bureau.worker()
    bureau.go_on(relay, 600, step_s=10)
    assert len(bureau.records(endpoint)) == 10
    bureau.inboxes.refuse()
    bureau.go_on(relay, 600, step_s=10)
    wanted = {f"{payment.id}:{version}" for payment in payments for version in (1, 2)}
    assert bureau.states(endpoint) == dict.fromkeys(wanted, "accepted")
    assert _in_order(bureau.inboxes.ids())


# ---------------------------------------------------------------- who sends


def test_a_worker_that_died_between_sending_and_recording_leaves_it_to_another(bureau: Bureau) -> None:
    """It comes twice under one id, and the next event after it; none is lost."""
    bureau.endpoint()
    payment = bureau.becomes(bureau.pays(), "captured")

    class Dying:
        def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
            bureau.inboxes.post(url, headers, body)
            raise SystemExit  # as SIGKILL would: nothing after it happens

    with pytest.raises(SystemExit):
        bureau.worker(post=Dying()).run_once()
    other = bureau.worker()
    assert (other.run_once(), bureau.inboxes.ids()) == (0, [f"{payment.id}:1"])
    bureau.clock.advance(LEASE.total_seconds())
    assert other.run_once() == 2
    assert bureau.inboxes.ids() == [f"{payment.id}:1", f"{payment.id}:1", f"{payment.id}:2"]


def test_a_worker_that_was_paused_past_its_lease_does_not_undo_what_another_recorded(bureau: Bureau) -> None:
    """What it was told is accepted is accepted; how the endpoint stands the other one knows better."""
    endpoint = bureau.endpoint()
    payment = bureau.pays()
    other = bureau.worker()

    class Paused:
        def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
            bureau.clock.advance(LEASE.total_seconds() + 1)
            other.run_once()
            return REFUSED

    bureau.worker(post=Paused()).run_once()
    assert bureau.states(endpoint) == {f"{payment.id}:1": "accepted"}
    assert (bureau.now_is(endpoint).failures, bureau.inboxes.ids()) == (0, [f"{payment.id}:1"])


def test_a_worker_that_was_paused_in_its_round_begins_no_other_send(bureau: Bureau) -> None:
    """Another one may have its lease by then, and be further on."""
    bureau.endpoint()
    bureau.becomes(bureau.pays(), "authorized", "captured")

    def answer(_told: Told) -> Posted:
        bureau.clock.advance(LEASE.total_seconds())
        return ACCEPTED

    bureau.inboxes.answer = answer
    assert bureau.worker().run_once() == 1


def test_of_several_workers_one_sends_to_an_endpoint(bureau: Bureau) -> None:
    """Four workers at one instant, five endpoints: each event once to each."""
    endpoints = [bureau.endpoint(f"e{number}") for number in range(5)]
    payments = [bureau.becomes(bureau.pays(), "captured") for _ in range(4)]
    together([bureau.worker().run_once for _ in range(4)])
    bureau.worker().run_once()
    wanted = sorted(f"{payment.id}:{version}" for payment in payments for version in (1, 2))
    assert [sorted(bureau.inboxes.ids(each.url)) for each in endpoints] == [wanted] * 5


def test_what_another_worker_has_done_meanwhile_is_not_done_again(bureau: Bureau) -> None:
    """Neither while it sends, nor when it has: what was found to be due is checked when the lease is taken."""
    bureau.endpoint()
    payment = bureau.pays()
    first, second = bureau.worker(), bureau.worker()
    (mine,), (theirs,) = first.due(), second.due()
    assert (first.round(mine), second.round(theirs)) == (1, 0)
    bureau.inboxes.answer = lambda _told: REFUSED
    bureau.becomes(payment, "captured")
    first.run_once()
    bureau.clock.advance(10)
    (theirs,) = second.due()
    meanwhile: list[int] = []

    def answer(_told: Told) -> Posted:
        meanwhile.append(second.round(theirs))
        return ACCEPTED

    bureau.inboxes.answer = answer
    assert (first.run_once(), meanwhile) == (1, [0])
    assert bureau.inboxes.ids() == [f"{payment.id}:1", f"{payment.id}:2", f"{payment.id}:2"]


def test_while_an_event_waits_for_its_next_try_nothing_is_due(bureau: Bureau) -> None:
    """Nor is what comes after it: no worker takes a lease to find that out."""
    bureau.endpoint()
    payment = bureau.becomes(bureau.pays(), "captured")
    bureau.inboxes.refuse(f"{payment.id}:1")
    relay = bureau.worker()
    relay.run_once()
    bureau.clock.advance(2)
    assert relay.due() == []
    bureau.clock.advance(3)
    assert len(relay.due()) == 1


def test_an_endpoint_that_fails_is_asked_with_one_event_and_when_it_is_well_all_go_at_once(bureau: Bureau) -> None:
    """What would have waited for an hour too."""
    endpoint = bureau.endpoint()
    bureau.inboxes.answer = lambda _told: REFUSED
    for _ in range(20):
        bureau.pays()
    relay = bureau.worker()
    relay.run_once()
    bureau.clock.advance(10)
    tried = len(bureau.inboxes.got)
    relay.run_once()
    assert len(bureau.inboxes.got) == tried + 1
    bureau.go_on(relay, 4 * 3600, step_s=30)
    bureau.inboxes.refuse()
    bureau.pays()
    bureau.go_on(relay, 180, step_s=5)
    assert set(bureau.states(endpoint).values()) == {"accepted"}


# ---------------------------------------------------------------- what people do


def test_while_a_secret_is_rotated_both_sign(bureau: Bureau) -> None:
    """Then the new one alone; a second rotation within the first leaves two."""
    endpoint, first = bureau.endpoints.create(merchant="shop", url="https://one.example/in")
    second = bureau.endpoints.rotate(endpoint.id, "shop", old_for_h=1)
    relay = bureau.worker()

    def signed_by(*secrets: str) -> bool:
        bureau.pays()
        bureau.clock.advance(1)
        relay.run_once()
        told = bureau.inboxes.got[-1]
        unix_s, *found = (part.partition("=")[2] for part in told.headers[SIGNATURE].split(","))
        signed = f"{unix_s}.".encode() + told.body
        return found == [hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in secrets]

    assert signed_by(second, first)
    third = bureau.endpoints.rotate(endpoint.id, "shop", old_for_h=1)
    assert len({first, second, third}) == 3
    assert signed_by(third, second)
    bureau.clock.advance(3600)
    assert signed_by(third)
    fourth = bureau.endpoints.rotate(endpoint.id, "shop", old_for_h=0)
    assert signed_by(fourth)
    with pytest.raises(BadEndpointError, match="old_secret_hours"):
        bureau.endpoints.rotate(endpoint.id, "shop", old_for_h=-1)


def _hourly(bureau: Bureau, hours: int) -> list[Payment]:
    payments = []
    for _ in range(hours):
        payments.append(bureau.becomes(bureau.pays(), "captured"))
        bureau.clock.advance(3600)
    return payments


def test_everything_since_a_moment_is_sent_again_in_order(bureau: Bureau) -> None:
    """Under the same ids, what is pending in its place; what was before that is not sent."""
    endpoint = bureau.endpoint()
    began = bureau.clock.now()
    relay = bureau.worker()
    payments = _hourly(bureau, 6)
    relay.run_once()
    stuck = payments[-1]
    bureau.inboxes.refuse(f"{stuck.id}:3")
    bureau.becomes(stuck, "canceled")
    relay.run_once()
    bureau.inboxes.got.clear()
    bureau.inboxes.refuse()
    bureau.endpoints.resend(endpoint.id, "shop", began + dt.timedelta(hours=3))
    bureau.go_on(relay, 30)
    wanted = [f"{payment.id}:{version}" for payment in payments[3:] for version in (1, 2)] + [f"{stuck.id}:3"]
    assert sorted(bureau.inboxes.ids()) == wanted
    assert _in_order(bureau.inboxes.ids())
    assert set(bureau.states(endpoint).values()) == {"accepted"}
    assert [each.attempts for each in bureau.records(endpoint) if each.payment_id == payments[3].id] == [2, 2]


def test_a_new_endpoint_can_be_sent_what_was_before_it(bureau: Bureau) -> None:
    """From the very beginning, if asked; from where nothing happened since, nothing."""
    payments = _hourly(bureau, 4)
    endpoint = bureau.endpoint()
    relay = bureau.worker()
    bureau.endpoints.resend(endpoint.id, "shop", bureau.clock.now() - dt.timedelta(minutes=30))
    assert relay.run_once() == 0
    bureau.endpoints.resend(endpoint.id, "shop", dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    bureau.go_on(relay, 10)
    assert sorted(bureau.inboxes.ids()) == [f"{each.id}:{version}" for each in payments for version in (1, 2)]
    with pytest.raises(BadEndpointError, match="since"):
        bureau.endpoints.resend(endpoint.id, "shop", bureau.clock.now() + dt.timedelta(seconds=1))


def test_a_resend_is_found_by_date_wherever_it_begins(bureau: Bureau) -> None:
    """Every moment between two events begins with the second of them."""
    endpoint = bureau.endpoint()
    payments = _hourly(bureau, 7)
    end = bureau.clock.now()
    bureau.go_on(bureau.worker(), 5)
    for hours in range(1, 9):
        bureau.endpoints.resend(endpoint.id, "shop", end - dt.timedelta(hours=hours, minutes=-30))
        bureau.inboxes.got.clear()
        bureau.go_on(bureau.worker(), 5)
        assert {each.partition(":")[0] for each in bureau.inboxes.ids()} == {
            each.id for each in payments[8 - hours :]
        }


def test_while_it_is_disabled_an_endpoint_is_sent_nothing_and_loses_nothing(bureau: Bureau) -> None:
    """It goes on where it was left."""
    endpoint = bureau.endpoint()
    relay = bureau.worker()
    bureau.endpoints.disable(endpoint.id, "shop", "maintenance")
    payment = bureau.pays()
    assert relay.run_once() == 0
    assert bureau.now_is(endpoint).cause == "maintenance"
    bureau.endpoints.enable(endpoint.id, "shop")
    relay.run_once()
    assert bureau.inboxes.ids() == [f"{payment.id}:1"]


def test_a_deleted_endpoint_is_forgotten(bureau: Bureau) -> None:
    """Its address and secrets at once, its deliveries by housekeeping; another's stay."""
    endpoint, other = bureau.endpoint(), bureau.endpoint("two")
    bureau.pays()
    relay = bureau.worker()
    relay.run_once()
    bureau.endpoints.delete(endpoint.id, "shop")
    bureau.pays()
    assert relay.run_once() == 1
    assert [each.id for each in bureau.endpoints.list("shop")] == [other.id]
    with pytest.raises(NoSuchEndpointError):
        bureau.endpoints.enable(endpoint.id, "shop")
    with bureau.database.read() as connection:
        row = connection.execute(webhook_endpoints.select().where(webhook_endpoints.c.id == endpoint.id)).one()
    assert (row.url, row.secret, row.old_secret) == ("", "", None)
    before = bureau.clock.now() - dt.timedelta(days=30)
    assert (bureau.deliveries.reap(before, limit=9), bureau.deliveries.reap(before, limit=9)) == (1, 0)
    with bureau.database.read() as connection:
        left = connection.scalars(sa.select(webhook_endpoints.c.id)).all()
    assert left == [other.id]
    assert len(bureau.records(other)) == 2


def test_endpoints_are_their_merchants_own(bureau: Bureau) -> None:
    """Nobody else finds, changes or ends them; each has so many at most."""
    endpoint = bureau.endpoint()
    for act in (bureau.endpoints.find, bureau.endpoints.enable, bureau.endpoints.delete, bureau.endpoints.rotate):
        with pytest.raises(NoSuchEndpointError):
            act(endpoint.id, "another")
    assert bureau.endpoints.find(endpoint.id, None) == endpoint
    for number in range(MOST_OF_A_MERCHANT - 1):
        bureau.endpoint(f"e{number}")
    with pytest.raises(TooManyEndpointsError):
        bureau.endpoint("last")
    bureau.endpoint("other", merchant="another")


# ---------------------------------------------------------------- what is kept


def test_old_deliveries_are_forgotten_when_they_have_ended(bureau: Bureau) -> None:
    """What is pending is kept, however old; so many at a time."""
    endpoint = bureau.endpoint()
    done = [bureau.pays() for _ in range(3)]
    relay = bureau.worker()
    relay.run_once()
    bureau.inboxes.answer = lambda _told: REFUSED
    waits = bureau.pays()
    relay.run_once()
    bureau.clock.advance(KEPT.total_seconds() + 60)
    before = bureau.clock.now() - KEPT
    assert [bureau.deliveries.reap(before, limit=2) for _ in range(3)] == [2, 1, 0]
    assert list(bureau.states(endpoint)) == [f"{waits.id}:1"]
    assert done


def test_a_number_that_the_database_gives_again_is_not_taken_for_the_old_one(bureau: Bureau) -> None:
    """SQLite does so after a delete: what is recorded is recorded of the event that was sent."""
    endpoint = bureau.endpoint()
    first = bureau.pays()
    relay = bureau.worker()
    (due,) = relay.due()
    until = bureau.clock.now() + LEASE
    claimed = bureau.deliveries.claim(
        due.candidate, "gone", now=bureau.clock.now(), until=until, new=due.new, up_to=due.up_to
    )
    assert claimed is not None
    (sent,) = claimed.pending
    with bureau.database.write() as connection:
        connection.execute(webhook_deliveries.delete())
        row = {"event_id": "pay_other:1", "payment_id": "pay_other", "type": CAPTURED, "version": 1, "body": "{}"}
        more = {"endpoint_id": endpoint.id, "state": "pending", "next_try_at": 0, "created_at": 0}
        place = {"event_xact": 0, "event_number": 0, "number": sent.number}
        connection.execute(webhook_deliveries.insert(), {**row, **more, **place})
    result = Result(sent, bureau.clock.now(), 200, None, 0.1)
    bureau.deliveries.record(claimed, "gone", Recorded([result]), now=bureau.clock.now())
    assert bureau.states(endpoint) == {"pay_other:1": "pending"}
    assert first.id != "pay_other"


def test_a_row_that_nobody_wrote_holds_up_no_endpoint(bureau: Bureau) -> None:
    """It is passed over, loudly; what comes after it is told."""
    bureau.endpoint()
    broken, payment = bureau.pays(), bureau.pays()
    with bureau.database.write() as connection:
        row = payment_events.c.payment_id == broken.id
        connection.execute(payment_events.update().where(row).values(changes={"merchant": "shop"}))
    assert bureau.worker().run_once() == 1
    assert bureau.inboxes.ids() == [f"{payment.id}:1"]


# ---------------------------------------------------------------- whose turn it is


def test_a_claim_is_refused_where_the_position_is_anothers(bureau: Bureau) -> None:
    """By both of its parts: on PostgreSQL a resend may change the one and not the other."""
    bureau.endpoint()
    bureau.pays()
    (due,) = bureau.worker().due()
    was, now = due.candidate.position, bureau.clock.now()
    for other in (Position(was.xact + 1, was.number), Position(was.xact, was.number + 1)):
        candidate = dataclasses.replace(due.candidate, position=other)
        assert bureau.deliveries.claim(candidate, "me", now=now, until=now, new=due.new, up_to=due.up_to) is None
    assert bureau.deliveries.claim(due.candidate, "me", now=now, until=now, new=due.new, up_to=due.up_to) is not None


def test_a_lease_keeps_others_away_until_its_very_end(bureau: Bureau) -> None:
    """From being found, and from a claim by whoever had found it before."""
    bureau.endpoint()
    (before,) = bureau.deliveries.candidates(bureau.clock.now())

    def claim(holder: str) -> bool:
        now = bureau.clock.now()
        until, place = now + LEASE, before.position
        return bureau.deliveries.claim(before, holder, now=now, until=until, new=[], up_to=place) is not None

    assert claim("one")
    bureau.clock.advance(LEASE.total_seconds() - 0.001)
    assert not claim("two")
    assert bureau.deliveries.candidates(bureau.clock.now()) == []
    bureau.clock.advance(0.001)
    assert len(bureau.deliveries.candidates(bureau.clock.now())) == 1
    assert claim("two")


@pytest.mark.parametrize(("rounds", "at_once"), [(WELL_AFTER - 1, False), (WELL_AFTER, True)])
def test_after_a_few_failed_rounds_one_that_is_accepted_brings_all_forward(
    bureau: Bureau, rounds: int, at_once: bool
) -> None:
    """Of that endpoint, to that moment; a single refusal between accepted ones brings nothing forward."""
    endpoint, other = bureau.endpoint("one"), bureau.endpoint("other")
    bureau.inboxes.answer = lambda _told: REFUSED
    bureau.pays()
    relay = bureau.worker()
    relay.run_once()
    far = bureau.clock.now() + dt.timedelta(hours=1)
    payment = bureau.pays()
    with bureau.database.write() as connection:
        connection.execute(webhook_endpoints.update().values(failures=rounds, next_try_at=0))
        connection.execute(webhook_deliveries.update().values(next_try_at=to_micros(far)))
    bureau.inboxes.answer = lambda told: ACCEPTED if told.url == endpoint.url else REFUSED
    relay.run_once()
    waiting = {each.payment_id: each.next_try_at for each in bureau.records(endpoint) if each.state == "pending"}
    assert payment.id not in waiting
    assert set(waiting.values()) == {bureau.clock.now() if at_once else far}
    assert far in {each.next_try_at for each in bureau.records(other)}


def test_the_secrets_are_not_in_what_a_claim_says_of_itself(bureau: Bureau) -> None:
    """It may come into a log or a report of an error."""
    _, secret = bureau.endpoints.create(merchant="shop", url="https://one.example/in")
    bureau.pays()
    (due,) = bureau.worker().due()
    now = bureau.clock.now()
    claimed = bureau.deliveries.claim(due.candidate, "me", now=now, until=now, new=due.new, up_to=due.up_to)
    assert claimed is not None
    assert claimed.secrets == (secret,)
    assert secret not in repr(claimed)


def test_the_backlog_is_counted(bureau: Bureau) -> None:
    """For the page that says how the service is."""
    well, failing, off = bureau.endpoint("well"), bureau.endpoint("failing"), bureau.endpoint("off")
    bureau.endpoints.disable(off.id, "shop", "a test")
    at = bureau.clock.now()
    bureau.inboxes.answer = lambda told: ACCEPTED if told.url == well.url else REFUSED
    bureau.pays()
    bureau.worker().run_once()
    found = bureau.endpoint_ledger.backlog()
    assert dataclasses.astuple(found) == (1, at, 0, None, 1, 1)
    assert bureau.now_is(failing).failures == 1


def test_what_no_worker_has_read_is_backlog_too(bureau: Bureau) -> None:
    """Else a service without a worker looks as if it had nothing to do; a disabled endpoint keeps nobody waiting."""
    off = bureau.endpoint("off")
    bureau.endpoint()
    bureau.endpoints.disable(off.id, "shop", "a test")
    at = bureau.clock.now()
    bureau.becomes(bureau.pays(), "captured")
    assert dataclasses.astuple(bureau.endpoint_ledger.backlog()) == (0, None, 2, at, 0, 1)
    bureau.worker().run_once()
    assert dataclasses.astuple(bureau.endpoint_ledger.backlog()) == (0, None, 0, None, 0, 1)


def test_the_count_of_a_backlog_is_bounded(bureau: Bureau, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is asked often must not count for seconds."""
    monkeypatch.setattr(webhook_endpoints_ledger, "MOST_COUNTED", 2)
    bureau.endpoint()
    for _ in range(3):
        bureau.pays()
    assert bureau.endpoint_ledger.backlog().unread == 2
    bureau.inboxes.answer = lambda _told: REFUSED
    bureau.worker().run_once()
    found = bureau.endpoint_ledger.backlog()
    assert (found.pending, found.unread) == (2, 0)


def test_what_an_endpoint_does_not_want_is_no_backlog_for_more_than_a_minute(bureau: Bureau) -> None:
    """Its position follows at last, though nothing was put up."""
    bureau.endpoint(types=[CAPTURED])
    relay = bureau.worker()
    bureau.pays()
    bureau.go_on(relay, FAR_S - 1)
    assert bureau.endpoint_ledger.backlog().unread == 1
    bureau.go_on(relay, 3)
    assert bureau.endpoint_ledger.backlog().unread == 0
