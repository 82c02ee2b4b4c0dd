"""A flip on real processes, shortly: `make flips` does a hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.flips import all_flags, flip_once, house_on_launchdarkly, toggle
from tests.fakes.launchdarkly import FakeLaunchDarkly

pytestmark = pytest.mark.processes


def test_an_outage_moves_the_flag_once_and_every_process_follows(tmp_path: Path) -> None:
    """Two workers: one write; the override at once, then the flag; no payment is lost, or sent to the broken one."""
    assert flip_once(tmp_path).wrong == []


def test_a_toggle_reaches_every_process(tmp_path: Path) -> None:
    """Within a second, on the stream."""
    with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(tmp_path, ld) as house:
        found = toggle(house, ld, 4)
    assert (found.lost, max(found.seconds) < 1.0) == (0, True)
