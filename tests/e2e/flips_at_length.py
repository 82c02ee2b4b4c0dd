"""`make flips`: a hundred outages with two web processes and two workers each, and a hundred toggles. 15 minutes."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.flips import FlipReport, all_flags, flip_once, house_on_launchdarkly, toggle
from tests.fakes.launchdarkly import FakeLaunchDarkly


def main() -> int:
    """Run, print, and answer 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--toggles", type=int, default=100)
    options = parser.parse_args()
    report = FlipReport()
    with tempfile.TemporaryDirectory(prefix="flips-") as folder:
        if options.toggles:
            with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(Path(folder) / "toggles", ld) as house:
                toggles = toggle(house, ld, options.toggles)
            _say(*toggles.lines())
        for number in range(options.rounds):
            report.rounds.append(flip_once(Path(folder) / str(number)))
            if (number + 1) % 10 == 0:
                _say(f"{number + 1} outages, {report.wrong} gone wrong")
    if report.rounds:
        _say(*report.lines())
    return int(report.wrong > 0 or (options.toggles > 0 and toggles.lost > 0))


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
