"""How often a flip may be, when there is none, how one is undone, the same with a flags file, and who is told.

After every round a customer pays, and the fixture looks at every payment in the end: captured once, none lost, none
sent to the failing provider after its circuit had opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from flags.contract import PRIMARY_PROVIDER, provider_enabled_key
from flags.filewriter import FileFlagWriter
from providers.sandbox.server import Sandbox
from router.flip_ending import SEEN_AFTER_S
from router.flip_restoring import TOUCHED
from router.flip_writing import REFUSALS
from router.settings import PROVIDER_NAMES
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.integration.flip_house import ANYONE, FlipHouse, open_house
from tests.unit.webhook_receiver import Receiver, until

Build = Callable[..., FlipHouse]


@pytest.fixture
def build(tmp_path: Path, sandbox: Sandbox, ld: FakeLaunchDarkly) -> Iterator[Build]:
    """Opens a house at LaunchDarkly with these settings."""
    with contextlib.ExitStack() as stack:
        houses: list[FlipHouse] = []

        def build(**settings: Any) -> FlipHouse:
            houses.append(stack.enter_context(open_house(tmp_path, sandbox, ld=ld, **settings)))
            return houses[-1]

        yield build
        for house in houses:
            house.check_payments()


def flipped(house: FlipHouse) -> FlipHouse:
    """An outage, its flip to adyen, and stripe well again: the flag still serves adyen."""
    house.outage()
    house.after(60)
    house.caught_up()
    house.after(SEEN_AFTER_S)
    assert (house.flip.state, house.served, house.overriding) == ("confirmed", "adyen", False)
    house.recovered()
    return house


# ---------------------------------------------------------------- how often


def test_within_the_cooldown_a_second_incident_is_held_and_told_once(build: Build, ld: FakeLaunchDarkly) -> None:
    """No override either; when it is over, the flag goes on to whoever is well."""
    house = flipped(build(flip_cooldown_seconds=600))
    house.outage(provider="adyen")
    house.after(60, rounds=5)
    assert (house.served, house.writes, house.overriding) == ("adyen", 1, False)
    assert house.told == ["flip_confirmed", "flip_held"]
    assert "left alone for 600 s" in house.alerts[-1].text
    assert (house.last.primary, house.last.first) == ("adyen", "stripe")
    house.after(60, rounds=6)
    assert (house.served, house.writes) == ("stripe", 2)
    assert [each.state for each in house.flips.newest(limit=5)] == ["confirmed", "confirmed"]
    assert house.told == ["flip_confirmed", "flip_held", "flip_confirmed"]


def test_there_are_at_most_so_many_writes_an_hour(build: Build, ld: FakeLaunchDarkly) -> None:
    """The next one is held until the first of them is an hour old, and told once."""
    house = flipped(build(flip_cooldown_seconds=0, flips_per_hour=1))
    house.outage(provider="adyen")
    house.after(600, rounds=5)
    assert (house.served, house.writes, house.told) == ("adyen", 1, ["flip_confirmed", "flip_held"])
    assert "moved 1 times in the last hour, and 1 are allowed" in house.alerts[-1].text
    house.after(600)
    assert (house.served, house.writes) == ("stripe", 2)


def test_a_write_that_was_refused_counts_for_no_limit(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """The next incident, within the cooldown, has its override and its flip: the flag was never moved."""
    ld.fail_next("patch", status=403, times=REFUSALS)
    house.outage()
    house.after(60, rounds=REFUSALS)
    assert (house.flip.state, house.flip.requested_at, house.writes) == ("failed", None, 0)
    house.incident_over()
    house.outage()
    house.after(60)
    assert [each.state for each in house.flips.newest(limit=5)] == ["confirmed", "failed"]
    assert (house.served, house.writes, house.told) == ("adyen", 1, ["flip_failed", "flip_confirmed"])


# ---------------------------------------------------------------- to nobody


def test_without_a_healthy_target_nothing_is_decided_and_a_person_is_told_once(house: FlipHouse) -> None:
    """What nobody can take waits, and is taken by whoever is well first."""
    house.outage()
    house.outage(provider="adyen", by_payments=False)
    house.after(60, rounds=5)
    assert (house.flips.newest(limit=1), house.patches, house.overriding) == ([], [], False)
    assert house.told == ["no_target"]
    house.recovered(provider="adyen")
    house.after(60)
    assert (house.flip.state, house.served, house.told) == ("confirmed", "adyen", ["no_target", "flip_confirmed"])
    house.take_parked()


def test_a_target_whose_kill_switch_is_off_is_none(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Until it is on again."""
    key = provider_enabled_key("adyen")
    house.outage()
    ld.person_switches(key, on=False)
    house.caught_up(key)
    house.after(60, rounds=2)
    assert (house.flips.newest(limit=1), house.patches, house.told) == ([], [], ["no_target"])
    ld.person_switches(key, on=True)
    house.caught_up(key)
    house.after(1)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "adyen", 1)
    house.take_parked()


