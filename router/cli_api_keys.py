"""`pointsman api-keys`: who may call, from the command line, of every merchant."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import secrets
import sys
from collections.abc import Iterator

from router.cli_commands import Add, CommandError, actions_of, check_reason, current_ledger, operator
from router.clock import SystemClock
from router.key_keeping import GRACE_H, ApiKeys, BadKeyError, KeyOverError, NoSuchKeyError, TooManyKeysError
from router.ledger.engine import Database
from router.ledger.keys import KeyLedger, KeyRecord
from router.ledger.migrate import migrate
from router.settings import Settings

PAGE = 500


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    keys = add(
        "api-keys", _list, "make, list, replace and end API keys; a key is shown once, and only its digest kept"
    )
    keys.set_defaults(merchant=None, revoked=False)
    action = actions_of(keys)
    listing = action("list", _list, "keys, never the keys themselves")
    listing.add_argument("--merchant", help="of this one only")
    listing.add_argument("--revoked", action="store_true", help="those that were revoked too")
    create = action("create", _create, "make one")
    create.add_argument("--merchant", required=True)
    create.add_argument("--scopes", default="payments", help="payments, reports, operate; separated by commas")
    create.add_argument("--label", default="", help="what the key is for")
    create.add_argument("--days", type=float, help="until it expires; none: never")
    rotate = action("rotate", _rotate, "a new key in place of this one; for a while both work")
    rotate.add_argument("key", help="its id, key_…")
    rotate.add_argument("--grace-hours", type=float, default=GRACE_H, help=f"{GRACE_H:g} where nothing is said")
    revoke = action("revoke", _revoke, "end it: within 5 s no process takes it any more")
    revoke.add_argument("key", help="its id, key_…")
    revoke.add_argument("--reason", required=True, help="for the audit record")


def _keys(settings: Settings) -> ApiKeys:
    return ApiKeys(KeyLedger(current_ledger(settings)), clock=SystemClock(), below=secrets.randbelow)


def _list(options: argparse.Namespace, settings: Settings) -> int | None:
    keys, after = _keys(settings), None
    while page := keys.page(None, merchant=options.merchant, with_revoked=options.revoked, limit=PAGE, after=after):
        for each in page:
            _show(each)
        after = page[-1].id
    return 0


def _create(options: argparse.Namespace, settings: Settings) -> int | None:
    expires_at = None
    if options.days is not None:
        if not 0 < options.days <= 36_500:
            raise CommandError("--days: more than 0, at most 36500")
        expires_at = SystemClock().now() + dt.timedelta(days=options.days)
    scopes = {scope.strip() for scope in options.scopes.split(",")}
    # As the service's own start does: a house's first key is made before its first start.
    database = Database(settings.ledger_url, pool_size=1)
    migrate(database)
    with _known():
        record, key = ApiKeys(KeyLedger(database), clock=SystemClock(), below=secrets.randbelow).create(
            None,
            merchant=options.merchant,
            scopes=scopes,
            label=options.label,
            by=operator(),
            expires_at=expires_at,
        )
    return _show_once(record, key)


def _rotate(options: argparse.Namespace, settings: Settings) -> int | None:
    with _known():
        record, key = _keys(settings).rotate(None, options.key, by=operator(), grace_h=options.grace_hours)
    return _show_once(record, key)


def _revoke(options: argparse.Namespace, settings: Settings) -> int | None:
    check_reason(options.reason)
    with _known():
        _show(_keys(settings).revoke(None, options.key, by=operator(), reason=options.reason))
    return 0


def _show_once(record: KeyRecord, key: str) -> int:
    # The key alone, so that a script can take it.
    print(key)
    print(f"{record.id} of {record.merchant}: kept nowhere, so it is shown this once", file=sys.stderr)
    return 0


@contextlib.contextmanager
def _known() -> Iterator[None]:
    try:
        yield
    except NoSuchKeyError:
        raise CommandError("there is no such API key") from None
    except KeyOverError:
        raise CommandError("this API key was revoked, has expired or was replaced already") from None
    except TooManyKeysError:
        raise CommandError("this merchant has as many API keys as one may have") from None
    except BadKeyError as error:
        raise CommandError(f"--{error.field.replace('_', '-')}: {error.detail}") from None


def _show(each: KeyRecord) -> None:
    used = f"used {each.last_used_at:%Y-%m-%d %H:%M}" if each.last_used_at else "never used"
    ends = f"until {each.expires_at:%Y-%m-%d %H:%M}" if each.expires_at else ""
    if each.revoked_at is not None:
        ends = f"revoked {each.revoked_at:%Y-%m-%d %H:%M} by {each.revoked_by}"
    print(f"{each.id}\t{each.merchant}\t{','.join(sorted(each.scopes))}\t{each.hint}\t{each.label}\t{used}\t{ends}")
