"""Toggles and a flip on real processes, shortly: `make flips` does a hundred, with LaunchDarkly away too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.flip_houses import all_flags, house_on_launchdarkly
from tests.e2e.flips import SOON_S, outage
from tests.e2e.house import House
from tests.e2e.toggles import CUT, UP, toggle
from tests.fakes.launchdarkly import FakeLaunchDarkly

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def ld() -> Iterator[FakeLaunchDarkly]:
    """LaunchDarkly's stand-in."""
    with FakeLaunchDarkly(all_flags()) as fake:
        yield fake


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, ld: FakeLaunchDarkly) -> Iterator[House]:
    """Two web processes and two workers; it has one outage."""
    with house_on_launchdarkly(tmp_path_factory.mktemp("flips"), ld) as started:
        yield started


def test_an_outage_moves_the_flag_once_and_every_process_follows(house: House, ld: FakeLaunchDarkly) -> None:
    """Two workers: one write; the override at once, then the flag; no payment is lost, or sent to the broken one."""
    assert outage(house, ld).wrong == []


def test_a_toggle_reaches_every_process_and_a_dropped_stream_loses_none(house: House, ld: FakeLaunchDarkly) -> None:
    """Within a second, where there is a stream; else with the SDK's next connection. Each is on record."""
    found = toggle(house, ld, 4, drops=1)
    assert (found.wrong, found.drops) == ([], 1)
    assert max(found.seconds[UP] + found.seconds[CUT]) < SOON_S
