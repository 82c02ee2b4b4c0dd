"""The composition root: the only place that names concrete adapters, and that builds anything.

`build` makes what every process needs; `create_app` and `create_worker` put the web and the worker on top.
Call them in the process that uses them: pooled connections and flag streams do not survive a fork.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import datetime as dt
import math
import os
import random
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import structlog
from flask import Flask, Response, jsonify, redirect
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from pydantic import SecretStr
from werkzeug.wrappers import Response as BaseResponse

from flags import file, launchdarkly
from flags.contract import FlagContext, FlagMover, FlagSource, FlagWriteError
from flags.definitions import definitions
from flags.file import FileFlags
from flags.filemover import FileFlagMover
from flags.filewriter import complete_file
from flags.launchdarkly import LaunchDarklyFlags
from flags.rest import LaunchDarklyMover
from flags.values import WrongValue
from flags.watching import WatchedStore
from providers.adyen import AdyenProvider
from providers.contract import Provider, Timeouts
from providers.stripe import StripeProvider
from router import alerts as alerting
from router import telemetry
from router.api import (
    attention,
    circuits,
    events,
    gate,
    operations,
    problems,
    settlements,
    status,
    webhook_endpoints,
    webhooks,
)
from router.api import decisions as decisions_api
from router.api import parked as dead_letters
from router.api import payments as payments_api
from router.api import reports as reports_api
from router.appraisal import Appraiser
from router.baseline import Fixed
from router.breaker import BreakerSettings
from router.clock import Clock, Ids, SystemClock, TimeOrderedIds
from router.console import blueprint as console
from router.console.access import Access
from router.console.history import History
from router.console.parts import Parts
from router.console.stand_ins import StandIns
from router.decision_ids import DecisionIds
from router.decision_writing import WRITE_INTERVAL_S, DecisionWriter
from router.decisions import Decisions
from router.events import CONTENT_TYPE
from router.fee_book import fee_book
from router.flag_watch import FlagWatch
from router.fleet import FleetCounts
from router.flip_cases import Cases
from router.flip_rules import Limits
from router.flip_writing import FlipWriting
from router.flipper import Flipper
from router.health import EXCHANGE_INTERVAL_S, SYNC_INTERVAL_S, WATCH_INTERVAL_S, ProviderHealth
from router.housekeeping import Housekeeping
from router.kafka_producer import KafkaProducer, producer_config
from router.kafka_relay import LEASE, KafkaRelay
from router.learning import Lessons
from router.ledger import event_clock
from router.ledger.alerts import AlertLedger
from router.ledger.attention import AttentionLedger
from router.ledger.cards import CardLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.console import ConsoleLedger
from router.ledger.console_access import ConsoleAccess
from router.ledger.counts import CountLedger
from router.ledger.decision_log import DecisionLog
from router.ledger.decisions import DecisionLedger
from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger
from router.ledger.heartbeat import Heartbeat
from router.ledger.inbox import Inbox
from router.ledger.journal import Journals
from router.ledger.keys import KeyLedger
from router.ledger.migrate import migrate
from router.ledger.parked import ParkedLedger
from router.ledger.payments import PaymentLedger
from router.ledger.probes import ProbeLedger
from router.ledger.relays import RelayLedger
from router.ledger.rollups import Rollups
from router.ledger.scores import ScoreLedger
from router.ledger.settlement_views import SettlementViews
from router.ledger.settlements import SettlementLedger
from router.ledger.upkeep import Upkeep
from router.ledger.webhook_deliveries import DeliveryLedger
from router.ledger.webhook_endpoints import EndpointLedger
from router.local_override import LocalOverride
from router.loops import Loop, Loops
from router.modifications import Modifications
from router.notices import Notices
from router.overrides import Overrides
from router.parked import Parked
from router.payments import Payments, PaymentSettings
from router.planning import Planner
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer
from router.recovery import Recovery
from router.relay_lags import RelayLags, WebhookLag
from router.reports.rollup import Rollup
from router.resolver import Resolver, ResolverSettings
from router.score_sharing import EXCHANGE_INTERVAL_S as SCORES_INTERVAL_S
from router.score_sharing import ScoreSharing
from router.scores import Scores
from router.sending import Sender, SendTimes
from router.settings import PROVIDER_NAMES, Settings, load_settings
from router.webhooks_out import Relay
from router.webhooks_out_endpoints import Endpoints
from router.webhooks_out_lanes import add_lanes
from router.webhooks_out_post import Poster

log = structlog.get_logger("router.app")

STOP_LOOPS_WITHIN_S = 1.0
"""The web's one loop is a few milliseconds a round."""
FLUSH_WITHIN_S = 2.0
"""A commit of the last decisions; longer than that, and the ledger is away."""
CONSOLE = "console"
"""The ledger's name of the secret that the console's cookies are signed with."""
DECISION_IDS = "decision-ids"
"""The ledger's name of the secret that it keeps where no setting gives one."""
PROBE_READ_S = 5.0
"""A probe is one small question: a provider that takes longer for it has not recovered."""
SLOW_MINIMUM_CALLS = 20
"""A healthy provider whose neighbouring calls hang together opened in 0.8% of fresh windows at 10, in 0.08% at 20."""
LEAST_HANGING_AT_ONCE = 3
"""Calls that hang at one moment and open a circuit, where half of a provider's places are fewer: two are bad luck."""
RECOVERY_INTERVAL_S = 0.25
FLIP_INTERVAL_S = 0.25
"""Every process obeys within a second of the duration: this, the follower's interval, and a commit."""
ALERT_INTERVAL_S = 1.0
FLAG_WATCH_INTERVAL_S = 0.25
"""A round with nothing to write does not touch the ledger."""
PARKED_INTERVAL_S = 0.25
"""A round with nothing parked is two short reads; a recovered provider is noticed within it."""
RESOLVE_INTERVAL_S = 0.5
NOTICES_INTERVAL_S = 0.25
HOUSEKEEPING_INTERVAL_S = 10.0
ROLLUP_INTERVAL_S = 1.0
"""What a report is behind at most, while a worker runs; a round with nothing new only reads."""


