"""Known faults of what the service runs on, by pip-audit; where no database of them can be reached, it says so.

Exits with 1 only where a fault is known: a machine without a way to the database can check a change too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

WITHIN_S = 120


def main(requirements: str) -> int:
    """The exit code, after a line for each fault or one that says how many packages were looked at."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "-r", requirements, "--require-hashes"]
    command += ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)  # noqa: S603 - ours
        dependencies = json.loads(run.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return _not_audited(requirements)
    audited = [each for each in dependencies if "skip_reason" not in each]
    if not audited:
        return _not_audited(requirements)
    faults = [(each, fault) for each in audited for fault in each["vulns"]]
    for each, fault in faults:
        fixed = ", ".join(fault["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {fault['id']}, mended in {fixed}")  # noqa: T201 - a command
    print(f"audited {len(audited)} of {len(dependencies)} packages: {len(faults)} known faults")  # noqa: T201
    return 1 if faults else 0


def _not_audited(requirements: str) -> int:
    print(f"NOT audited: no database of known faults can be reached from here ({requirements})")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
