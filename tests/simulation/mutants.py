"""The router, broken on purpose: each of these must be caught, or the simulation proves nothing.

`python -m tests.simulation.mutants` looks for the first seed that catches each; CAUGHT_BY has known ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from providers.contract import Notice, NoticeKind, Outcome, OutcomeKind
from router import payments, resolver, sending, standing
from router.ledger.journal import Journal
from router.ledger.operations import Operation
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, NewKey, Payment
from router.ledger.unavailable import LedgerUnavailableError
from router.notices import Notices
from router.order import Order
from router.payments import Payments
from router.resolver import Resolver
from tests.simulation.ledger import open_ledger
from tests.simulation.record import Totals, listen
from tests.simulation.runner import run_seed
from tests.simulation.scheduler import Killed
from tests.simulation.world import Process

MOST_SEEDS = 1000

Mutant = Callable[[], contextlib.AbstractContextManager[object]]


@contextlib.contextmanager
def fail_over_on_unknown() -> Iterator[None]:
    """An unknown send is taken for one that did nothing, as the well-known orchestrators do."""
    may_try = payments._may_try_another

    def mutated(outcome: Outcome, plan: Any) -> bool:
        return outcome.kind is OutcomeKind.UNKNOWN or may_try(outcome, plan)

    with mock.patch.object(payments, "_may_try_another", mutated):
        yield


@contextlib.contextmanager
def refused_resend_proves_nothing_happened() -> Iterator[None]:
    """An unknown attempt whose re-send is refused is taken to be not executed."""

    def mutated(outcome: Outcome) -> bool:
        return outcome.kind is not OutcomeKind.UNKNOWN

    with mock.patch.object(sending, "says_more", mutated), mock.patch.object(resolver, "says_more", mutated):
        yield


@contextlib.contextmanager
def commit_after_the_call() -> Iterator[None]:
    """A payment and its attempt are written when the answer is there, not before the question."""
    start, ask, finish = Journal.start, Journal.ask, Journal.finish

    def flush(journal: Journal) -> None:
        attempt: Attempt | None = vars(journal).pop("unwritten", None)
        if attempt is not None:
            learned = next(each for each in journal.attempts if each.id == attempt.id)
            journal.attempts.remove(learned)
            start(journal, attempt)
            journal.learned(learned)

    def mutated_start(journal: Journal, attempt: Attempt) -> None:
        flush(journal)
        vars(journal)["unwritten"] = attempt
        journal.attempts.append(attempt)

    def mutated_ask(journal: Journal, operation: Operation, key: NewKey | None = None) -> None:
        flush(journal)
        ask(journal, operation, key)

    def mutated_finish(journal: Journal, changes: Mapping[str, Any], **named: Any) -> None:
        flush(journal)
        finish(journal, changes, **named)

    with mock.patch.multiple(Journal, start=mutated_start, ask=mutated_ask, finish=mutated_finish):
        yield


@contextlib.contextmanager
def drop_the_fingerprint() -> Iterator[None]:
    """Whatever comes under a known key is taken for the same request."""
    with mock.patch.object(Order, "fingerprint", return_value="the same"):
        yield


@contextlib.contextmanager
def drop_the_fence() -> Iterator[None]:
    """A process that was held up past its lease goes on as if nothing had happened."""
    change = PaymentLedger.change

    def mutated(ledger: PaymentLedger, payment: Payment, changes: Mapping[str, Any], **named: Any) -> Payment:
        found = ledger.get(payment.id)
        if found is not None:
            now = found[0]
            payment = dataclasses.replace(payment, version=now.version, lease_holder=now.lease_holder)
            named = {**named, "holder": now.lease_holder}
        return change(ledger, payment, changes, **named)

    with mock.patch.object(PaymentLedger, "change", mutated):
        yield


@contextlib.contextmanager
def acknowledge_before_storing() -> Iterator[None]:
    """A notice is acknowledged first: one whose process dies then is lost."""
    receive = Process.receive

    def mutated(process: Process, provider: str, notice: Notice) -> bool:
        with contextlib.suppress(Killed, LedgerUnavailableError):
            receive(process, provider, notice)
        return True

    with mock.patch.object(Process, "receive", mutated):
        yield


@contextlib.contextmanager
def capture_before_the_void_is_confirmed() -> Iterator[None]:
    """The second authorization is captured while the first may still be in force."""
    orphans, blind = standing.orphans, threading.local()

    def mutated_orphans(*args: Any) -> Sequence[Attempt]:
        return [] if getattr(blind, "now", False) else orphans(*args)

    def blinded(act: Callable[..., None]) -> Callable[..., None]:
        def mutated(*args: Any) -> None:
            blind.now = True
            try:
                act(*args)
            finally:
                blind.now = False

        return mutated

    with (
        mock.patch.object(standing, "orphans", mutated_orphans),
        mock.patch.object(Resolver, "_capture_if_due", blinded(Resolver._capture_if_due)),
        mock.patch.object(Payments, "_capture_now", blinded(Payments._capture_now)),
    ):
        yield


@contextlib.contextmanager
def ignore_a_failed_capture() -> Iterator[None]:
    """What the provider takes back is not heard of."""
    learn = Notices._learn

    def mutated(notices: Notices, journal: Journal, attempt: Attempt, notice: Notice) -> dict[str, Any] | None:
        return None if notice.kind is NoticeKind.CAPTURE_FAILED else learn(notices, journal, attempt, notice)

    with mock.patch.object(Notices, "_learn", mutated):
        yield


@contextlib.contextmanager
def give_up_until_checkout_asks_again() -> Iterator[None]:
    """That a payment was given up is not on record: its void is on its way, and the payment is sent again."""
    claim = Journal.claim

    def mutated(journal: Journal, key: NewKey | None = None, **_named: Any) -> None:
        claim(journal, key)

    with mock.patch.object(Journal, "claim", mutated):
        yield


MUTANTS: tuple[Mutant, ...] = (
    fail_over_on_unknown,
    refused_resend_proves_nothing_happened,
    commit_after_the_call,
    drop_the_fingerprint,
    drop_the_fence,
    acknowledge_before_storing,
    capture_before_the_void_is_confirmed,
    ignore_a_failed_capture,
    give_up_until_checkout_asks_again,
)
NAMES = {mutant.__name__: mutant for mutant in MUTANTS}

CAUGHT_BY = {
    "fail_over_on_unknown": 10,
    "refused_resend_proves_nothing_happened": 3,
    "commit_after_the_call": 1,
    "drop_the_fingerprint": 2,
    "drop_the_fence": 3,
    "acknowledge_before_storing": 55,
    "capture_before_the_void_is_confirmed": 2,
    "ignore_a_failed_capture": 1,
    "give_up_until_checkout_asks_again": 40,
}
"""A seed that was the first to catch each: tried first. When the router's steps change, another one is."""


def hunt(name: str, first: int = 1, most: int = MOST_SEEDS) -> tuple[str, int | None, Sequence[str], float]:
    """The first seed that catches a mutant, what it says, and after how many seconds."""
    listen()
    begun = time.monotonic()
    with open_ledger() as database:
        for seed in range(first, first + most):
            with NAMES[name]():
                violations = run_seed(seed, database, Totals()).violations
            # A seed that fails without the mutant too has caught something else.
            if violations and not run_seed(seed, database, Totals()).violations:
                return name, seed, violations, time.monotonic() - begun
    return name, None, (), time.monotonic() - begun


def main() -> int:
    """Hunt all; 1 when one escapes."""
    escaped = 0
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for name, seed, violations, seconds in pool.imap(hunt, NAMES):
            if seed is None:
                escaped += 1
                print(f"{name}: ESCAPED {MOST_SEEDS} seeds")
            else:
                print(f"{name}: caught by seed {seed} ({seconds:.1f} s): {violations[0]}")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