@dataclass(frozen=True, slots=True)
class Core:
    """What the web and the worker share, each with its own."""

    settings: Settings
    clock: Clock
    ids: Ids
    database: Database
    providers: Mapping[str, Provider]
    flags: FlagSource
    flag_mover: FlagMover | None
    """None: flags come from LaunchDarkly, and there is no token to write with."""
    override: LocalOverride
    flag_watch: FlagWatch
    health: ProviderHealth
    scores: Scores
    appraiser: Appraiser
    score_sharing: ScoreSharing
    ledger: PaymentLedger
    journals: Journals
    sender: Sender
    """What checkout asks for."""
    inquirer: Sender
    """What a worker does by itself: it leaves a provider whose circuit is open to the probes."""
    payments: Payments
    planner: Planner

    def close(self) -> None:
        """Let go of connections and threads, within bounds; to be called when the loops have stopped."""
        with contextlib.suppress(Exception):  # a second's answers: not worth a stop that fails
            self.score_sharing.tell()
        self.flags.close()
        if self.flag_mover is not None:
            self.flag_mover.close()
        for provider in self.providers.values():
            provider.close()
        self.database.close()


def build(settings: Settings, *, role: str, clock: Clock | None = None, ids: Ids | None = None) -> Core:
    """Everything that a payment needs, from the settings. Raises LedgerUnavailableError, SettingsError."""
    clock = clock or SystemClock()
    ids = ids or TimeOrderedIds(clock)
    fees = fee_book(settings, clock.now().date())
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.ledger_url, pool_size=settings.web_threads + 8)
    migrate(database)
    event_clock.settle(database)
    providers = build_providers(settings)
    actor = f"{role}:{socket.gethostname()}:{os.getpid()}"
    values = FlagValueLedger(database)
    name = flag_source_name(settings)
    # The ledger is asked before the client is built: what is served at once must not wait for LaunchDarkly.
    store = WatchedStore(
        definitions(PROVIDER_NAMES),
        values.known(name),
        by_time=settings.launchdarkly_sdk_key is None,
        now=clock.now,
    )
    source, mover = build_flags(settings, store)
    override = LocalOverride(FlipLedger(database).overrides)
    scores = Scores(providers)
    appraiser = Appraiser(providers, scores=scores, fees=fees, country_of=settings.country_of)
    # A name of its own for every life of a process: counts of one that is gone are never taken for another's.
    process = ids.new(role)
    health = ProviderHealth(
        providers,
        breaker_settings(settings),
        store=CircuitLedger(database),
        fleet=FleetCounts(providers, store=CountLedger(database), process=process, clock=clock),
        at_once=settings.calls_at_once,
        clock=clock,
        actor=actor,
        fixed=_fixed(settings),
        heard=scores.hear_calls,
    )
    ledger = PaymentLedger(database)
    journals = Journals(
        ledger,
        deadline_s=settings.deadline_seconds,
        margin_s=settings.lease_margin_seconds,
        clock=clock,
        ids=ids,
        heard=Lessons(scores, clock).heard,
    )
    times = SendTimes(settings.connect_timeout_seconds, settings.read_timeout_seconds)
    chance = random.Random().random  # noqa: S311 - neither jitter nor a provider's share is a secret
    sender = Sender(providers, times, clock=clock, random=chance, operating=health.operating)
    inquirer = Sender(providers, times, clock=clock, random=chance, operating=health.finding_out)
    planner = Planner(
        providers=providers,
        flags=source,
        health=health,
        appraiser=appraiser,
        ids=ids,
        tries_of=CardLedger(database).tries,
        draw=chance,
        override=override.apply,
        allowed=settings.providers_of,
    )
    payments = Payments(
        ledger=ledger,
        planner=planner,
        sender=sender,
        health=health,
        journals=journals,
        settings=PaymentSettings(deadline_s=settings.deadline_seconds, parked_retry_s=settings.parked_retry_seconds),
        clock=clock,
        ids=ids,
        when_unavailable=settings.when_unavailable_of,
        random=chance,
    )
    return Core(
        settings=settings,
        clock=clock,
        ids=ids,
        database=database,
        providers=providers,
        flags=source,
        flag_mover=mover,
        override=override,
        flag_watch=FlagWatch(store, values, source=name, seen_by=actor, clock=clock),
        health=health,
        scores=scores,
        appraiser=appraiser,
        score_sharing=ScoreSharing(
            scores,
            store=ScoreLedger(database),
            process=process,
            clock=clock,
            # One half-life for the whole house: what is learned of providers is no single payment's.
            half_life_h=lambda: source.read(FlagContext()).tuning.approval_half_life_h,
        ),
        ledger=ledger,
        journals=journals,
        sender=sender,
        inquirer=inquirer,
        payments=payments,
        planner=planner,
    )


