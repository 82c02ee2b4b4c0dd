"""`make flips`: outages by the hundred, toggles, dropped streams, LaunchDarkly away, on real processes; an hour."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.flip_houses import all_flags, house_on_launchdarkly
from tests.e2e.flips import FlipReport, FlipRound, flip_once, flip_once_in_file
from tests.e2e.flips_away import away_at_start, away_beyond_the_incident, away_for_the_incident
from tests.e2e.toggles import toggle
from tests.fakes.launchdarkly import FakeLaunchDarkly


def main() -> int:
    """Run, print, and answer 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="outages with LaunchDarkly; 10 s each")
    parser.add_argument("--file-rounds", type=int, default=20, help="outages with a flags file; 10 s each")
    parser.add_argument("--toggles", type=int, default=100, help="by a product team, on sound streams")
    parser.add_argument(
        "--drops", type=int, default=50, help="twice as many toggles, every other with a drop; 20 s each"
    )
    parser.add_argument(
        "--away", type=float, default=30.0, help="seconds that LaunchDarkly stays away; 0: no such run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flips-") as name:
        folder = Path(name)
        wrong = _toggles(folder / "toggles", options.toggles, 0)
        wrong += _outages("LaunchDarkly", folder / "flips", options.rounds, flip_once)
        wrong += _outages("flags file", folder / "file", options.file_rounds, flip_once_in_file)
        if options.away:
            wrong += _away(folder, options.away)
        wrong += _toggles(folder / "drops", 2 * options.drops, options.drops)
    return int(wrong > 0)


def _toggles(folder: Path, times: int, drops: int) -> int:
    if not times:
        return 0
    with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(folder, ld) as house:
        toggles = toggle(house, ld, times, drops=drops)
    _say(*toggles.lines(), *toggles.wrong, "")
    return len(toggles.wrong)


def _outages(store: str, folder: Path, rounds: int, once: Callable[[Path], FlipRound]) -> int:
    report = FlipReport(store)
    for number in range(1, rounds + 1):
        report.rounds.append(once(folder / str(number)))
        if report.rounds[-1].wrong:
            _say(f"{store}, outage {number}: {'; '.join(report.rounds[-1].wrong)}")
        if number % 10 == 0:
            _say(f"{store}: {number} outages, {report.wrong} gone wrong")
    if report.rounds:
        _say(*report.lines(), "")
    return report.wrong


def _away(folder: Path, away_s: float) -> int:
    rounds = [away_for_the_incident(folder / "away", away_s), away_at_start(folder / "start", away_s)]
    for each in rounds:
        _say(*each.lines(), "")
    beyond = away_beyond_the_incident(folder / "beyond")
    _say(f"away beyond the incident: {'; '.join(beyond) or 'superseded, nothing written, all as promised'}", "")
    return sum(bool(each.wrong) for each in rounds) + bool(beyond)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
