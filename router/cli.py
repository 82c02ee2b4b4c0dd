"""`pointsman`: runs the service and its parts, and shows and sets what a person may."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType

from router import heap
from router.cli_commands import Add, CommandError, current_ledger
from router.clock import SystemClock
from router.fee_book import fee_book
from router.ledger.unavailable import LedgerUnavailableError
from router.settings import Settings, SettingsError, load_settings

PROCESSES = frozenset({"run", "web", "worker", "sandbox"})
"""Commands that begin with every start of the service, and after every fall."""
ATTENTION_PAGE = 100
ALIVE_EVERY_S = 10.0
"""A look at its file that comes once a minute finds it fresh."""
PROGRESS_S = 2.0
"""Between two lines of a long check."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's exit code: 0, or 1 (some: 2) after one line on standard error that says what is wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    options = command_parser(processes_only=bool(words) and words[0] in PROCESSES).parse_args(words)
    command: Callable[[argparse.Namespace, Settings], int | None] = options.command
    try:
        settings = load_settings()
        if options.decides:
            # Here, and not first in a process that is started again and again.
            fee_book(settings, SystemClock().now().date())
        return command(options, settings) or 0
    except (CommandError, SettingsError) as error:
        print(f"pointsman: {error}", file=sys.stderr)
    except LedgerUnavailableError as error:
        print(f"pointsman: the ledger cannot be used: {error}", file=sys.stderr)
    return 1