def breaker_settings(settings: Settings) -> BreakerSettings:
    """How circuits judge and recover."""
    usual = BreakerSettings()
    return dataclasses.replace(
        usual,
        minimum_calls=settings.breaker_minimum_calls,
        window_s=settings.breaker_window_seconds,
        window_calls=max(usual.window_calls, settings.breaker_minimum_calls),
        slow_minimum_calls=max(SLOW_MINIMUM_CALLS, settings.breaker_minimum_calls),
        consecutive_failures=settings.breaker_consecutive_failures,
        hanging_at_once=max(LEAST_HANGING_AT_ONCE, math.ceil(settings.calls_at_once / 2)),
        open_wait_s=settings.breaker_open_wait_seconds,
        stage_s=settings.slow_start_seconds / len(usual.stages),
    )


def _fixed(settings: Settings) -> Fixed:
    """The thresholds that do not fit themselves to the provider, because a setting says so."""
    return Fixed(
        settings.breaker_slow_call_seconds,
        settings.breaker_failure_rate,
        {"slow_call_s": "ROUTER_BREAKER_SLOW_CALL_SECONDS", "failure_rate": "ROUTER_BREAKER_FAILURE_RATE"},
    )


def build_providers(settings: Settings) -> Mapping[str, Provider]:
    """The adapters, by name, in the order of PROVIDER_NAMES."""
    pool_size = settings.web_threads + 8
    stripe = StripeProvider(
        api_key=settings.stripe_api_key.get_secret_value(),
        base_url=settings.stripe_base_url,
        pool_size=pool_size,
        webhook_secrets=_several(settings.stripe_webhook_secret),
    )
    adyen = AdyenProvider(
        api_key=settings.adyen_api_key.get_secret_value(),
        merchant_account=settings.adyen_merchant_account,
        base_url=settings.adyen_base_url,
        default_return_url=settings.default_return_url,
        pool_size=pool_size,
        hmac_keys=_several(settings.adyen_hmac_key),
    )
    return {provider.name: provider for provider in cast("tuple[Provider, ...]", (stripe, adyen))}


