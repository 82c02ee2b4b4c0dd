"""What nobody asks for and somebody has to do: forget what is old, end what was abandoned, warn in time.

A worker loop; any number may run. Whatever it changes of a payment is a compare-and-set, like every other change.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from providers.contract import LookUpKind, OutcomeKind, Provider
from router import settling
from router.clock import Clock
from router.ledger.decisions import DecisionLedger
from router.ledger.journal import Journal, Journals
from router.ledger.operations import ABANDONED, IN_FORCE, UNSEEN, UNSETTLED
from router.ledger.payments import PaymentLedger
from router.ledger.records import Attempt, StaleError
from router.ledger.scores import DAY_S, HOUR_S, MINUTE_S, ScoreLedger
from router.ledger.unavailable import LedgerUnavailableError
from router.ledger.upkeep import Upkeep
from router.ledger.webhook_deliveries import DeliveryLedger
from router.score_sharing import REMEMBERED_S
from router.sending import LEAST_TIME_S, Sender, learned, says_more
from router.settling import IN_DOUBT, settle

log = structlog.get_logger("router.housekeeping")

KEPT = dt.timedelta(days=30)
"""Idempotency keys, and the notices that were applied: both are promised, or re-delivered, for less. Probes,
alerts, and deliveries to webhook endpoints."""
COUNTS_KEPT = dt.timedelta(days=2)
"""What processes counted of providers: the last day is learned from."""
SCORE_MINUTES_KEPT_S = REMEMBERED_S + HOUR_S
"""Then they are hours, of all processes together: later than any process that lives tells of them. Calls are gone."""
SCORE_HOURS_KEPT_S = 7 * DAY_S
SCORES_KEPT_S = 90 * DAY_S
"""Three of the longest half-lives, an eighth of the weight; at the usual six hours a millionth is left after five
days."""
DECISIONS_KEPT = dt.timedelta(days=90)
"""Decisions that checkout asked for and what it told of them: a quarter to replay another policy over."""
BATCH = 500
"""Rows forgotten in one commit: a few milliseconds, so that no payment waits long for the ledger."""
BATCHES = 20
"""Of each kind a round: ten thousand rows, more than come in meanwhile."""
ROUND = 20
"""Abandoned payments ended a round; each is a call or two."""
AGAIN_AFTER = dt.timedelta(minutes=1)
"""Until an abandoned payment whose provider could not say anything is looked at again."""
AUTHORIZATION_LIVES = dt.timedelta(days=5)
"""The shortest that a card's authorization is promised to live: Visa's, where the merchant started it."""
WARNED_BEFORE = dt.timedelta(days=1)
LIMBO = "its authorization expires soon, and another one is not proved void: ask that provider, then resolve"


@dataclass(frozen=True, slots=True)
class Done:
    """What one round came to."""

    keys: int = 0
    webhooks: int = 0
    counts: int = 0
    """Rows of what processes counted of providers."""
    decisions: int = 0
    """Those that checkout asked for, and their outcomes."""
    probes: int = 0
    alerts: int = 0
    deliveries: int = 0
    """To webhook endpoints."""
    canceled: int = 0
    """Abandoned payments that ended: canceled, or found to have been completed."""
    warned: int = 0
    scores: int = 0
    """Rows of what processes saw of approvals and calls: merged or forgotten."""


class Housekeeping:
    """A worker loop: `run_once` does one bounded round of everything."""

    def __init__(
        self,
        *,
        upkeep: Upkeep,
        ledger: PaymentLedger,
        journals: Journals,
        sender: Sender,
        providers: Mapping[str, Provider],
        action_expires_s: float,
        deadline_s: float,
        clock: Clock,
        stopping: Callable[[], bool] = lambda: False,
        scores: ScoreLedger | None = None,
        decisions: DecisionLedger | None = None,
        deliveries: DeliveryLedger | None = None,
    ) -> None:
        self._upkeep = upkeep
        self._ledger = ledger
        self._journals = journals
        self._sender = sender
        self._providers = providers
        self._action_expires = dt.timedelta(seconds=action_expires_s)
        self._deadline_s = deadline_s
        self._clock = clock
        self._stopping = stopping
        self._scores = scores
        self._decisions = decisions
        self._deliveries = deliveries

    def run_once(self) -> Done:
        """One round. Raises LedgerUnavailableError."""
        now = self._clock.now()
        due = self._upkeep.abandoned(since=self._action_expires, now=now, limit=ROUND)
        return Done(
            canceled=sum(self._guarded(payment_id, self._end_abandoned) for payment_id in due),
            warned=self._warn(now),
            keys=self._in_batches(self._upkeep.reap_keys, now - KEPT),
            webhooks=self._in_batches(self._upkeep.reap_webhooks, now - KEPT),
            counts=self._in_batches(self._upkeep.reap_counts, now - COUNTS_KEPT),
            probes=self._in_batches(self._upkeep.reap_probes, now - KEPT),
            alerts=self._in_batches(self._upkeep.reap_alerts, now - KEPT),
            decisions=0 if self._decisions is None else self._forget_decisions(self._decisions, now - DECISIONS_KEPT),
            deliveries=0 if self._deliveries is None else self._in_batches(self._deliveries.reap, now - KEPT),
            scores=0 if self._scores is None else self._tidy_scores(self._scores, int(now.timestamp())),
        )

    def _forget_decisions(self, decisions: DecisionLedger, before: dt.datetime) -> int:
        return self._in_batches(decisions.reap, before) + self._in_batches(decisions.reap_outcomes, before)

    def _tidy_scores(self, scores: ScoreLedger, now_s: int) -> int:
        """Forget what is old, put minutes into hours, and hours into days."""
        to_hours = functools.partial(scores.merge, narrow_s=MINUTE_S, wide_s=HOUR_S)
        to_days = functools.partial(scores.merge, narrow_s=HOUR_S, wide_s=DAY_S)
        return (
            self._in_batches(scores.forget, now_s - SCORES_KEPT_S)
            + self._in_batches(to_hours, now_s - SCORE_MINUTES_KEPT_S)
            + self._in_batches(to_days, now_s - SCORE_HOURS_KEPT_S)
        )

    def _in_batches(self, reap: Callable[..., int], before: dt.datetime | int) -> int:
        total = 0
        for _ in range(BATCHES):
            if self._stopping():
                break
            reaped = reap(before, limit=BATCH)
            total += reaped
            if reaped < BATCH:
                break
        return total

    def _guarded(self, payment_id: str, task: Callable[[str], bool]) -> bool:
        if self._stopping():
            return False
        try:
            return task(payment_id)
        except StaleError:
            return False  # the customer came back at this moment, or another worker was first
        except LedgerUnavailableError:
            raise
        except Exception:
            # One payment that cannot be worked on must not hold up those behind it.
            log.exception("not_tidied", payment=payment_id)
            return False

    # ------------------------------------------------------------ a customer who did not come back

    def _end_abandoned(self, payment_id: str) -> bool:
        """Cancel one at its provider, unless it turns out to be completed; whether it has ended."""
        loaded = self._ledger.load(payment_id)
        if loaded is None or loaded[0].status != "requires_action":
            return False
        journal = self._journals.open(*loaded)
        attempt = settling.chosen(journal)
        if attempt is None or attempt.outcome != OutcomeKind.REQUIRES_ACTION:
            return False
        # Before the commit: so it lies inside the lease, however long that commit takes.
        deadline = self._clock.monotonic() + self._deadline_s
        journal.claim()  # refused while `complete` holds it; from here on it, or a webhook, is
        provider = self._providers[attempt.provider]
        with self._sender.place(attempt.provider) as free:
            if not free:
                return self._later(journal)
            found = provider.look_up(
                attempt.id,
                provider_reference=attempt.provider_reference,
                sent_from=attempt.started_at,
                sent_until=attempt.last_sent_at or attempt.started_at,
                timeouts=self._sender.timeouts(max(LEAST_TIME_S, deadline - self._clock.monotonic())),
            )
        outcome = found.outcome if found.kind is LookUpKind.FOUND else None
        if outcome is not None and outcome.kind is not OutcomeKind.REQUIRES_ACTION:
            return self._completed_meanwhile(
                journal, learned(attempt, outcome, self._clock.now()), says_more(outcome)
            )
        if found.kind is LookUpKind.UNAVAILABLE:
            return self._later(journal)
        return self._void(journal, attempt, deadline)

    def _completed_meanwhile(self, journal: Journal, attempt: Attempt, known: bool) -> bool:
        if not known:
            return self._later(journal)
        journal.learned(attempt)
        now = self._clock.now()
        # Where nothing came of the step, the customer has gone all the same: what else is in doubt is not sent again.
        gone = {} if attempt.outcome == "approved" else {"given_up_at": now}
        settle(journal, event="found_completed", now=now, more={"next_try_at": None} | gone)
        return True

    def _void(self, journal: Journal, attempt: Attempt, deadline: float) -> bool:
        own = [each for each in journal.operations if each.attempt_id == attempt.id and each.asked_by != UNSEEN]
        if any(each.kind == "void" and each.state in UNSETTLED for each in own):
            return self._later(journal)  # the resolver is sending it again
        operation = self._journals.operation(journal, attempt, "void", journal.payment.amount, asked_by=ABANDONED)
        journal.ask(operation)
        operation = self._sender.operate(operation, attempt, journal.payment.currency, deadline)
        journal.learned(operation)
        if operation.state == "refused" and attempt.provider_reference is None:
            # By our own id, where the provider has said none yet, and found nothing: an approval that comes all the
            # same is undone.
            now = self._clock.now()
            ended = {"status": "canceled", "next_action": None, "next_try_at": None, "given_up_at": now}
            settle(journal, event="abandoned", now=now, more=ended)
            return True
        if operation.state not in IN_FORCE:
            # Refused: the customer finished at this moment, and a look-up or a webhook will say so.
            # In doubt: the resolver sends it again.
            return self._later(journal)
        now = self._clock.now()
        if operation.state == "done":
            journal.learned(dataclasses.replace(attempt, outcome="canceled", finished_at=now))
        # What else is in doubt is not sent again: the customer has gone.
        settle(journal, event="abandoned", now=now, more={"next_try_at": None, "given_up_at": now})
        return True

    def _later(self, journal: Journal) -> bool:
        now = self._clock.now()
        settle(journal, event="still_waiting", now=now, more={"next_try_at": now + AGAIN_AFTER})
        return False

    # ------------------------------------------------------------ an authorization about to expire

    def _warn(self, now: dt.datetime) -> int:
        """Put payments before an operator whose authorization expires while another attempt is not proved void."""
        since = now - (AUTHORIZATION_LIVES - WARNED_BEFORE)
        found = self._upkeep.in_limbo(since=since, over=IN_DOUBT, limit=ROUND)
        return sum(self._guarded(payment_id, self._warn_of) for payment_id in found)

    def _warn_of(self, payment_id: str) -> bool:
        found = self._ledger.get(payment_id)
        if found is None or found[0].status != "processing" or found[0].attention not in (None, IN_DOUBT):
            return False
        payment = found[0]
        self._ledger.change(payment, {"attention": LIMBO}, event="attention", now=self._clock.now())
        log.error("authorization_expires", payment=payment.id, attempt=payment.attempt_id, provider=payment.provider)
        return True
