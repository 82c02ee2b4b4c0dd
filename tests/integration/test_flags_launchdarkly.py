"""The real SDK over HTTP against a stand-in LaunchDarkly."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flags import reading
from flags.contract import PRIMARY_PROVIDER, FlagContext, RoutingFlags, provider_enabled_key
from flags.definitions import definitions
from flags.document import new_document
from flags.launchdarkly import LaunchDarklyFlags
from flags.values import WrongValue
from tests.fakes.launchdarkly import FakeLaunchDarkly

PROVIDERS = ("stripe", "adyen")
DEFAULTS = RoutingFlags(enabled={"stripe": True, "adyen": True})
ANYONE = FlagContext()

Connect = Callable[..., LaunchDarklyFlags]


@pytest.fixture
def launchdarkly() -> Iterator[FakeLaunchDarkly]:
    with FakeLaunchDarkly(new_document(definitions(PROVIDERS).values())["flags"]) as fake:
        yield fake


@pytest.fixture
def reports() -> list[WrongValue]:
    return []


@pytest.fixture
def connect(reports: list[WrongValue], monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.setattr(reading, "CLOSE_WAIT_S", 0.3)
    connected: list[LaunchDarklyFlags] = []

    def connect(uri: str, **options: Any) -> LaunchDarklyFlags:
        options = {"initial_reconnect_delay_s": 0.05, **options}
        flags = LaunchDarklyFlags(
            "sdk-key", PROVIDERS, report=reports.append, base_uri=uri, stream_uri=uri, events_uri=uri, **options
        )
        connected.append(flags)
        return flags

    yield connect
    for flags in connected:
        flags.close()


@pytest.fixture
def dead_uri() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def wait_for(condition: Callable[[], bool], within_s: float = 2.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(0.002)


def rule(kind: str, attribute: str, value: str) -> dict[str, Any]:
    """A rule that serves the second variation, `adyen`."""
    clause = {"contextKind": kind, "attribute": attribute, "op": "in", "values": [value], "negate": False}
    return {"id": f"{kind}-{attribute}", "variation": 1, "clauses": [clause]}


def test_a_new_project_serves_the_defaults(
    launchdarkly: FakeLaunchDarkly, connect: Connect, reports: list[WrongValue]
) -> None:
    """Connected within the start wait, with the SDK key, and nothing to report."""
    flags = connect(launchdarkly.uri)
    assert flags.status().state == "valid"
    assert flags.read(ANYONE) == DEFAULTS
    assert launchdarkly.authorization == "sdk-key"
    assert reports == []


def test_rules_by_currency_merchant_and_customer_serve_another_primary(
    launchdarkly: FakeLaunchDarkly, connect: Connect
) -> None:
    """Product teams target whom they like; everyone else keeps the fallthrough."""
    launchdarkly.update(
        PRIMARY_PROVIDER,
        rules=[
            rule("payment", "currency", "JPY"),
            rule("merchant", "key", "shop"),
            rule("customer", "country", "FR"),
        ],
    )
    flags = connect(launchdarkly.uri)
    contexts = {
        FlagContext("pay_1", "other", "cus", 100, "EUR"): "stripe",
        FlagContext("pay_2", "other", None, 100, "JPY"): "adyen",
        FlagContext("pay_3", "shop", None, 100, "EUR"): "adyen",
        FlagContext("pay_4", None, "cus", customer_country="FR"): "adyen",
        FlagContext("pay_5", "other", None, customer_country="FR"): "stripe",
        ANYONE: "stripe",
        FlagContext("", "", ""): "stripe",
    }
    assert {context: flags.read(context).primary for context in contexts} == contexts


def test_a_primary_that_a_rule_or_a_target_chose_is_pinned(
    launchdarkly: FakeLaunchDarkly, connect: Connect, reports: list[WrongValue]
) -> None:
    """Whatever value it chose; not one for everyone, by rollout, or because the flag is off."""
    targets = [{"contextKind": "customer", "variation": 0, "values": ["vip"]}]
    launchdarkly.update(PRIMARY_PROVIDER, rules=[rule("payment", "currency", "JPY")], contextTargets=targets)
    flags = connect(launchdarkly.uri)
    japan, vip = FlagContext("pay_1", currency="JPY"), FlagContext("pay_2", None, "vip")
    pinned = {who: flags.read(who) for who in (japan, vip, ANYONE)}
    assert [(read.primary, read.primary_pinned) for read in pinned.values()] == [
        ("adyen", True),
        ("stripe", True),
        ("stripe", False),
    ]
    halves = [{"variation": index, "weight": 50_000} for index in (0, 1)]
    launchdarkly.update(PRIMARY_PROVIDER, fallthrough={"rollout": {"contextKind": "payment", "variations": halves}})
    wait_for(lambda: {flags.read(FlagContext(f"pay_{n}")).primary for n in range(50)} == {"stripe", "adyen"})
    assert not any(flags.read(FlagContext(f"pay_{n}")).primary_pinned for n in range(50))
    launchdarkly.update(PRIMARY_PROVIDER, on=False)
    wait_for(lambda: not flags.read(japan).primary_pinned)
    assert reports == []


def test_a_rule_that_serves_what_may_not_be_served_pins_nothing(
    launchdarkly: FakeLaunchDarkly, connect: Connect, reports: list[WrongValue]
) -> None:
    """The default is used for that payment as for everyone."""
    launchdarkly.update(
        PRIMARY_PROVIDER, variations=["stripe", "braintree"], rules=[rule("payment", "method", "card")]
    )
    read = connect(launchdarkly.uri).read(FlagContext("pay_1", method="card"))
    assert (read.primary, read.primary_pinned) == ("stripe", False)
    assert [each.key for each in reports] == [PRIMARY_PROVIDER]


def test_an_update_over_the_stream_is_served(launchdarkly: FakeLaunchDarkly, connect: Connect) -> None:
    """A toggle in LaunchDarkly is seen with no restart, also after the stream was dropped."""
    flags = connect(launchdarkly.uri)
    launchdarkly.update(PRIMARY_PROVIDER, fallthrough={"variation": 1})
    wait_for(lambda: flags.read(ANYONE).primary == "adyen")
    launchdarkly.drop_streams()
    launchdarkly.update(provider_enabled_key("stripe"), on=False)
    wait_for(lambda: not flags.read(ANYONE).is_enabled("stripe"))
    wait_for(lambda: flags.status().state == "valid")


def test_an_outage_keeps_the_values_and_shows_in_the_status(launchdarkly: FakeLaunchDarkly, connect: Connect) -> None:
    """The last values go on, and whoever looks sees that they are old, and why."""
    launchdarkly.update(PRIMARY_PROVIDER, fallthrough={"variation": 1})
    flags = connect(launchdarkly.uri)
    launchdarkly.refuse_with = 503
    launchdarkly.drop_streams()
    wait_for(lambda: flags.status().detail == "LaunchDarkly answered HTTP 503")
    assert flags.status().state == "interrupted"
    assert flags.read(ANYONE).primary == "adyen"
    launchdarkly.refuse_with = None
    wait_for(lambda: flags.status().state == "valid")


def test_a_wrong_key_is_named_in_the_status(launchdarkly: FakeLaunchDarkly, connect: Connect) -> None:
    """The commonest mistake of a first day, in words."""
    launchdarkly.refuse_with = 401
    flags = connect(launchdarkly.uri, start_wait_s=0.2)
    wait_for(lambda: flags.status().detail == "LaunchDarkly answered HTTP 401: is the SDK key right?")
    assert flags.read(ANYONE) == DEFAULTS


def test_away_at_start_the_defaults_serve_and_the_wait_is_bounded(
    dead_uri: str, connect: Connect, reports: list[WrongValue], caplog: pytest.LogCaptureFixture
) -> None:
    """A start during LaunchDarkly's outage takes the start wait and no more; reads warn of nothing."""
    started = time.monotonic()
    flags = connect(dead_uri, start_wait_s=0.2)
    assert time.monotonic() - started < 0.2 + 3
    warnings = len(caplog.records)
    for _ in range(100):
        assert flags.read(ANYONE) == DEFAULTS
    assert len(caplog.records) == warnings
    assert flags.status().state == "initializing"
    assert reports == []