def _several(secret: SecretStr | None) -> Sequence[str]:
    """One secret, or two while one replaces the other."""
    return [] if secret is None else [each.strip() for each in secret.get_secret_value().split(",")]


def flag_source_name(settings: Settings) -> str:
    """Where the flags come from, as the ledger names it."""
    if settings.launchdarkly_sdk_key is None:
        return file.source_name(settings.flags_path)
    return launchdarkly.source_name(
        settings.launchdarkly_sdk_key.get_secret_value(),
        settings.launchdarkly_stream_uri,
        project=settings.launchdarkly_project,
        environment=settings.launchdarkly_environment,
    )


def build_flags(settings: Settings, store: WatchedStore) -> tuple[FlagSource, FlagMover | None]:
    """LaunchDarkly where there is a key, else the flags file; a mover where there is a way to write."""
    if settings.launchdarkly_sdk_key is not None:
        source = LaunchDarklyFlags(
            settings.launchdarkly_sdk_key.get_secret_value(),
            PROVIDER_NAMES,
            report=_report_flag,
            store=store,
            base_uri=settings.launchdarkly_base_uri,
            stream_uri=settings.launchdarkly_stream_uri,
            events_uri=settings.launchdarkly_events_uri,
        )
        return source, _launchdarkly_mover(settings)
    try:
        added = complete_file(settings.flags_path, PROVIDER_NAMES)
        if added:
            log.info("flags_file", path=str(settings.flags_path), added=added)
    except FlagWriteError as error:
        # A broken file must not stop the service: defaults serve, and /readyz says why.
        log.error("flags_file", cause=str(error))
    return (
        FileFlags(settings.flags_path, PROVIDER_NAMES, report=_report_flag, store=store),
        FileFlagMover(settings.flags_path, PROVIDER_NAMES),
    )


def _launchdarkly_mover(settings: Settings) -> FlagMover | None:
    token, project = settings.launchdarkly_api_token, settings.launchdarkly_project
    if token is None or project is None:
        return None
    return LaunchDarklyMover(
        token.get_secret_value(),
        project=project,
        environment=settings.launchdarkly_environment,
        api_uri=settings.launchdarkly_api_uri,
    )


def _report_flag(wrong: WrongValue) -> None:
    log.error("flag_value_ignored", flag=wrong.key, cause=str(wrong))


# ---------------------------------------------------------------- both


def _add_flag_watch(loops: Loops, core: Core) -> None:
    """What writes down each change of a flag."""
    loops.add(Loop("flag-watch", core.flag_watch.run_once, loops.pause(FLAG_WATCH_INTERVAL_S)))