def command_parser(*, processes_only: bool = False) -> argparse.ArgumentParser:
    """Every command with its options; what the documents say of them is checked against it.

    `processes_only`: those of `PROCESSES` are enough. The others import half of the router.
    """
    parser = argparse.ArgumentParser(prog="pointsman", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(
        name: str, command: Callable[[argparse.Namespace, Settings], int | None], about: str
    ) -> argparse.ArgumentParser:
        # argparse formats both with %, so a plain "95% intervals" would end --help in a traceback.
        about = about.replace("%", "%%")
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(command=command, decides=False)
        return sub

    about = "sandbox providers, web, worker and a little traffic, until Ctrl-C"
    add("run", _run, about).set_defaults(decides=True)
    add("web", _web, "serve the HTTP interface").set_defaults(decides=True)
    about = "probe open circuits, flip the primary, pay parked payments"
    add("worker", _worker, about).set_defaults(decides=True)
    add("sandbox", _sandbox, "stand-in Stripe and Adyen that can be broken on demand")
    add("migrate", _migrate, "bring the ledger's tables to this version")

    ledger = add("ledger", _verify_ledger, "check the ledger against itself, payment by payment; changes nothing")
    ledger.add_argument("action", choices=["verify"])

    add("attention", _show_attention, "list the payments that need a person, of every merchant, and what is in doubt")

    if not processes_only:
        _add_those_of_people(add)
    return parser


def _add_those_of_people(add: Add) -> None:
    from router import (
        cli_api_keys,
        cli_circuits,
        cli_console,
        cli_fees,
        cli_flags,
        cli_flips,
        cli_keys,
        cli_parked,
        cli_replay,
        cli_report,
        cli_settlements,
        cli_simulate,
        cli_webhooks,
    )

    cli_api_keys.add_commands(add)
    cli_flags.add_commands(add)
    cli_circuits.add_commands(add)
    cli_flips.add_commands(add)
    cli_fees.add_commands(add)
    cli_parked.add_commands(add)
    cli_replay.add_commands(add)
    cli_settlements.add_commands(add)
    cli_console.add_commands(add)
    cli_report.add_commands(add)
    cli_simulate.add_commands(add)
    cli_webhooks.add_commands(add)
    cli_keys.add_commands(add)


# ---------------------------------------------------------------- processes


def _run(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.launch import launch
    from router.processes import AlreadyRunningError

    try:
        launch(settings, say=_say)
    except AlreadyRunningError as error:
        raise CommandError(str(error)) from None
    return 0


def _web(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import check_start
    from router.serving import PortTakenError, serve

    check_start(settings)
    try:
        serve(settings)
    except PortTakenError as error:
        raise CommandError(str(error)) from None
    return 0


def _worker(_options: argparse.Namespace, settings: Settings) -> int | None:
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    with heap.building():
        from router.app.core import build
        from router.app.loops import create_worker
        from router.app.worker_page import serve_figures
        from router.telemetry import logs

        heap.begin()
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        logs.configure(settings, process="worker")
        core = build(settings, role="worker")
        loops = create_worker(core)
        # Before the first round: a worker that joins during an outage must not call the broken provider, nor take
        # what others counted before it began for calls of this moment.
        core.health.sync_once()
        core.health.restore()
        core.override.refresh()
        page = serve_figures(core)
        heap.settle()
    loops.start()
    # A worker needs no port: that it lives is seen by this file's age (deploy/).
    alive = settings.run_dir / "worker.alive"
    while True:
        if loops.are_alive:
            with contextlib.suppress(OSError):  # a full disk is no reason to stop working
                alive.touch()
        if stop.wait(ALIVE_EVERY_S):
            break
    if page is not None:
        page.shutdown()
    if loops.stop(settings.drain_seconds):
        core.close()
    return 0


def _sandbox(_options: argparse.Namespace, settings: Settings) -> int | None:
    from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET, serve

    # Signed with what the router checks with: where it knows two secrets, the first is the current one.
    secret, key = settings.stripe_webhook_secret, settings.adyen_hmac_key
    return serve(
        stripe_port=settings.sandbox_stripe_port,
        adyen_port=settings.sandbox_adyen_port,
        control_port=settings.sandbox_control_port,
        announce=_say,
        stripe_webhook_url=settings.sandbox_stripe_webhook_url,
        adyen_webhook_url=settings.sandbox_adyen_webhook_url,
        stripe_webhook_secret=_first(secret.get_secret_value()) if secret else SANDBOX_STRIPE_WEBHOOK_SECRET,
        adyen_hmac_key=_first(key.get_secret_value()) if key else SANDBOX_ADYEN_HMAC_KEY,
    )


def _first(secrets: str) -> str:
    return secrets.partition(",")[0].strip()


def _migrate(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.engine import Database
    from router.ledger.migrate import migrate

    migrate(Database(settings.ledger_url))
    return 0


# ---------------------------------------------------------------- the ledger


def _verify_ledger(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.audit import verify
    from router.encryption_keys import attach_readers

    database = current_ledger(settings)
    attach_readers(settings, database)
    checked, differences, said_at = 0, 0, time.monotonic()
    for progress in verify(database):
        for each in progress.differences:
            print(f"{each.payment_id}\t{each.column}\t{each.text}", flush=True)
        checked, differences = progress.payments, differences + len(progress.differences)
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            until = f"{progress.last.created_at:%Y-%m-%d %H:%M:%S}"
            print(f"{checked} payments checked, up to {until}; {differences} differences", file=sys.stderr)
    print(f"{checked} payments checked, {differences} differences", file=sys.stderr)
    return 1 if differences else 0


def _show_attention(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router import doubts
    from router.ledger.attention import AttentionLedger
    from router.ledger.engine import Database
    from router.ledger.migrate import is_current

    database = Database(settings.ledger_url, pool_size=1)
    if not is_current(database):
        raise CommandError("the ledger's tables are another version's, or none: `pointsman migrate` brings them here")
    queue, after, shown = AttentionLedger(database), None, 0
    while page := queue.page(merchant=None, limit=ATTENTION_PAGE, after=after):
        for payment, attempts, operations in page:
            amount = f"{payment.amount} {payment.currency}"
            print(f"{payment.id}\t{payment.merchant}\t{payment.status}\t{amount}\t{payment.attention}")
            for each in doubts.of_payment(payment, attempts, operations):
                kind = "authorization" if each.operation is None else each.operation.kind
                known_as = each.attempt.provider_reference or "no reference"
                since = f"since {each.since:%Y-%m-%d %H:%M:%S}"
                print(f"\t{each.id}\t{kind} {each.state}\t{each.attempt.provider} {known_as}\t{since}", flush=True)
        after, shown = page[-1][0].id, shown + len(page)
    print(f"{shown} payments need a person", file=sys.stderr)
    return 0


def _say(line: str) -> None:
    # In one write, for `run` says what several threads have to say.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
