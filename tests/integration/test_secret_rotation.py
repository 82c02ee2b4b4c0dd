"""Webhook secrets that are replaced while events flow: whoever checks by the old or the new one refuses nothing."""

from __future__ import annotations

import hashlib
import hmac
import threading

from router.ledger.engine import Database
from router.ledger.sealed import Seals
from router.sealing import Ring, new_key
from router.signing import SIGNATURE
from router.webhooks_out_post import Posted
from tests.fakes.webhooks_out import ACCEPTED, Bureau, Told
from tests.integration.conftest import OpenShop
from tests.integration.desk import SECRETS, LetterBox, letter_box

ROTATIONS = 5
MOST_PAYMENTS = 200
"""Of one wait for deliveries: many times what it takes."""
WRONG = Posted(401, "http_401", 0.01)


def is_signed(told: Told, secret: str) -> bool:
    """As a receiver that knows one secret checks."""
    unix_s, *signed = (part.partition("=")[2] for part in told.headers[SIGNATURE].split(","))
    wanted = hmac.new(secret.encode(), f"{unix_s}.".encode() + told.body, hashlib.sha256).hexdigest()
    return wanted in signed


def test_a_receiver_refuses_nothing_while_its_secret_is_replaced_under_load(database: Database) -> None:
    """It knows the old one until it has put in the new one, some deliveries later; meanwhile the ledger's key goes
    too. A worker sends all the time."""
    old_key = new_key()
    database.seals = Seals(Ring([old_key]))
    bureau = Bureau(database)
    endpoint, secret = bureau.endpoints.create(merchant="shop", url="https://one.example/in")
    known, refused = [secret], list[Told]()
    stop = threading.Event()

    def check(told: Told) -> Posted:
        if any(is_signed(told, each) for each in known):
            return ACCEPTED
        refused.append(told)
        return WRONG

    bureau.inboxes.answer = check
    relay = bureau.worker()

    def send() -> None:
        while not stop.is_set():
            relay.run_once()

    def some_deliveries(count: int = 4) -> None:
        until = len(bureau.inboxes.got) + count
        for _ in range(MOST_PAYMENTS):
            if len(bureau.inboxes.got) >= until or refused:
                break
            bureau.pays()
            bureau.clock.advance(1.0)
            stop.wait(0.02)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        some_deliveries()
        for number in range(ROTATIONS):
            secret = bureau.endpoints.rotate(endpoint.id, "shop", old_for_h=1)
            some_deliveries()  # it still knows the old one only
            known[:] = [secret]
            some_deliveries()
            if number == 2:
                database.seals = Seals(Ring([new_key(), old_key]))
    finally:
        stop.set()
        thread.join()
    assert refused == []
    assert len(bureau.inboxes.got) >= ROTATIONS * 8
    assert {each.state for each in bureau.records(endpoint)} <= {"accepted", "pending"}


def test_a_providers_webhook_is_believed_under_either_of_two_secrets(shops: OpenShop) -> None:
    """While one replaces the other, whichever the provider signs with; once the old one is out, not with it."""
    new = {"stripe_webhook_secret": "whsec_new_and_not_in_use_yet", "adyen_hmac_key": "AB" * 32}
    both = {name: f"{value}, {SECRETS[name]}" for name, value in new.items()}
    between, afterwards = shops(**both), shops(**new)
    with letter_box(between) as box:
        assert between.pay().status_code == 201
        between.fault("stripe", "down")
        assert between.pay().status_code == 201
        sent = box.all_told()
        assert {provider for provider, _, _ in sent} == {"stripe", "adyen"}
        assert {box.forward(letter).status_code for letter in sent} == {200}
        late = LetterBox(afterwards)
        assert {late.forward(letter).status_code for letter in sent} == {400}
        late.close()