def _add_health(loops: Loops, core: Core, *, patience: float) -> None:
    """What keeps a process's circuits right: with the ledger, with the other processes, and by itself."""
    health = core.health

    loops.add(Loop("circuits", health.sync_once, lambda: health.wait_for_news(SYNC_INTERVAL_S), health.wake))
    # Not behind the circuits: a transition that cannot be written must not keep an override from being obeyed.
    loops.add(Loop("override", core.override.refresh, loops.pause(SYNC_INTERVAL_S)))
    loops.add(Loop("scores", core.score_sharing.exchange_once, loops.pause(SCORES_INTERVAL_S)))
    loops.add(Loop("counts", health.exchange_once, loops.pause(EXCHANGE_INTERVAL_S)))
    # On a thread of its own: what hangs must be noticed while the ledger hangs too.
    loops.add(Loop("watch", health.watch_once, loops.pause(WATCH_INTERVAL_S)))
    timeouts = Timeouts(core.settings.connect_timeout_seconds, min(PROBE_READ_S, core.settings.read_timeout_seconds))
    probes = ProbeLedger(core.database)
    recovery = Recovery(core.providers, health, probes=probes, timeouts=timeouts, clock=core.clock, patience=patience)
    loops.add(Loop("recovery", recovery.run_once, lambda: recovery.wait_for_news(RECOVERY_INTERVAL_S), recovery.wake))