def test_a_refused_connection_at_start_is_named_and_mends_itself(connect: Connect) -> None:
    """Nothing listens: the status says so, and once LaunchDarkly is back its values are served."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    flags = connect(f"http://127.0.0.1:{port}", start_wait_s=0.2)
    wait_for(lambda: flags.status().detail == "LaunchDarkly cannot be reached")
    assert flags.status().state == "initializing"
    with FakeLaunchDarkly(new_document(definitions(PROVIDERS).values())["flags"], port=port) as fake:
        fake.update(PRIMARY_PROVIDER, fallthrough={"variation": 1})
        wait_for(lambda: flags.read(ANYONE).primary == "adyen", within_s=5.0)
        assert flags.status().state == "valid"


def test_a_number_for_the_primary_is_reported_once_and_not_obeyed(
    launchdarkly: FakeLaunchDarkly, connect: Connect, reports: list[WrongValue]
) -> None:
    """The SDK checks no types; the reader does."""
    flags = connect(launchdarkly.uri)
    launchdarkly.update(PRIMARY_PROVIDER, variations=[7, "adyen"])
    wait_for(lambda: flags.read(ANYONE) == DEFAULTS and reports != [])
    for _ in range(20):
        assert flags.read(ANYONE) == DEFAULTS
    assert [str(report) for report in reports] == [
        'flag payments-primary-provider: not a string; its default "stripe" is used; the value is 7'
    ]


def test_a_flag_that_the_project_lacks_is_reported_once(connect: Connect, reports: list[WrongValue]) -> None:
    """A toggle that does nothing because its flag has another name is not silent."""
    all_flags = new_document(definitions(PROVIDERS).values())["flags"]
    del all_flags[PRIMARY_PROVIDER]
    with FakeLaunchDarkly(all_flags) as fake:
        flags = connect(fake.uri)
        assert [flags.read(ANYONE) for _ in range(3)] == [DEFAULTS] * 3
    assert [(report.key, report.reason.split(",")[0]) for report in reports] == [(PRIMARY_PROVIDER, "missing")]


def test_an_empty_key_is_refused_at_once() -> None:
    """Rather than a service that looks for LaunchDarkly for ever."""
    with pytest.raises(ValueError, match="SDK key is empty"):
        LaunchDarklyFlags(" ", PROVIDERS, report=print)


def test_close_is_bounded_while_launchdarkly_does_not_answer(dead_uri: str, connect: Connect) -> None:
    """A stop of the service does not wait for the last events to be taken."""
    flags = connect(dead_uri, start_wait_s=0.1)
    flags.client.track("anything", reading.to_sdk_context(ANYONE))
    started = time.monotonic()
    flags.close()
    assert time.monotonic() - started < 0.3 + 3
    assert flags.status().state == "off"


def test_the_sdk_logs_warnings_and_no_noise(
    launchdarkly: FakeLaunchDarkly, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Its INFO lines tell of every connection and are not the router's news."""
    with caplog.at_level(logging.INFO, logger="root"):
        connect(launchdarkly.uri).read(ANYONE)
    assert [record.getMessage() for record in caplog.records if record.levelno < logging.WARNING] == []
