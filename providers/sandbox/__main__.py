"""`python -m providers.sandbox`: the stand-in providers alone, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import sys

from providers.sandbox.server import serve


def main() -> int:
    """Parse the ports and serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--stripe-port", type=int, default=8091)
    parser.add_argument("--adyen-port", type=int, default=8092)
    parser.add_argument("--control-port", type=int, default=8090)
    parser.add_argument("--seed", type=int, default=None, help="fixes which calls a rate below 1 hits")
    options = parser.parse_args()
    return serve(**vars(options), announce=_say)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
