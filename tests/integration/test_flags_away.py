"""LaunchDarkly away, stalled or dropping its stream: what serves meanwhile, and that no toggle is lost."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ldclient.impl import retry
from ldclient.impl.datasource import streaming
from ldclient.versioned_data_kind import FEATURES
from pydantic import SecretStr

from flags import reading
from flags.changes import Definition
from flags.contract import PRIMARY_PROVIDER, FlagContext, RoutingFlags, provider_enabled_key
from flags.definitions import definitions
from flags.document import new_document
from flags.launchdarkly import LaunchDarklyFlags, source_name
from flags.values import WrongValue
from flags.watching import WatchedStore
from router.app.core import flag_source_name
from router.clock import SystemClock
from router.flag_watch import FlagWatch
from router.ledger.engine import Database
from router.ledger.flag_values import FlagValueLedger
from router.ledger.migrate import migrate
from router.settings import Settings
from tests.fakes.launchdarkly import FakeLaunchDarkly

pytestmark = pytest.mark.either_database

PROVIDERS = ("stripe", "adyen")
DEFAULTS = RoutingFlags(enabled={"stripe": True, "adyen": True})
ANYONE = FlagContext()
SOURCE = source_name("sdk-key", None)
DROPS = 50


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams come back soon, however often they were dropped within a minute."""
    monkeypatch.setattr(reading, "CLOSE_WAIT_S", 0.3)
    monkeypatch.setattr(retry, "NORMAL_STREAMING_CEILING_DELAY", 0.05)


def new_flags() -> dict[str, Any]:
    flags: dict[str, Any] = new_document(definitions(PROVIDERS).values())["flags"]
    return flags


class Process:
    """What one process has: a store with what was known, a client over it, and the loop that writes down."""

    def __init__(self, ledger: FlagValueLedger, uri: str, name: str = "web:a:1") -> None:
        self.reports: list[WrongValue] = []
        self.store = WatchedStore(definitions(PROVIDERS), ledger.known(SOURCE))
        self.watch = FlagWatch(self.store, ledger, source=SOURCE, seen_by=name, clock=SystemClock())
        self.flags = LaunchDarklyFlags(
            "sdk-key",
            PROVIDERS,
            report=self.reports.append,
            store=self.store,
            base_uri=uri,
            stream_uri=uri,
            events_uri=uri,
            initial_reconnect_delay_s=0.02,
            start_wait_s=0.3,
        )


Start = Callable[..., Process]


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[FlagValueLedger]:
    database = Database(ledger_url, pool_size=8)
    migrate(database)
    yield FlagValueLedger(database)
    database.close()


@pytest.fixture
def start(ledger: FlagValueLedger) -> Iterator[Start]:
    started: list[Process] = []

    def begin(uri: str, name: str = "web:a:1") -> Process:
        started.append(Process(ledger, uri, name))
        return started[-1]

    yield begin
    for process in started:
        process.flags.close()