# ---------------------------------------------------------------- the web


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application, and the thread that keeps its circuits in step with the ledger."""
    settings = settings or load_settings()
    telemetry.configure(settings, process="web")
    core = build(settings, role="web")
    loops = Loops()
    # If no worker probes for twice as long as one would wait, a web process does.
    _add_health(loops, core, patience=2.0)
    _add_flag_watch(loops, core)
    # Before the first request: a process that joins during an outage must not call the broken provider.
    core.health.sync_once()
    core.health.restore()
    core.score_sharing.exchange_once()
    core.override.refresh()
    writer = DecisionWriter(DecisionLedger(core.database))
    loops.add(Loop("decisions", writer.run_once, loops.pause(WRITE_INTERVAL_S)))
    app = web_app(core, writer)
    loops.start()

    def stop() -> None:
        # What the last requests decided is written first, within its own bound: a commit, unless the ledger is away.
        if loops.stop(STOP_LOOPS_WITHIN_S) and writer.flush(FLUSH_WITHIN_S):
            core.close()

    atexit.register(stop)
    app.extensions["pointsman"] = (core, stop)
    return app


def build_decisions(core: Core, writer: DecisionWriter) -> Decisions:
    """What `/v1/decisions` answers with. Raises LedgerUnavailableError."""
    ledger = DecisionLedger(core.database)
    given = _several(core.settings.decision_secret)
    signer = DecisionIds(given or [ledger.secret(DECISION_IDS, secrets.token_urlsafe(32), core.clock.now())])
    return Decisions(
        planner=core.planner,
        health=core.health,
        scores=core.scores,
        ledger=ledger,
        writer=writer,
        signer=signer,
        clock=core.clock,
        ids=core.ids,
    )


def web_app(core: Core, writer: DecisionWriter | None = None) -> Flask:
    """The routes over a core; `writer` keeps decisions, where it runs. Raises LedgerUnavailableError."""
    app = OpenAPI(
        "router",
        info=Info(title="pointsman", version="1", description="A payment failover router that never charges twice."),
        security_schemes={"key": {"type": "http", "scheme": "bearer"}},
        validation_error_model=problems.Problem,
        validation_error_callback=problems.from_validation,
        doc_prefix="/docs",
        static_folder=None,
    )
    provider = cast("DefaultJSONProvider", app.json)
    # The answer reads in the contract's order, and money's signs stay readable.
    provider.sort_keys, provider.ensure_ascii = False, False
    settings = core.settings
    bootstrap = None if settings.api_key is None else settings.api_key.get_secret_value()
    gate.install(app, gate.KeyRing(KeyLedger(core.database).find, bootstrap=bootstrap, clock=core.clock))
    problems.install(app)
    modifications = Modifications(
        ledger=core.ledger,
        journals=core.journals,
        sender=core.sender,
        deadline_s=settings.deadline_seconds,
        clock=core.clock,
    )
    app.register_api(payments_api.blueprint(core.payments, modifications))
    writer = writer or DecisionWriter(DecisionLedger(core.database))
    decisions = build_decisions(core, writer)
    app.register_api(decisions_api.blueprint(decisions))
    app.extensions["pointsman_decisions"] = (decisions, writer)
    app.register_api(events.blueprint())
    app.register_api(attention.blueprint(AttentionLedger(core.database)))
    app.register_api(webhooks.blueprint(core.providers, Inbox(core.database), core.clock))
    app.register_api(webhook_endpoints.blueprint(build_endpoints(core), DeliveryLedger(core.database)))
    circuit_ledger, parked_ledger = CircuitLedger(core.database), ParkedLedger(core.database)
    app.register_api(reports_api.blueprint(Rollups(core.database), DecisionLog(core.database), core.clock))
    app.register_api(
        circuits.blueprint(
            providers=tuple(core.providers),
            health=core.health,
            appraiser=core.appraiser,
            flags=core.flags,
            circuits=circuit_ledger,
            overrides=Overrides(tuple(core.providers), circuit_ledger, clock=core.clock),
            clock=core.clock,
        )
    )
    app.register_api(
        operations.blueprint(
            providers=tuple(core.providers),
            health=core.health,
            flags=core.flags,
            flips=FlipLedger(core.database),
            override=core.override,
            flag_values=FlagValueLedger(core.database),
            circuits=circuit_ledger,
            clock=core.clock,
            ledger_fault=Heartbeat(core.database, process=core.health.actor, clock=core.clock).fault,
            parked=parked_ledger,
            relay_lags=RelayLags(RelayLedger(core.database), core.clock).known,
            webhook_lag=WebhookLag(EndpointLedger(core.database), core.clock).known,
        )
    )
    app.register_api(status.blueprint(providers=tuple(core.providers), health=core.health, flags=core.flags))
    app.register_api(dead_letters.blueprint(parked_ledger, core.clock))
    importer = Importer(core.database, formats(settings), clock=core.clock, ids=core.ids)
    views, settlement_ledger = SettlementViews(core.database), SettlementLedger(core.database)
    app.register_api(settlements.blueprint(importer, views, settlement_ledger, core.clock))
    _document(app)
    app.register_blueprint(console.blueprint(build_console(core)))
    return app


def build_endpoints(core: Core) -> Endpoints:
    """Who manages checkout's webhook endpoints."""
    settings = core.settings
    return Endpoints(
        EndpointLedger(core.database),
        EventFeed(core.database),
        allow_http=settings.webhook_allow_http,
        allowed=settings.webhook_allow_private,
        clock=core.clock,
        ids=core.ids,
    )


def build_console(core: Core) -> Parts:
    """What the console's pages are made from. Raises LedgerUnavailableError."""
    settings, database, clock = core.settings, core.database, core.clock
    ledger = ConsoleLedger(database)
    access = Access(
        ConsoleAccess(database),
        KeyLedger(database),
        secret=DecisionLedger(database).secret(CONSOLE, secrets.token_urlsafe(32), clock.now()),
        bootstrap=None if settings.api_key is None else settings.api_key.get_secret_value(),
        lasts=dt.timedelta(hours=settings.console_session_hours),
        clock=clock,
    )
    return Parts(
        providers=tuple(core.providers),
        access=access,
        ledger=ledger,
        history=History(ledger, clock),
        payment_ledger=core.ledger,
        payments=core.payments,
        health=core.health,
        appraiser=core.appraiser,
        flags=core.flags,
        flips=FlipLedger(database),
        override=core.override,
        flag_values=FlagValueLedger(database),
        circuits=CircuitLedger(database),
        rollups=Rollups(database),
        decision_log=DecisionLog(database),
        clock=clock,
        ids=core.ids,
        https=settings.console_https,
        stand_ins=StandIns(settings.sandbox_control_port) if settings.has_stand_ins else None,
    )


