"""`python -m providers.sandbox`: the stand-in providers alone, until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import sys

from providers.sandbox.faults import BadFault
from providers.sandbox.server import (
    SANDBOX_ADYEN_HMAC_KEY,
    SANDBOX_STRIPE_WEBHOOK_SECRET,
    WEBHOOK_DELAY_MS,
    serve,
)
from providers.sandbox.webhook_settings import checked_url


def main() -> int:
    """Parse the ports and serve; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m providers.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--stripe-port", type=int, default=8091)
    parser.add_argument("--adyen-port", type=int, default=8092)
    parser.add_argument("--control-port", type=int, default=8090)
    parser.add_argument("--seed", type=int, default=None, help="fixes which calls a rate below 1 hits")
    parser.add_argument("--stripe-webhook-url", type=_url, default=None, metavar="URL", help="send webhooks there")
    parser.add_argument("--adyen-webhook-url", type=_url, default=None, metavar="URL", help="send webhooks there")
    parser.add_argument("--stripe-webhook-secret", default=SANDBOX_STRIPE_WEBHOOK_SECRET)
    parser.add_argument("--adyen-hmac-key", type=_hexadecimal, default=SANDBOX_ADYEN_HMAC_KEY)
    parser.add_argument("--webhook-delay-ms", type=int, default=WEBHOOK_DELAY_MS)
    options = parser.parse_args()
    return serve(**vars(options), announce=_say)


def _url(value: str) -> str | None:
    try:
        return checked_url("url", value)
    except BadFault as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _hexadecimal(value: str) -> str:
    bytes.fromhex(value)  # argparse says it of a ValueError
    return value


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
