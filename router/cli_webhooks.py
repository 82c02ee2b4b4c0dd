"""`pointsman webhooks`: checkout's endpoints from the command line, of every merchant."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterator

from router.cli_commands import Add, CommandError, actions_of, check_reason, current_ledger, operator
from router.clock import SystemClock, TimeOrderedIds
from router.ledger.webhook_endpoints import TooManyEndpointsError
from router.ledger.webhook_records import Endpoint
from router.pan import contains_pan
from router.settings import Settings
from router.webhooks_out_endpoints import OLD_SECRET_FOR_H, BadEndpointError, Endpoints, NoSuchEndpointError

SHOWN_AT_MOST = 50


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    webhooks = add("webhooks", _list, "list, make and end webhook endpoints; see and repeat what was sent to them")
    action = actions_of(webhooks)
    action("list", _list, "every endpoint, and how it fares")
    create = action("create", _create, "make one; its secret is shown once")
    create.add_argument("--merchant", required=True)
    create.add_argument("--url", required=True)
    create.add_argument("--types", default="", help="types of events, separated by commas; none: all but `updated`")
    create.add_argument("--description", default="")
    rotate = action("rotate", _rotate, "a new secret, shown once; for a while both sign")
    rotate.add_argument("--old-hours", type=float, default=OLD_SECRET_FOR_H)
    disable = action("disable", _disable, "send it nothing more")
    disable.add_argument("--reason", required=True)
    enable = action("enable", _enable, "go on where it was left")
    delete = action("delete", _delete, "forget it, its secrets and what it was to be sent")
    resend = action("resend", _resend, "send again, in order, whatever happened since a moment")
    resend.add_argument("--since", required=True, help="such as 2026-11-21T02:00:00Z")
    deliveries = action("deliveries", _deliveries, f"its last {SHOWN_AT_MOST} deliveries, the latest first")
    deliveries.add_argument("--state", choices=["pending", "accepted", "given_up"])
    for each in (rotate, disable, enable, delete, resend, deliveries):
        each.add_argument("endpoint")


def _endpoints(settings: Settings, *, writes: bool = False) -> Endpoints:
    from router.encryption_keys import attach
    from router.ledger.event_feed import EventFeed
    from router.ledger.webhook_endpoints import EndpointLedger

    database, clock = current_ledger(settings), SystemClock()
    if writes:
        attach(settings, database, clock, writes=True)
    return Endpoints(
        EndpointLedger(database),
        EventFeed(database),
        allow_http=settings.webhook_allow_http,
        allowed=settings.webhook_allow_private,
        clock=clock,
        ids=TimeOrderedIds(clock),
    )


def _list(_options: argparse.Namespace, settings: Settings) -> int | None:
    for each in _endpoints(settings).list(None):
        _show(each)
    return 0


def _create(options: argparse.Namespace, settings: Settings) -> int | None:
    texts = (options.merchant, options.description)
    if not options.merchant or not all(len(text) <= 255 and text.isprintable() for text in texts):
        raise CommandError("--merchant, --description: at most 255 printable characters")
    if contains_pan([*texts, options.url]):
        raise CommandError("--url, --merchant, --description: must not hold a card number")
    types = [each.strip() for each in options.types.split(",") if each.strip()]
    try:
        endpoint, secret = _endpoints(settings, writes=True).create(
            merchant=options.merchant, url=options.url, event_types=types, description=options.description
        )
    except BadEndpointError as error:
        raise CommandError(f"--{error.field.replace('event_types', 'types')}: {error.detail}") from None
    except TooManyEndpointsError:
        raise CommandError("this merchant has as many webhook endpoints as one may have") from None
    print(f"{endpoint.id}\t{secret}")
    return 0


def _rotate(options: argparse.Namespace, settings: Settings) -> int | None:
    with _known("old-hours"):
        print(_endpoints(settings, writes=True).rotate(options.endpoint, None, old_for_h=options.old_hours))
    return 0


def _disable(options: argparse.Namespace, settings: Settings) -> int | None:
    check_reason(options.reason)
    with _known():
        _show(_endpoints(settings).disable(options.endpoint, None, f"{options.reason} ({operator()})"))
    return 0


def _enable(options: argparse.Namespace, settings: Settings) -> int | None:
    with _known():
        _show(_endpoints(settings).enable(options.endpoint, None))
    return 0


def _delete(options: argparse.Namespace, settings: Settings) -> int | None:
    with _known():
        _endpoints(settings).delete(options.endpoint, None)
    return 0


def _resend(options: argparse.Namespace, settings: Settings) -> int | None:
    try:
        since = dt.datetime.fromisoformat(options.since)
    except ValueError:
        raise CommandError("--since: must be a moment such as 2026-11-21T02:00:00Z") from None
    if since.tzinfo is None:
        raise CommandError("--since: must say its time zone, such as Z")
    with _known("since"):
        _endpoints(settings).resend(options.endpoint, None, since.astimezone(dt.UTC))
    return 0


def _deliveries(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.webhook_deliveries import DeliveryLedger

    with _known():
        endpoint = _endpoints(settings).find(options.endpoint, None)
    ledger = DeliveryLedger(current_ledger(settings))
    for each in ledger.page(endpoint.id, options.state, limit=SHOWN_AT_MOST, before=None):
        last = each.last_reason or (f"HTTP {each.last_status}" if each.last_status else "not sent yet")
        when = f"{each.last_at:%Y-%m-%d %H:%M:%S}" if each.last_at else "-"
        print(f"{each.event_id}\t{each.type}\t{each.state}\t{each.attempts} sent\t{when}\t{last}")
    return 0


@contextlib.contextmanager
def _known(option: str = "") -> Iterator[None]:
    """Say of an endpoint that is not there, or of a wrong option, what is wrong."""
    try:
        yield
    except NoSuchEndpointError:
        raise CommandError("there is no such webhook endpoint") from None
    except BadEndpointError as error:
        raise CommandError(f"--{option}: {error.detail}") from None


def _show(endpoint: Endpoint) -> None:
    failing = f"failing since {endpoint.failing_since:%Y-%m-%d %H:%M:%S}" if endpoint.failing_since else ""
    about = endpoint.cause or failing
    types = ",".join(endpoint.event_types) or "all"
    print(f"{endpoint.id}\t{endpoint.merchant}\t{endpoint.state}\t{endpoint.url}\t{types}\t{about}")