def _document(app: OpenAPI) -> None:
    """`/openapi.json` and `/docs`: generated from the views, refusals as problem documents."""

    document = problems.documented(app.api_doc)

    def openapi() -> Response:
        return jsonify(document)

    def docs() -> BaseResponse:
        return redirect("/docs/swagger")

    app.add_url_rule("/openapi.json", view_func=openapi)
    app.add_url_rule("/docs", view_func=docs)


# ---------------------------------------------------------------- the worker


def create_worker(core: Core) -> Loops:
    """The worker's loops: circuits, recovery, parked payments, notices, doubts, flips, housekeeping, the rollup."""
    loops = Loops()
    _add_health(loops, core, patience=1.0)
    _add_flag_watch(loops, core)
    parked = Parked(
        providers=tuple(core.providers),
        ledger=ParkedLedger(core.database),
        payments=core.payments,
        health=core.health,
        clock=core.clock,
        ids=core.ids,
        # Who finds a provider's places taken is put off, and would wait for a minute where one second is enough.
        at_once=min(core.settings.parked_at_once, core.settings.calls_at_once),
        most_per_s=core.settings.parked_per_second,
        retry_s=core.settings.parked_retry_seconds,
        is_enabled=lambda name: core.flags.read(FlagContext()).is_enabled(name),
        stopping=lambda: loops.stopping,
    )
    loops.add(Loop("parked", parked.run_once, lambda: parked.wait(PARKED_INTERVAL_S), parked.wake))
    resolver = Resolver(
        ledger=core.ledger,
        journals=core.journals,
        sender=core.inquirer,
        providers=core.providers,
        settings=ResolverSettings(core.settings.deadline_seconds, core.settings.resend_max_age_seconds),
        clock=core.clock,
        held_back=core.health.held_back,
    )
    notices = Notices(
        inbox=Inbox(core.database),
        ledger=core.ledger,
        journals=core.journals,
        clock=core.clock,
        resend_max_age_s=core.settings.resend_max_age_seconds,
    )
    loops.add(Loop("notices", notices.run_once, loops.pause(NOTICES_INTERVAL_S)))
    loops.add(Loop("resolver", resolver.run_once, loops.pause(RESOLVE_INTERVAL_S)))
    housekeeping = Housekeeping(
        upkeep=Upkeep(core.database),
        scores=ScoreLedger(core.database),
        decisions=DecisionLedger(core.database),
        deliveries=DeliveryLedger(core.database),
        ledger=core.ledger,
        journals=core.journals,
        sender=core.inquirer,
        providers=core.providers,
        action_expires_s=core.settings.action_expires_seconds,
        deadline_s=core.settings.deadline_seconds,
        clock=core.clock,
        stopping=lambda: loops.stopping,
    )
    loops.add(Loop("housekeeping", housekeeping.run_once, loops.pause(HOUSEKEEPING_INTERVAL_S)))
    rollup = Rollup(Rollups(core.database), core.clock, stopping=lambda: loops.stopping)
    loops.add(Loop("rollup", rollup.run_once, loops.pause(ROLLUP_INTERVAL_S)))
    _add_flips(loops, core)
    _add_kafka(loops, core)
    _add_webhooks_out(loops, core)
    return loops