def test_a_target_that_is_killed_while_its_flip_waits_is_not_written(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Nobody is sent there; the flip goes on when a person lets it."""
    key = provider_enabled_key("adyen")
    ld.fail_next("get", status=503, times=3)
    house.outage()
    house.after(60)
    ld.person_switches(key, on=False)
    house.caught_up(key)
    charged = len(house.shop.charges("adyen"))
    house.after(60, rounds=2)
    assert (house.flip.state, house.flip.cause) == ("overriding", "no other provider is healthy and enabled")
    assert (house.served, house.patches, len(house.shop.charges("adyen"))) == ("stripe", [], charged)
    ld.person_switches(key, on=True)
    house.caught_up(key)
    house.after(60)
    assert (house.flip.state, house.served, house.writes) == ("confirmed", "adyen", 1)
    house.take_parked()


# ---------------------------------------------------------------- restoring


def ask(house: FlipHouse) -> None:
    """An operator asks for it."""
    answer = house.shop.send("POST", f"/v1/flips/{house.flip.id}/restore", json={"reason": "stripe is well"})
    assert answer.status_code == 202


def test_a_person_restores_by_hand_and_payments_go_back(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Within the cooldown, with one more PATCH that says whose word it was."""
    flipped(house)
    assert house.last.first == "adyen"
    ask(house)
    house.after(1)
    flip = house.flip
    assert (flip.state, flip.restore_reason, flip.cause) == ("restored", "stripe is well", None)
    assert (house.served, house.answered, house.writes) == ("stripe", [200, 200], 2)
    comment = f"restore of {flip.id}, incident {flip.incident}: stripe is well ({flip.restore_by})"
    assert house.patches[-1].comment == comment
    assert house.told == ["flip_confirmed", "restored"]
    house.caught_up()
    house.after(1)
    assert (house.last.primary, house.last.first) == ("stripe", "stripe")


def test_a_flag_that_somebody_touched_since_is_not_restored(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """There and back again counts: whoever did that decides, and the record and the alert say so."""
    flipped(house)
    for provider in ("stripe", "adyen"):
        ld.person_sets(PRIMARY_PROVIDER, provider)
    house.caught_up()
    ask(house)
    house.after(1)
    assert (house.flip.state, house.flip.cause, house.flip.restore_at) == ("confirmed", TOUCHED, None)
    assert (house.served, house.writes, house.told) == ("adyen", 1, ["flip_confirmed", "restore_failed"])
    assert house.last.first == "adyen"


def test_a_restore_whose_answer_was_lost_is_found_done(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """By a look, in the same round."""
    flipped(house)
    ld.fail_next("patch", how="cut", acts=True)
    ask(house)
    house.after(1)
    assert (house.flip.state, house.served, len(house.patches)) == ("restored", "stripe", 2)


def test_a_restore_that_would_overwrite_a_change_at_that_moment_is_given_up(
    house: FlipHouse, ld: FakeLaunchDarkly
) -> None:
    """409, and the look after it finds another hand."""
    flipped(house)
    ld.during_patch(lambda: ld.person_sets_rollout(PRIMARY_PROVIDER, {"stripe": 50_000, "adyen": 50_000}))
    ask(house)
    house.after(1)
    assert (house.flip.state, house.flip.cause, house.answered) == ("confirmed", TOUCHED, [200, 409])
    assert house.served == {"stripe": 50_000, "adyen": 50_000}


def test_a_flag_that_needs_approval_by_then_is_not_restored(house: FlipHouse, ld: FakeLaunchDarkly) -> None:
    """Whoever may approve can set it back as well."""
    flipped(house)
    ld.need_approval(PRIMARY_PROVIDER)
    ask(house)
    house.after(1)
    assert (house.flip.state, house.served, ld.approvals) == ("confirmed", "adyen", {})
    assert "needs a person's approval" in (house.flip.cause or "")
    assert house.told[-1] == "restore_failed"


def test_the_machine_restores_by_itself_where_the_setting_says_so(build: Build, ld: FakeLaunchDarkly) -> None:
    """After half an hour of closed, and only where nobody has touched the flag."""
    house = flipped(build(flip_restore="automatic", flip_restore_after_seconds=1800))
    house.after(1798)
    assert house.served == "adyen"
    house.after(3)
    assert (house.flip.state, house.flip.restore_by, house.writes) == ("restored", "pointsman", 2)
    house.caught_up()
    house.after(1)
    assert (house.served, house.last.first) == ("stripe", "stripe")


# ---------------------------------------------------------------- with no account


def test_the_same_flow_on_the_flags_file(tmp_path: Path, sandbox: Sandbox) -> None:
    """Flip, restore, and a person's edit that stands: with nobody's account."""
    with open_house(tmp_path, sandbox, ld=None) as house:
        hand = FileFlagWriter(house.shop.core.settings.flags_path, PROVIDER_NAMES)

        def heard(primary: str) -> None:
            until(lambda: all(core.flags.read(ANYONE).primary == primary for core in house.cores))
            house.follow()

        assert house.pay().first == "stripe"
        house.outage()
        house.after(59.9)
        assert house.flips.newest(limit=1) == []
        house.clock.advance(0.1)
        house.workers[0].loops["flips"]()
        house.follow()
        house.pay()
        assert house.obeyed
        house.after()
        assert (house.flip.state, hand.current(PRIMARY_PROVIDER)) == ("confirmed", "adyen")
        heard("adyen")
        house.after(SEEN_AFTER_S)
        assert (house.overriding, house.last.primary, house.told) == (False, "adyen", ["flip_confirmed"])
        house.recovered()
        ask(house)
        house.after(1)
        assert (house.flip.state, hand.current(PRIMARY_PROVIDER)) == ("restored", "stripe")
        heard("stripe")
        house.after(300)
        assert house.last.first == "stripe"

        # Another incident, and a person's edit during it.
        house.outage()
        for primary in ("adyen", "stripe"):
            house.clock.advance(5)
            assert hand.set(PRIMARY_PROVIDER, primary, expected=None, comment="a person")
            heard(primary)
        house.after(600, rounds=2)
        newest, _ = house.flips.newest(limit=5)
        assert (newest.state, house.overriding, hand.current(PRIMARY_PROVIDER)) == ("superseded", False, "stripe")
        assert "a person changed payments-primary-provider" in (newest.cause or "")
        assert house.told == ["flip_confirmed", "restored", "flip_superseded"]
        house.check_payments()


# ---------------------------------------------------------------- who is told


def test_alerts_are_posted_signed_and_again_until_they_are_taken_once(build: Build, ld: FakeLaunchDarkly) -> None:
    """Two workers and a receiver that is broken at first: each alert arrives once, whole and genuine."""
    receiver = Receiver()
    try:
        house = build(
            alert_webhook_url=SecretStr(f"{receiver.url}/hook"), alert_webhook_secret=SecretStr("a shared secret")
        )
        receiver.statuses.extend([500, 302, 500])
        ld.fail_next("get", status=503, times=3)
        house.outage()

        def told_after(seconds: float) -> int:
            house.after(seconds)
            for worker in house.workers:
                worker.loops["alerts"]()
            return len(receiver.requests)

        assert told_after(60) == 0
        assert told_after(2) == 0
        assert told_after(7) == 1  # the second alert, while the first is refused once more
        assert told_after(13) == 2
        assert told_after(3600) == 2
        assert [told["kind"] for told in _genuine(receiver)] == house.told == ["flip_waits", "flip_confirmed"]
        for told, alert in zip(_genuine(receiver), house.alerts, strict=True):
            assert (told["id"], told["flip"], told["incident"]) == (alert.id, house.flip.id, "inc_stripe_1")
            assert (told["text"], told["detail"]["from"], told["detail"]["to"]) == (alert.text, "stripe", "adyen")
    finally:
        receiver.close()


def _genuine(receiver: Receiver) -> list[dict[str, Any]]:
    """What came, in the order in which it happened; each signature is checked as a receiver does."""
    found = []
    for path, headers, body in receiver.requests:
        moment, signature = (part.partition("=")[2] for part in headers["X-Pointsman-Signature"].split(","))
        signed = hmac.new(b"a shared secret", f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
        assert (path, headers["Content-Type"]) == ("/hook", "application/json")
        assert hmac.compare_digest(signature, signed)
        found.append(json.loads(body))
    assert len({told["id"] for told in found}) == len(found)
    return sorted(found, key=lambda told: str(told["at"]))
