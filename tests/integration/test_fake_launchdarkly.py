"""The stand-in LaunchDarkly does to the real SDK what LaunchDarkly does: the flip's tests rely on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flags import reading
from flags.contract import PRIMARY_PROVIDER, FlagContext
from flags.definitions import definitions
from flags.document import new_document
from flags.launchdarkly import LaunchDarklyFlags
from tests.fakes.launchdarkly import FakeLaunchDarkly

PROVIDERS = ("stripe", "adyen")


@pytest.fixture
def launchdarkly() -> Iterator[FakeLaunchDarkly]:
    with FakeLaunchDarkly(new_document(definitions(PROVIDERS).values())["flags"]) as fake:
        yield fake


@pytest.fixture
def flags(launchdarkly: FakeLaunchDarkly, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchDarklyFlags]:
    monkeypatch.setattr(reading, "CLOSE_WAIT_S", 0.2)
    uri = launchdarkly.uri
    flags = LaunchDarklyFlags(
        "sdk-key",
        PROVIDERS,
        report=print,
        base_uri=uri,
        stream_uri=uri,
        events_uri=uri,
        initial_reconnect_delay_s=0.05,
    )
    yield flags
    flags.close()


def wait_for(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    give_up_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(0.002)


def primary(flags: LaunchDarklyFlags) -> str:
    return flags.read(FlagContext("pay_1", customer="cus_1")).primary


def test_a_person_changes_the_flag(launchdarkly: FakeLaunchDarkly, flags: LaunchDarklyFlags) -> None:
    """One value, a rollout, off and on: the SDK hears of each, and the audit log says that it was a person."""
    launchdarkly.person_sets(PRIMARY_PROVIDER, "adyen")
    wait_for(lambda: primary(flags) == "adyen")
    launchdarkly.person_switches(PRIMARY_PROVIDER, on=False)
    wait_for(lambda: primary(flags) == "stripe")
    launchdarkly.person_switches(PRIMARY_PROVIDER, on=True)
    launchdarkly.person_sets_rollout(PRIMARY_PROVIDER, {"stripe": 0, "adyen": 100_000})
    assert launchdarkly.serves(PRIMARY_PROVIDER) == {"adyen": 100_000}
    wait_for(lambda: primary(flags) == "adyen")
    assert [(change.who, change.version) for change in launchdarkly.audit] == [
        ("person", version) for version in range(2, 6)
    ]


def test_an_outage_refuses_connections_and_ends_on_the_same_port(
    launchdarkly: FakeLaunchDarkly, flags: LaunchDarklyFlags
) -> None:
    """The SDK keeps its values, says that it is interrupted, and catches up by itself."""
    launchdarkly.away()
    wait_for(lambda: flags.status().state == "interrupted")
    launchdarkly.person_sets(PRIMARY_PROVIDER, "adyen")
    assert primary(flags) == "stripe"
    launchdarkly.back()
    wait_for(lambda: primary(flags) == "adyen")
    wait_for(lambda: flags.status().state == "valid")
    launchdarkly.away()  # and away when its test ends


def test_a_stalled_stream_says_nothing_and_stays_open(
    launchdarkly: FakeLaunchDarkly, flags: LaunchDarklyFlags
) -> None:
    """The SDK goes on believing that it is up to date; then everything held back arrives."""
    launchdarkly.stall()
    launchdarkly.person_sets(PRIMARY_PROVIDER, "adyen")
    time.sleep(0.15)
    assert (primary(flags), flags.status().state, launchdarkly.streams) == ("stripe", "valid", 1)
    launchdarkly.flow()
    wait_for(lambda: primary(flags) == "adyen")
    assert launchdarkly.streams == 1


def test_a_stream_accepted_in_a_stall_tells_its_flags_afterwards(launchdarkly: FakeLaunchDarkly) -> None:
    """A start in a stall is bounded, with the defaults; nothing needs a restart."""
    launchdarkly.person_sets(PRIMARY_PROVIDER, "adyen")
    launchdarkly.stall()
    uri = launchdarkly.uri
    flags = LaunchDarklyFlags(
        "sdk-key", PROVIDERS, report=print, base_uri=uri, stream_uri=uri, events_uri=uri, start_wait_s=0.1
    )
    assert (primary(flags), flags.status().state) == ("stripe", "initializing")
    launchdarkly.flow()
    wait_for(lambda: primary(flags) == "adyen")
    flags.close()


def test_a_dropped_stream_loses_no_change(launchdarkly: FakeLaunchDarkly, flags: LaunchDarklyFlags) -> None:
    """The next stream brings everything. (The SDK doubles its wait from drop to drop within a minute.)"""
    for value in ("adyen", "stripe", "adyen"):
        launchdarkly.drop_streams()
        launchdarkly.person_sets(PRIMARY_PROVIDER, value)
        wait_for(partial(serves, flags, value))


def serves(flags: LaunchDarklyFlags, value: str) -> bool:
    return primary(flags) == value