def _add_webhooks_out(loops: Loops, core: Core) -> None:
    """Telling checkout of its payments: on threads of its own, which wait for strangers' servers."""
    settings = core.settings
    relay = Relay(
        feed=EventFeed(core.database),
        deliveries=DeliveryLedger(core.database),
        post=Poster(allow_http=settings.webhook_allow_http, allowed=settings.webhook_allow_private),
        # A name of its own for every life of a process, so that no lease is taken for another's.
        holder=core.ids.new("webhooks"),
        clock=core.clock,
        ids=core.ids,
        random=random.Random().random,  # noqa: S311 - jitter is no secret
        stopping=lambda: loops.stopping,
    )
    add_lanes(loops, relay)


def _add_flips(loops: Loops, core: Core) -> None:
    """Deciding, which needs the ledger alone, beside writing, which waits for the flag store."""
    settings, chance = core.settings, random.Random().random  # noqa: S311 - jitter is no secret
    if core.flag_mover is None:
        cause = "there is no ROUTER_LAUNCHDARKLY_API_TOKEN with its …_PROJECT: overrides last for their incident"
        log.warning("flags_not_written", cause=cause)
    alert_ledger = AlertLedger(core.database)
    cases = Cases(
        providers=tuple(core.providers),
        health=core.health,
        circuits=CircuitLedger(core.database),
        flips=FlipLedger(core.database),
        alerts=alert_ledger,
        source=core.flags,
        appraiser=core.appraiser,
        clock=core.clock,
        ids=core.ids,
        limits=Limits(settings.flip_cooldown_seconds, settings.flips_per_hour),
        changes=FlagValueLedger(core.database).changes,
    )
    flipper = Flipper(
        cases,
        mover=core.flag_mover,
        flip_after_s=settings.flip_after_seconds,
        restore=settings.flip_restore,
        restore_after_s=settings.flip_restore_after_seconds,
    )
    loops.add(Loop("flips", flipper.run_once, loops.pause(FLIP_INTERVAL_S)))
    # A name of its own for every life of a process, so that no lease is taken for another's.
    writing = FlipWriting(
        cases,
        mover=core.flag_mover,
        holder=core.ids.new("flipper"),
        moves_pins=settings.flip_moves_pins,
        random=chance,
    )
    loops.add(Loop("flip-writing", writing.run_once, loops.pause(FLIP_INTERVAL_S)))
    if settings.alert_webhook_url is not None and settings.alert_webhook_secret is not None:
        post = alerting.webhook(settings.alert_webhook_url.get_secret_value())
        secret = settings.alert_webhook_secret.get_secret_value()
        sender = alerting.AlertSender(alert_ledger, post, secret=secret, clock=core.clock, random=chance)
        loops.add(Loop("alerts", sender.run_once, loops.pause(ALERT_INTERVAL_S)))


def _add_kafka(loops: Loops, core: Core) -> None:
    """The relay of payment events, where a broker is configured; else they wait in the ledger."""
    if core.settings.kafka_bootstrap_servers is None:
        return
    relay = build_kafka_relay(core.settings, core.database, core.clock, core.ids)

    def pause() -> None:
        loops.pause(relay.pause_s)()

    loops.add(Loop("kafka", relay.run_once, pause))


def build_kafka_relay(
    settings: Settings, database: Database, clock: Clock, ids: Ids, *, lease: dt.timedelta = LEASE
) -> KafkaRelay:
    """The relay to the broker that is configured."""
    sink = KafkaProducer(
        producer_config(settings), settings.kafka_topic, content_type=CONTENT_TYPE, monotonic=clock.monotonic
    )
    return KafkaRelay(
        feed=EventFeed(database),
        relays=RelayLedger(database),
        sink=sink,
        alerts=AlertLedger(database),
        # A name of its own for every life of a process; and where to look for it.
        holder=f"{socket.gethostname()}:{os.getpid()}:{ids.new('relay')}",
        alert_after_s=settings.kafka_alert_after_seconds,
        clock=clock,
        ids=ids,
        random=random.Random().random,  # noqa: S311 - jitter is no secret
        lease=lease,
    )
