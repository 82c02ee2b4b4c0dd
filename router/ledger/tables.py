"""The ledger's tables, the same on SQLite and PostgreSQL.

Times are integer microseconds since 1970 UTC: exact, ordered, and the same in both databases. Money is integer
minor units by ISO 4217. `migrations/` makes these tables; a test holds the two together.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from router.report_measures import DIMENSIONS, MEASURES, Kind

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# none_as_null: an absent decline is SQL's NULL, not JSON's null, so that `IS NULL` means what it says.
# JSON, not PostgreSQL's JSONB, which reorders keys: an attempt's parameters are sent again exactly as written.
Json = sa.JSON(none_as_null=True)
# SQLite numbers rows by itself only in a column declared exactly INTEGER.
RowNumber = sa.BigInteger().with_variant(sa.Integer, "sqlite")

payments = sa.Table(
    "payments",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("holds_reference", sa.Boolean, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("amount_captured", sa.BigInteger, nullable=False),
    sa.Column("amount_refunded", sa.BigInteger, nullable=False),
    sa.Column("capture_pending", sa.Boolean, nullable=False),
    sa.Column("provider", sa.Text),
    sa.Column("order", Json, nullable=False),
    sa.Column("flags", Json, nullable=False),
    sa.Column("decision", Json, nullable=False),
    sa.Column("decline", Json),
    sa.Column("next_action", Json),
    # Every change is a compare-and-set on the version; the holder of the lease is the one process that may act.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("lease_holder", sa.Text),
    sa.Column("lease_until", sa.BigInteger),
    # The attempt that the payment stands or falls with; an approval of any other one is an orphan.
    sa.Column("attempt_id", sa.Text),
    # When checkout last asked, and whether it was answered: for so long does it expect the payment.
    sa.Column("contact_at", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("told", sa.Boolean, nullable=False, server_default=sa.false()),
    # Since when checkout is held to expect it no more; NULL: it still does.
    sa.Column("given_up_at", sa.BigInteger),
    # The last word on a dispute or chargeback.
    sa.Column("dispute", Json),
    # When to find out next what is not known of its attempts and operations; NULL: all is known.
    sa.Column("resolve_at", sa.BigInteger),
    sa.Column("resolve_tries", sa.Integer, nullable=False, server_default="0"),
    # Why a person has to look, where the machine cannot go on without a guess.
    sa.Column("attention", sa.Text),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_try_at", sa.BigInteger),
    # Parked, and a worker is about to try it: until then no other one takes it up.
    sa.Column("claimed_until", sa.BigInteger),
    # Parked: errors of ours in a row, and since when it waits for a person because of them.
    sa.Column("faults", sa.Integer, nullable=False, server_default="0"),
    sa.Column("dead_at", sa.BigInteger),
    # Why it failed: expired, rejected, unavailable; NULL: what was unknown of it came to nothing.
    sa.Column("failure", sa.Text),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    # At most one payment holds a reference: a double click under two keys must not pay twice.
    sa.Index(
        "uq_payments_held_reference",
        "merchant",
        "reference",
        unique=True,
        sqlite_where=sa.text("holds_reference"),
        postgresql_where=sa.text("holds_reference"),
    ),
    sa.Index("ix_payments_reference", "merchant", "reference"),
    # By merchant: each has its turn, however much another has parked.
    sa.Index(
        "ix_payments_parked_by_merchant",
        "merchant",
        "next_try_at",
        "id",
        sqlite_where=sa.text("status = 'parked'"),
        postgresql_where=sa.text("status = 'parked'"),
    ),
    # Whoever's: what is due, what a recovery wakes, and how much waits, with no look at the rows themselves.
    sa.Index(
        "ix_payments_parked_due",
        "next_try_at",
        "created_at",
        # The same in all of them: SQLite asks for it, though the index says so.
        "status",
        sqlite_where=sa.text("status = 'parked'"),
        postgresql_where=sa.text("status = 'parked'"),
    ),
    sa.Index(
        "ix_payments_parked_expiring",
        "expires_at",
        sqlite_where=sa.text("status = 'parked'"),
        postgresql_where=sa.text("status = 'parked'"),
    ),
    sa.Index(
        "ix_payments_to_resolve",
        "resolve_at",
        sqlite_where=sa.text("resolve_at IS NOT NULL"),
        postgresql_where=sa.text("resolve_at IS NOT NULL"),
    ),
    sa.Index(
        "ix_payments_awaiting_customer",
        "attempt_id",
        sqlite_where=sa.text("status = 'requires_action'"),
        postgresql_where=sa.text("status = 'requires_action'"),
    ),
    sa.Index(
        "ix_payments_leased",
        "lease_until",
        sqlite_where=sa.text("lease_until IS NOT NULL"),
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    ),
    # The console's lists: ids begin with their time, so each status and provider is read newest first, from its end.
    sa.Index("ix_payments_listed", "merchant", "status", "provider", "id"),
)

parked_ramp = sa.Table(
    "parked_ramp",
    metadata,
    # One row: how fast all workers together try parked payments (`router.parked_ramp`).
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rate", sa.Float, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("spent_until", sa.BigInteger, nullable=False),
    sa.Column("restarted_at", sa.BigInteger, nullable=False),
    sa.Column("good", sa.Integer, nullable=False),
    sa.Column("bad", sa.Integer, nullable=False),
    # What waits for longer than until then is to be made due, after an outage; NULL: that is done.
    sa.Column("wake_at", sa.BigInteger),
    # Whose turn it was last.
    sa.Column("merchant", sa.Text, nullable=False),
    sa.CheckConstraint("id = 1", name="ck_parked_ramp_one_row"),
)

COUNTED_TRIES = "outcome IN ('declined', 'requires_action', 'unknown')"
"""Attempts that a card network counts as tries of a card."""

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("payment_id", sa.Text, sa.ForeignKey("payments.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    # Both are written before the call, and sent again unchanged if the attempt must be sent again.
    sa.Column("idempotency_key", sa.Text, nullable=False),
    sa.Column("params", Json, nullable=False),
    # NULL: started, and no answer known yet.
    sa.Column("outcome", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("health", sa.Text),
    sa.Column("provider_reference", sa.Text),
    sa.Column("decline", Json),
    # What the customer is to do, where the answer was requires_action.
    sa.Column("next_action", Json),
    # Whether it was sent to be captured at once, and what became of that: done, pending or failed.
    sa.Column("at_once", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("capture", sa.Text),
    # Where it is not_executed: the provider's own record says so, and it ends what was in doubt.
    sa.Column("final_record", sa.Boolean, nullable=False, server_default=sa.false()),
    # What its provider has said of it, ever: the outcome follows from both, whichever was told first.
    sa.Column("was_approved", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("was_canceled", sa.Boolean, nullable=False, server_default=sa.false()),
    # What the provider says that it charges, in minor units of the currency it settles in; NULL: it has not said.
    sa.Column("fee_actual", sa.BigInteger),
    sa.Column("fee_currency", sa.Text),
    sa.Column("sends", sa.Integer, nullable=False, server_default="1"),
    sa.Column("latency_us", sa.BigInteger),
    # A digest of merchant and card fingerprint; NULL: the card is not known again.
    sa.Column("card", sa.Text),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    # NULL: never sent again, so started_at is its last send.
    sa.Column("last_sent_at", sa.BigInteger),
    sa.Column("finished_at", sa.BigInteger),
    sa.UniqueConstraint("payment_id", "number"),
    sa.Index("ix_attempts_provider_reference", "provider", "provider_reference"),
    # What a provider has to settle, by when it was begun.
    sa.Index(
        "ix_attempts_approved",
        "provider",
        "started_at",
        sqlite_where=sa.text("outcome = 'approved'"),
        postgresql_where=sa.text("outcome = 'approved'"),
    ),
    # The console's timeline reads a stretch of time.
    sa.Index("ix_attempts_started_at", "started_at"),
    # Of what counts only: a card that pays well, however often, has nothing in it.
    sa.Index(
        "ix_attempts_tries_of_card",
        "card",
        "started_at",
        sqlite_where=sa.text(COUNTED_TRIES),
        postgresql_where=sa.text(COUNTED_TRIES),
    ),
)

payment_events = sa.Table(
    "payment_events",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("payment_id", sa.Text, sa.ForeignKey("payments.id"), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    # What this transition set, column by column: folding a payment's events gives its row. And `note`, which is no
    # column: what is to be kept of it besides, as an operator's evidence.
    sa.Column("changes", Json, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    # On PostgreSQL the migration makes the default the id of the transaction that inserts the row, so that readers
    # can wait for it (`event_feed`). 0: SQLite, and rows from before the column.
    sa.Column("xact", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("payment_id", "version"),
    sa.Index("ix_payment_events_xact_number", "xact", "number"),
)

event_clock = sa.Table(
    "event_clock",
    metadata,
    # One row on PostgreSQL, none on SQLite: whose transaction ids the events have, and what is added to them.
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("base", sa.BigInteger, nullable=False),
)

relays = sa.Table(
    "relays",
    metadata,
    # Who passes events on, one process at a time under a lease. All events up to the position have been delivered.
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("xact", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", sa.BigInteger),
    # Since when nothing was delivered though there was something, and why.
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("cause", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # When the position last moved.
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("payment_id", sa.Text, sa.ForeignKey("payments.id"), nullable=False),
    sa.Column("attempt_id", sa.Text, sa.ForeignKey("attempts.id"), nullable=False),
    # capture, void or refund.
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    # Ours at the provider: the operation's own id.
    sa.Column("idempotency_key", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("provider_reference", sa.Text),
    sa.Column("asked_by", sa.Text, nullable=False),
    sa.Column("sends", sa.Integer, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("finished_at", sa.BigInteger),
    # Sends of a void by our own id that are known to have come to nothing.
    sa.Column("failures", Json, nullable=False, server_default="[]"),
    sa.Index("ix_operations_payment", "payment_id"),
    sa.Index("ix_operations_provider_reference", "provider", "provider_reference"),
    sa.Index("ix_operations_started_at", "provider", "started_at"),
)

webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("notice_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # The notice in the router's words: nothing of the delivery that is not understood is kept.
    sa.Column("notice", Json, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("applied_at", sa.BigInteger),
    sa.Column("result", sa.Text),
    # Whose it was, once that is known; NULL: nobody's, or it came before the console.
    sa.Column("payment_id", sa.Text),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("next_try_at", sa.BigInteger),
    sa.UniqueConstraint("provider", "notice_id"),
    sa.Index(
        "ix_webhooks_payment",
        "payment_id",
        sqlite_where=sa.text("payment_id IS NOT NULL"),
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    ),
    sa.Index(
        "ix_webhooks_waiting",
        "next_try_at",
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    ),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("merchant", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("payment_id", sa.Text, sa.ForeignKey("payments.id"), nullable=False),
    # NULL: the key made the payment; else it asked for this capture, void or refund.
    sa.Column("operation_id", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("ix_idempotency_keys_created_at", "created_at"),
)

circuit_transitions = sa.Table(
    "circuit_transitions",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.Text, nullable=False),
    # Compare-and-set: of two processes that saw the same state, one writes the next version.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failed_rounds", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("incident", sa.Text),
    sa.Column("open_us", sa.BigInteger, nullable=False),
    # Of what the router would send: a stage of slow start; 1 in every other state.
    sa.Column("share", sa.Float, nullable=False, server_default="1"),
    # Early warning's mark on a closed circuit.
    sa.Column("suspect", sa.Boolean, nullable=False, server_default=sa.false()),
    # When an operator's override ends by itself.
    sa.Column("until", sa.BigInteger),
    # When the state began, where that was an earlier row; NULL: with this one.
    sa.Column("since", sa.BigInteger),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("provider", "version"),
    sa.Index("ix_circuit_transitions_incident", "incident"),
)

probes = sa.Table(
    "probes",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("provider", sa.Text, nullable=False),
    # The transition that this is a probe of, and which of its probes: of all processes, one sends it.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("nth", sa.Integer, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    # Written before the call; what follows is NULL until it has ended.
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("healthy", sa.Boolean),
    sa.Column("reason", sa.Text),
    sa.Column("latency_us", sa.BigInteger),
    # No customer's payment, and in no report. Nothing can be written here that is one.
    sa.Column("synthetic", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.CheckConstraint("synthetic", name="ck_probes_synthetic"),
    sa.UniqueConstraint("provider", "version", "nth"),
    sa.Index("ix_probes_at", "at"),
)

provider_accounts = sa.Table(
    "provider_accounts",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    # When the next worker may ask. What follows is NULL until something was learned.
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text),
    sa.Column("reasons", Json),
    sa.Column("until", sa.BigInteger),
    sa.Column("since", sa.BigInteger),
    sa.Column("learned_at", sa.BigInteger),
)

provider_counts = sa.Table(
    "provider_counts",
    metadata,
    # What one process saw of one provider in one hour since 1970, so far: readers take differences. Apart by the
    # version of the circuit that the calls ended under, and by whether the process took them for normal ones.
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("normal", sa.Boolean, primary_key=True),
    sa.Column("calls", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("unreachable", sa.Integer, nullable=False),
    sa.Column("slow", sa.Integer, nullable=False),
    sa.Column("overdue", sa.Integer, nullable=False),
    sa.Column("refused", sa.Integer, nullable=False),
    # Calls by latency bucket.
    sa.Column("histogram", Json, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Index("ix_provider_counts_updated_at", "updated_at"),
)

score_counts = sa.Table(
    "score_counts",
    metadata,
    # What one process saw of one provider in a stretch of time, so far: readers take differences. "": all processes
    # together, of a stretch that is over.
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    # Issuers' answers in this segment (`router.segments`), or * for calls that ended.
    sa.Column("segment", sa.Text, primary_key=True),
    # Seconds: when it began, since 1970, and how long it is.
    sa.Column("starts_s", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("width_s", sa.Integer, primary_key=True, autoincrement=False),
    # Approvals and declines; calls that were well and that failed.
    sa.Column("good", sa.BigInteger, nullable=False),
    sa.Column("bad", sa.BigInteger, nullable=False),
    # The sum of their moments, milliseconds after the start: their mean moment is what they are discounted by.
    sa.Column("good_ms", sa.BigInteger, nullable=False),
    sa.Column("bad_ms", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Index("ix_score_counts_updated_at", "updated_at"),
    sa.Index("ix_score_counts_width_s_starts_s", "width_s", "starts_s"),
)

decisions = sa.Table(
    "decisions",
    metadata,
    # Those that checkout asked for (`POST /v1/decisions`); a payment's is with the payment. Written in batches, a
    # moment after the answer, so a killed process loses its last ones: their outcomes stand by themselves.
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    # Of the order, what a replay of another policy needs: no token, nothing of the customer.
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("card_brand", sa.Text),
    sa.Column("card_country", sa.Text),
    sa.Column("card_funding", sa.Text),
    sa.Column("decision", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("ix_decisions_created_at", "created_at"),
)

decision_outcomes = sa.Table(
    "decision_outcomes",
    metadata,
    # What checkout told of one provider that it called by itself, once: whoever wrote the row is who learns from it.
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("latency_ms", sa.Integer, nullable=False),
    # As it was told, and what it means.
    sa.Column("decline_code", sa.Text),
    sa.Column("decline", Json),
    # After it there is nothing more to tell of the decision.
    sa.Column("finishes", sa.Boolean, nullable=False),
    sa.Column("decided_at", sa.BigInteger, nullable=False),
    sa.Column("told_at", sa.BigInteger, nullable=False),
    sa.Index(
        "uq_decision_outcomes_finishes",
        "decision_id",
        unique=True,
        sqlite_where=sa.text("finishes"),
        postgresql_where=sa.text("finishes"),
    ),
    sa.Index("ix_decision_outcomes_decided_at", "decided_at"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    # Made at random where no setting gives one, so that all processes share it. Each protects nothing that whoever
    # reads the ledger could not do otherwise.
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
)

flips = sa.Table(
    "flips",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("flag", sa.Text, nullable=False),
    sa.Column("from_value", sa.Text, nullable=False),
    sa.Column("to_value", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", Json, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("confirmed_at", sa.BigInteger),
    # The one worker that carries it on, until then.
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", sa.BigInteger),
    # Rounds in which the flag could not be had, and those in which the store said no for good.
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("refusals", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_try_at", sa.BigInteger),
    # When its write was sent, as far as is not disproved; cooldown and limit go by it.
    sa.Column("requested_at", sa.BigInteger),
    # What the flag served, and its mark, before the write; both are committed before it is sent.
    sa.Column("before", Json),
    sa.Column("mark", sa.Text),
    # The mark read back after the write: while it is the flag's, nobody has touched the flag since.
    sa.Column("written", sa.Text),
    # Rules and targets that served the failing provider, in words.
    sa.Column("pins", Json),
    sa.Column("approval", sa.Text),
    # Why it waits, failed, was superseded or is not restored.
    sa.Column("cause", sa.Text),
    sa.Column("restore_by", sa.Text),
    sa.Column("restore_reason", sa.Text),
    # When it was asked for; NULL again where it was refused.
    sa.Column("restore_at", sa.BigInteger),
    sa.Column("restore_sent_at", sa.BigInteger),
    sa.Column("restored_at", sa.BigInteger),
    # One flip an incident: whatever a person sets afterwards stands.
    sa.UniqueConstraint("incident", "flag"),
)

primary_overrides = sa.Table(
    "primary_overrides",
    metadata,
    # Begun in the transaction that decides the flip, ended in that of the state that ends it.
    sa.Column("flip_id", sa.Text, sa.ForeignKey("flips.id"), primary_key=True),
    sa.Column("from_value", sa.Text, nullable=False),
    sa.Column("to_value", sa.Text, nullable=False),
    sa.Column("began_at", sa.BigInteger, nullable=False),
    sa.Column("ended_at", sa.BigInteger),
    sa.Column("why_ended", sa.Text),
    sa.Index(
        "ix_primary_overrides_in_force",
        "began_at",
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    ),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # What happened once is told once, whichever worker saw it.
    sa.Column("occasion", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("incident", sa.Text, nullable=False),
    sa.Column("flip_id", sa.Text),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("detail", Json, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.BigInteger),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    # When to send it, or to send it again; NULL: it was accepted, or given up.
    sa.Column("next_try_at", sa.BigInteger),
    sa.Column("cause", sa.Text),
    sa.Index(
        "ix_alerts_waiting",
        "next_try_at",
        sqlite_where=sa.text("next_try_at IS NOT NULL"),
        postgresql_where=sa.text("next_try_at IS NOT NULL"),
    ),
)

flag_values = sa.Table(
    "flag_values",
    metadata,
    # The last known definition of each flag and segment, by the environment it comes from: what a process serves
    # that starts while LaunchDarkly is away.
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    # NULL: it was deleted.
    sa.Column("data", Json),
    # How many changes of it were accepted: rises where the version falls, as after an environment was made anew.
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

flag_changes = sa.Table(
    "flag_changes",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    # One row for each change, however many processes saw it.
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    # What it was and is, in a few words; NULL: not known before, or deleted.
    sa.Column("old", Json),
    sa.Column("new", Json),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("seen_by", sa.Text, nullable=False),
    sa.UniqueConstraint("source", "kind", "key", "revision"),
    sa.Index("ix_flag_changes_key_at", "key", "at"),
)

settlement_imports = sa.Table(
    "settlement_imports",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("provider", sa.Text, nullable=False),
    # The merchant account at Adyen; live or test at Stripe.
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    # SHA-256 of the file: the same one twice is one import.
    sa.Column("digest", sa.Text, nullable=False),
    # importing: its lines are not seen yet, and go if it does not end; judging: they are in, and being matched; done.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("lines", sa.BigInteger, nullable=False),
    # Lines that no earlier file had.
    sa.Column("new_lines", sa.BigInteger, nullable=False),
    # The moments of its first and last line.
    sa.Column("first_at", sa.BigInteger),
    sa.Column("last_at", sa.BigInteger),
    sa.Column("imported_by", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("provider", "account", "digest"),
    # One file of a provider at a time: two that overlap must not each believe the other's lines.
    sa.Index(
        "uq_settlement_imports_open",
        "provider",
        unique=True,
        sqlite_where=sa.text("state <> 'done'"),
        postgresql_where=sa.text("state <> 'done'"),
    ),
)

settlement_lines = sa.Table(
    "settlement_lines",
    metadata,
    sa.Column("provider", sa.Text, primary_key=True),
    # The provider's own name of the line.
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("import_id", sa.Text, sa.ForeignKey("settlement_imports.id"), nullable=False),
    # Its line in that file.
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("reference", sa.Text),
    sa.Column("modification", sa.Text),
    sa.Column("own", sa.Text),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("fee", sa.BigInteger, nullable=False),
    sa.Column("net", sa.BigInteger, nullable=False),
    sa.Column("net_currency", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("batch", sa.Text),
    # What it is judged as; NULL: not yet, and not to be shown.
    sa.Column("verdict", sa.Text),
    # What it is judged together with: an attempt, an operation, or a reference that nobody knows.
    sa.Column("unit", sa.Text),
    sa.Column("payment_id", sa.Text),
    sa.Column("attempt_id", sa.Text),
    sa.Column("operation_id", sa.Text),
    # Of the unit: what the file says in all, and what the ledger does.
    sa.Column("settled", sa.BigInteger),
    sa.Column("expected", sa.BigInteger),
    sa.Column("expected_currency", sa.Text),
    # What the fee was first compared with, and by whose word; that it is known since then changes nothing here.
    sa.Column("expected_fee", sa.BigInteger),
    sa.Column("expected_fee_currency", sa.Text),
    sa.Column("fee_basis", sa.Text),
    sa.Index("ix_settlement_lines_import", "import_id", "verdict", "number"),
    sa.Index("ix_settlement_lines_unit", "provider", "kind", "unit"),
    sa.Index("ix_settlement_lines_attempt", "attempt_id", "kind"),
    sa.Index("ix_settlement_lines_operation", "operation_id"),
)


def _measures(counts: type[sa.Integer]) -> list[sa.Column[int]]:
    return [
        sa.Column(each.name, counts if each.kind is Kind.COUNT else sa.BigInteger, nullable=False)
        for each in MEASURES
    ]


report_facts = sa.Table(
    "report_facts",
    metadata,
    # What one payment adds to the reports (`router.report_measures`), as of this version of it: what it added before
    # is taken out of the cells by it, and the payments of every figure are found by it.
    sa.Column("payment_id", sa.Text, primary_key=True),
    # Since 1970.
    sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("provider", sa.Text, primary_key=True),
    sa.Column("decline_class", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("country", sa.Text, nullable=False),
    sa.Column("brand", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    # Of one payment: no count of it passes 32,767.
    *_measures(sa.SmallInteger),
    sa.Index("ix_report_facts_minute", "minute"),
)

report_cells = sa.Table(
    "report_cells",
    metadata,
    # The sums of the facts of an hour or a day of UTC (`Level`); "" in dimensions that the level does not tell.
    sa.Column("level", sa.SmallInteger, primary_key=True, autoincrement=False),
    # Its first minute.
    sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
    *(sa.Column(name, sa.Text, primary_key=True) for name in DIMENSIONS),
    *_measures(sa.BigInteger),
    # Rows lie in the order of the key: a period is read from one end to the other.
    sqlite_with_rowid=False,
)

report_state = sa.Table(
    "report_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    # Rises with every commit to the facts: who read before another's commit writes nothing.
    sa.Column("generation", sa.BigInteger, nullable=False),
    # In the feed of events: all before it is in the facts.
    sa.Column("xact", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    # Payments up to this id have been looked at, whatever the feed says; NULL: all have.
    sa.Column("swept_to", sa.Text),
    # Of payments created before, there are no facts; NULL: none is left out.
    sa.Column("kept_from", sa.BigInteger),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
)

report_marks = sa.Table(
    "report_marks",
    metadata,
    # Payments that were changed without an event of theirs, as by a reconciliation: to be looked at anew. Written in
    # the transaction that changes them.
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("payment_id", sa.Text, nullable=False),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("revoked_at", sa.BigInteger),
    # How it begins, for people; who made and who revoked it; when it was last used, right to a minute or two.
    sa.Column("hint", sa.Text, nullable=False, server_default=""),
    sa.Column("created_by", sa.Text, nullable=False, server_default=""),
    sa.Column("revoked_by", sa.Text, nullable=False, server_default=""),
    sa.Column("last_used_at", sa.BigInteger),
    sa.Column("expires_at", sa.BigInteger),
    # The id of the key that came in its place.
    sa.Column("replaced_by", sa.Text),
    sa.Index("ix_api_keys_merchant", "merchant", "digest"),
)

api_key_changes = sa.Table(
    "api_key_changes",
    metadata,
    # The audit record: who created, rotated or revoked which key.
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("key_id", sa.Text, nullable=False),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("what", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Index("ix_api_key_changes_key_id", "key_id"),
)

merchant_volumes = sa.Table(
    "merchant_volumes",
    metadata,
    sa.Column("merchant", sa.Text, primary_key=True),
    # Since 1970; and the payments of its busiest minute. Counted anew, it never goes down.
    sa.Column("hour", sa.BigInteger, primary_key=True),
    sa.Column("peak", sa.BigInteger, nullable=False),
    sa.Index("ix_merchant_volumes_hour", "hour"),
)

webhook_endpoints = sa.Table(
    "webhook_endpoints",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    # Which types of events it wants; none named: all that say something.
    sa.Column("event_types", Json, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    # enabled, disabled or deleted; since when and why.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_at", sa.BigInteger, nullable=False),
    sa.Column("cause", sa.Text),
    # What deliveries are signed with, and what they were signed with before, until then.
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("old_secret", sa.Text),
    sa.Column("old_secret_until", sa.BigInteger),
    # Up to where in the feed of events its deliveries are made.
    sa.Column("xact", sa.BigInteger, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    # The one worker that sends to it, until then.
    sa.Column("holder", sa.Text),
    sa.Column("lease_until", sa.BigInteger),
    # Rounds since it last accepted anything, the first of them, and when it is tried again.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("next_try_at", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Index("ix_webhook_endpoints_merchant", "merchant"),
)

webhook_deliveries = sa.Table(
    "webhook_deliveries",
    metadata,
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    sa.Column("endpoint_id", sa.Text, sa.ForeignKey("webhook_endpoints.id"), nullable=False),
    # The event: its id and type as they are told, its payment and version, its place in the feed.
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("payment_id", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("event_xact", sa.BigInteger, nullable=False),
    sa.Column("event_number", sa.BigInteger, nullable=False),
    # What is sent, the same bytes each time; NULL again once it has ended.
    sa.Column("body", sa.Text),
    # pending, accepted or given_up.
    sa.Column("state", sa.Text, nullable=False),
    # Sends, ever; and refusals since it was last put up for sending, the first of them, and the next try.
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failing_since", sa.BigInteger),
    sa.Column("next_try_at", sa.BigInteger, nullable=False),
    # Of the last send: when, the answer's status if there was one, the word why it was not accepted.
    sa.Column("last_at", sa.BigInteger),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_reason", sa.Text),
    sa.Column("latency_us", sa.BigInteger),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    # When it was accepted or given up.
    sa.Column("ended_at", sa.BigInteger),
    sa.UniqueConstraint("endpoint_id", "payment_id", "version"),
    sa.Index("ix_webhook_deliveries_endpoint_id_number", "endpoint_id", "number"),
    sa.Index(
        "ix_webhook_deliveries_pending",
        "endpoint_id",
        "next_try_at",
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    ),
    sa.Index(
        "ix_webhook_deliveries_ended_at",
        "ended_at",
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    ),
)

console_sessions = sa.Table(
    "console_sessions",
    metadata,
    # Of the cookie's secret; a stolen ledger opens no session. Ending one deletes its row.
    sa.Column("digest", sa.Text, primary_key=True),
    # What it was opened with, as a kind and a digest: the session ends with its key, or with the password's change.
    sa.Column("credential", sa.Text, nullable=False),
    sa.Column("merchant", sa.Text, nullable=False),
    sa.Column("scopes", Json, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Index("ix_console_sessions_expires_at", "expires_at"),
)

console_passwords = sa.Table(
    "console_passwords",
    metadata,
    # One for each merchant: with it every scope.
    sa.Column("merchant", sa.Text, primary_key=True),
    # scrypt, with its parameters and salt.
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("changed_at", sa.BigInteger, nullable=False),
)

console_failures = sa.Table(
    "console_failures",
    metadata,
    # Logins that were refused, for as long as they count.
    sa.Column("number", RowNumber, primary_key=True, autoincrement=True),
    # A digest of the address that it came from.
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Index("ix_console_failures_at", "at"),
)

sealing_keys = sa.Table(
    "sealing_keys",
    metadata,
    # Keys that something of the ledger may be sealed under: by id, and written before the first seal.
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("first_used_at", sa.BigInteger, nullable=False),
    # Nothing is sealed under it any more; or a person has said that it is lost for good. NULL: it is needed.
    sa.Column("retired_at", sa.BigInteger),
    sa.Column("lost_at", sa.BigInteger),
)

sealing_processes = sa.Table(
    "sealing_processes",
    metadata,
    # Which keys each process has, the one that it seals with first: none may seal under what another cannot open.
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("key_ids", Json, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)


def to_micros(moment: dt.datetime) -> int:
    """An aware moment as the ledger keeps it, to the microsecond."""
    delta = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(micros: int) -> dt.datetime:
    """The moment that `to_micros` kept."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