def wait_for(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(0.002)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def rule(kind: str, attribute: str, op: str, value: str) -> dict[str, Any]:
    """A rule that serves the second variation, `adyen`."""
    clause = {"contextKind": kind, "attribute": attribute, "op": op, "values": [value], "negate": False}
    return {"id": value, "variation": 1, "clauses": [clause]}


def test_away_at_start_the_last_known_rules_and_targets_serve_until_it_is_back(
    ledger: FlagValueLedger, start: Start
) -> None:
    """From the ledger, as the process before heard them; then what LaunchDarkly says at that time."""
    port = free_port()
    segment = {
        "vip": {"key": "vip", "version": 1, "included": [], "includedContexts": [], "rules": [], "excluded": []}
    }
    segment["vip"]["includedContexts"] = [{"contextKind": "customer", "values": ["cus_vip"]}]
    with FakeLaunchDarkly(new_flags(), segment, port=port) as fake:
        fake.update(
            PRIMARY_PROVIDER,
            rules=[rule("payment", "currency", "in", "JPY"), rule("customer", "", "segmentMatch", "vip")],
            contextTargets=[{"contextKind": "merchant", "variation": 1, "values": ["shop"]}],
        )
        fake.update(provider_enabled_key("adyen"), on=False)
        before = start(fake.uri)
        wait_for(lambda: before.flags.status().state == "valid")  # on a busy machine it starts without its flags
        before.watch.run_once()
        before.flags.close()
    begun = time.monotonic()
    after = start(f"http://127.0.0.1:{port}")
    assert time.monotonic() - begun < 2
    served = {
        FlagContext("p", "other", "cus", currency="EUR"): ("stripe", False),
        FlagContext("p", "other", "cus", currency="JPY"): ("adyen", True),
        FlagContext("p", "shop", "cus", currency="EUR"): ("adyen", True),
        FlagContext("p", "other", "cus_vip", currency="EUR"): ("adyen", True),
    }
    read = {who: after.flags.read(who) for who in served}
    assert {who: (flags.primary, flags.primary_pinned) for who, flags in read.items()} == served
    assert not after.flags.read(ANYONE).is_enabled("adyen")
    status = after.flags.status()
    assert (status.state, status.serves) == ("initializing", "last known")
    assert status.as_of == max(each.at for each in ledger.known(SOURCE))
    assert after.reports == []
    with FakeLaunchDarkly(new_flags(), port=port):
        wait_for(lambda: after.flags.status().state == "valid")
        assert after.flags.status().serves == "current"
        assert after.flags.read(FlagContext("p", "shop", currency="JPY")).primary == "stripe"


def test_away_at_start_with_nothing_known_the_defaults_serve_until_it_is_back(start: Start) -> None:
    """The very first start of all."""
    port = free_port()
    process = start(f"http://127.0.0.1:{port}")
    assert process.flags.read(ANYONE) == DEFAULTS
    status = process.flags.status()
    assert (status.state, status.serves, status.as_of) == ("initializing", "defaults", None)
    with FakeLaunchDarkly(new_flags(), port=port) as fake:
        fake.update(PRIMARY_PROVIDER, fallthrough={"variation": 1})
        wait_for(lambda: process.flags.read(ANYONE).primary == "adyen")


def test_the_sdks_own_status_and_tracker_work_over_the_store(start: Start) -> None:
    """Its listeners hear of states and of changed values, as with its own store."""
    with FakeLaunchDarkly(new_flags()) as fake:
        process = start(fake.uri)
        states: list[str] = []
        values: list[Any] = []
        client = process.flags.client
        client.data_source_status_provider.add_listener(lambda status: states.append(status.state.value))
        client.flag_tracker.add_flag_value_change_listener(
            PRIMARY_PROVIDER, reading.to_sdk_context(ANYONE), lambda change: values.append(change.new_value)
        )
        fake.update(PRIMARY_PROVIDER, fallthrough={"variation": 1})
        wait_for(lambda: values == ["adyen"])
        fake.drop_streams()
        fake.update(PRIMARY_PROVIDER, fallthrough={"variation": 0})
        wait_for(lambda: values == ["adyen", "stripe"])
        wait_for(lambda: states == ["interrupted", "valid"])


def test_a_stalled_stream_keeps_the_values_and_is_given_up_in_the_end(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing comes and nothing is closed: after its read timeout (300 s, here less) the SDK connects anew."""
    monkeypatch.setattr(streaming, "stream_read_timeout", 0.5)
    flags = new_flags()
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            """One full set for each connection, the primary another one each time, and then silence."""
            for number in itertools.count():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if not connection.recv(65536).startswith(b"GET /all"):
                    connection.close()
                    continue
                connections.append(connection)
                primary = {**flags[PRIMARY_PROVIDER], "version": number + 2, "fallthrough": {"variation": 1}}
                data = {"path": "/", "data": {"flags": {**flags, PRIMARY_PROVIDER: primary}, "segments": {}}}
                event = f"event: put\ndata: {json.dumps(data)}\n\n".encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + b"%x\r\n%s\r\n" % (len(event), event)
                )

        threading.Thread(target=serve, daemon=True).start()
        process = start(f"http://127.0.0.1:{server.getsockname()[1]}")
        states: list[str] = []
        process.flags.client.data_source_status_provider.add_listener(lambda one: states.append(one.state.value))
        assert process.flags.read(ANYONE).primary == "adyen"
        wait_for(lambda: "interrupted" in states)
        assert process.flags.read(ANYONE).primary == "adyen"
        wait_for(lambda: len(connections) >= 2 and "valid" in states)
        assert process.flags.read(ANYONE).primary == "adyen"
        process.flags.close()
    for connection in connections:
        connection.close()


def test_no_toggle_is_lost_over_fifty_dropped_streams(ledger: FlagValueLedger, start: Start) -> None:
    """A toggle before, during or after each drop: three processes serve the last, and the audit is one chain."""
    with FakeLaunchDarkly(new_flags()) as fake:
        processes = [start(fake.uri, f"web:{name}:1") for name in "abc"]
        stop = threading.Event()

        def write_down(process: Process) -> None:
            while not stop.wait(0.01):
                process.watch.run_once()

        threads = [threading.Thread(target=write_down, args=(process,)) for process in processes]
        for thread in threads:
            thread.start()
        told = []
        for number in range(DROPS):
            index = 1 - number % 2
            toggle_first, pause_s = number % 3 == 0, (0.0, 0.02, 0.06)[number % 3]
            if toggle_first:
                fake.update(PRIMARY_PROVIDER, fallthrough={"variation": index})
            fake.drop_streams()
            time.sleep(pause_s)
            if not toggle_first:
                fake.update(PRIMARY_PROVIDER, fallthrough={"variation": index})
            told.append(number + 2)
            wait_for(
                lambda: all(each.flags.read(ANYONE).primary == PROVIDERS[index] for each in processes)  # noqa: B023
            )
        wait_for(lambda: all(each.flags.status().state == "valid" for each in processes))
        wait_for(lambda: not any(each.store.pending() for each in processes))
        stop.set()
        for thread in threads:
            thread.join()
    chain = list(reversed(ledger.page(limit=1000, key=PRIMARY_PROVIDER)))
    assert [each.version for each in chain] == [1, *told]
    assert all(one.new == other.old for one, other in itertools.pairwise(chain))


def test_toggles_that_nobody_waited_for_are_in_the_audit_or_superseded(ledger: FlagValueLedger, start: Start) -> None:
    """Faster than streams come back: versions rise, none twice, and the last one is there."""
    with FakeLaunchDarkly(new_flags()) as fake:
        process = start(fake.uri)
        for number in range(DROPS):
            fake.update(PRIMARY_PROVIDER, fallthrough={"variation": 1 - number % 2})
            fake.drop_streams()
            if number % 5 == 0:
                time.sleep(0.05)
                process.watch.run_once()
        fake.update(PRIMARY_PROVIDER, on=False, offVariation=1)
        wait_for(lambda: process.store.get(FEATURES, PRIMARY_PROVIDER)["version"] == DROPS + 2)
        assert process.flags.read(ANYONE).primary == "adyen"
        process.watch.run_once()
    versions = [each.version for each in reversed(ledger.page(limit=1000, key=PRIMARY_PROVIDER))]
    assert versions == sorted(set(versions))
    assert versions[-1] == DROPS + 2


def test_a_wrong_value_among_the_last_known_is_reported_once(ledger: FlagValueLedger, start: Start) -> None:
    """Served from the ledger it is as wrong as from the stream, and the SDK warns once that it is not current."""
    port = free_port()
    with FakeLaunchDarkly(new_flags(), port=port) as fake:
        fake.update(PRIMARY_PROVIDER, variations=[7, "adyen"])
        before = start(fake.uri)
        wait_for(lambda: before.flags.status().state == "valid")  # on a busy machine it starts without its flags
        before.watch.run_once()
        before.flags.close()
    after = start(f"http://127.0.0.1:{port}")
    assert [after.flags.read(ANYONE) for _ in range(20)] == [DEFAULTS] * 20
    assert [each.key for each in after.reports] == [PRIMARY_PROVIDER]
    with FakeLaunchDarkly(
        {**new_flags(), PRIMARY_PROVIDER: new_flags()[PRIMARY_PROVIDER] | {"version": 2}}, port=port
    ):
        wait_for(lambda: after.flags.status().state == "valid")
        assert after.flags.read(ANYONE).primary == "stripe"


def test_reads_of_last_known_flags_do_not_flood_the_log(
    ledger: FlagValueLedger, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage of LaunchDarkly at start is one line of the SDK's, not one a payment."""
    with FakeLaunchDarkly(new_flags()) as fake:
        start(fake.uri).watch.run_once()
    after = start(f"http://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        for _ in range(50):
            after.flags.read(ANYONE)
    assert len([each for each in caplog.records if "last known" in each.getMessage()]) <= 1


def test_the_source_names_the_environment_and_not_its_key() -> None:
    """Another key or another stream is another environment."""
    names = {source_name("sdk-1", None), source_name("sdk-2", None), source_name("sdk-1", "http://relay")}
    assert len(names) == 3
    assert not [name for name in names if "sdk-" in name]
    assert source_name(" sdk-1 ", None) in names


def test_a_source_named_by_project_and_environment_outlives_its_key() -> None:
    """A rotated key finds the last flags known, and while both are in use a toggle is one change."""

    def name(key: str, stream: str | None = None, environment: str = "production") -> str:
        return source_name(key, stream, project="payments", environment=environment)

    assert name("sdk-1") == name("sdk-2") == "launchdarkly:payments/production"
    assert len({name("sdk-1"), name("sdk-1", "http://relay"), name("sdk-1", environment="staging")}) == 3


def test_a_rotated_key_finds_the_flags_known_and_adds_no_second_change(ledger: FlagValueLedger) -> None:
    """As the processes name their source from the settings, old key and new at once."""
    settings = Settings(launchdarkly_project="payments", launchdarkly_sdk_key=SecretStr("sdk-old"))
    rotated = settings.model_copy(update={"launchdarkly_sdk_key": SecretStr("sdk-new")})
    flag, now = new_flags()[PRIMARY_PROVIDER], SystemClock().now()
    for version in (1, 2):
        told = Definition("flag", PRIMARY_PROVIDER, version, {**flag, "version": version, "on": version == 1}, now)
        for each in (settings, rotated):
            ledger.saw(flag_source_name(each), [told], by="web")
    assert [each.version for each in ledger.page(limit=9, key=PRIMARY_PROVIDER)] == [2, 1]
    assert [each.version for each in ledger.known(flag_source_name(rotated))] == [2]
