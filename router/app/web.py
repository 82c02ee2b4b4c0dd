"""The web: routes over a core, and the loops that keep its circuits in step with the ledger."""

from __future__ import annotations

import atexit
import datetime as dt
import functools
import secrets
from typing import cast

from flask import Flask, Response, jsonify, redirect
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from werkzeug.wrappers import Response as BaseResponse

from router.api import (
    attention,
    circuits,
    events,
    gate,
    metrics,
    operations,
    problems,
    request_ids,
    settlements,
    status,
    webhook_endpoints,
    webhooks,
)
from router.api import decisions as decisions_api
from router.api import keys as keys_api
from router.api import parked as dead_letters
from router.api import payments as payments_api
from router.api import reports as reports_api
from router.api.key_ring import KeyRing
from router.api.places import SPARE_THREADS, Places
from router.api.quick import DecisionDoor, PaymentDoor, QuickDoors
from router.app.core import Core, build, several
from router.app.limiting import add_limits, build_guard
from router.app.loops import add_flag_watch, add_health, add_keys
from router.console import blueprint as console
from router.console.access import Access
from router.console.history import History
from router.console.parts import Parts
from router.console.stand_ins import StandIns
from router.decision_ids import DecisionIds
from router.decision_writing import WRITE_INTERVAL_S, DecisionWriter
from router.decisions import Decisions
from router.key_keeping import ApiKeys
from router.ledger.attention import AttentionLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.console import ConsoleLedger
from router.ledger.console_access import ConsoleAccess
from router.ledger.console_circuits import CircuitStory
from router.ledger.console_settlements import SettlementSummaries
from router.ledger.decision_log import DecisionLog
from router.ledger.decisions import DecisionLedger
from router.ledger.event_feed import EventFeed
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger
from router.ledger.heartbeat import Heartbeat
from router.ledger.inbox import Inbox
from router.ledger.keys import Caller, KeyLedger
from router.ledger.parked import ParkedLedger
from router.ledger.relays import RelayLedger
from router.ledger.rollups import Rollups
from router.ledger.settlement_views import SettlementViews
from router.ledger.settlements import SettlementLedger
from router.ledger.webhook_deliveries import DeliveryLedger
from router.ledger.webhook_endpoints import EndpointLedger
from router.loops import Loop, Loops
from router.measuring.ledger_state import LedgerState, StateReader
from router.measuring.observers import answered, count_requests
from router.modifications import Modifications
from router.overrides import Overrides
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer
from router.relay_lags import RelayLags, WebhookLag
from router.settings import Settings, load_settings
from router.slow_bodies import SlowBodies
from router.telemetry import logs
from router.webhooks_out_endpoints import Endpoints

STOP_LOOPS_WITHIN_S = 1.0
"""The web's one loop is a few milliseconds a round."""
FLUSH_WITHIN_S = 2.0
"""A commit of the last decisions; longer than that, and the ledger is away."""
CONSOLE = "console"
"""The ledger's name of the secret that the console's cookies are signed with."""
DECISION_IDS = "decision-ids"
"""The ledger's name of the secret that it keeps where no setting gives one."""


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application, and the thread that keeps its circuits in step with the ledger."""
    settings = settings or load_settings()
    logs.configure(settings, process="web")
    core = build(settings, role="web")
    loops = Loops(core.measuring.round_ended)
    # If no worker probes for twice as long as one would wait, a web process does.
    add_health(loops, core, patience=2.0)
    add_flag_watch(loops, core)
    add_keys(loops, core)
    # Before the first request: a process that joins during an outage must not call the broken provider.
    core.health.sync_once()
    core.health.restore()
    core.score_sharing.exchange_once()
    core.override.refresh()
    core.accounts.refresh()
    writer = DecisionWriter(DecisionLedger(core.database))
    loops.add(Loop("decisions", writer.run_once, loops.pause(WRITE_INTERVAL_S)))
    app = web_app(core, writer)
    add_limits(loops, core, *app.extensions["pointsman_limits"])
    places = Places(app.wsgi_app, settings.web_threads, lambda: core.measuring.refused("overloaded"))
    app.wsgi_app = places  # type: ignore[method-assign]  # Flask's own way to put something in front
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
    given = several(core.settings.decision_secret)
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
    request_ids.install(app, core.ids, core.clock.monotonic)
    if core.tracing is not None:
        core.tracing.install(app)
    key_ledger = KeyLedger(core.database)
    ring = KeyRing(lambda key: key_ledger.find(key, core.clock.now()), bootstrap=bootstrap, clock=core.clock)
    guard = build_guard(settings, core.clock, refused=core.measuring.refused)
    gate.install(app, ring, guard)
    app.extensions["pointsman_limits"] = (ring, guard)
    problems.install(app)
    modifications = Modifications(
        ledger=core.ledger,
        journals=core.journals,
        sender=core.sender,
        deadline_s=settings.deadline_seconds,
        clock=core.clock,
    )
    app.register_api(payments_api.blueprint(core.payments, modifications, guard))
    writer = writer or DecisionWriter(DecisionLedger(core.database))
    decisions = build_decisions(core, writer)
    app.register_api(decisions_api.blueprint(decisions))
    app.extensions["pointsman_decisions"] = (decisions, writer)
    if core.tracing is None:  # a trace begins in Flask's own hooks

        def allowed(caller: Caller) -> bool:
            return guard.request(caller.key_id, "make") is None

        quick = QuickDoors(
            app.wsgi_app,
            {
                "/v1/decisions": DecisionDoor(decisions, allowed),
                "/v1/payments": PaymentDoor(core.payments, guard, allowed),
            },
            keys=ring,
            answered=functools.partial(answered, core.measuring.catalogue),
            ids=core.ids,
        )
        app.extensions["pointsman_quick"] = quick
        app.wsgi_app = quick  # type: ignore[method-assign]  # as Flask's documentation has it
    # In front of whatever reads bodies.
    app.wsgi_app = SlowBodies(app.wsgi_app, threads=settings.web_threads + SPARE_THREADS)  # type: ignore[method-assign]  # Flask's own way
    app.register_api(events.blueprint())
    app.register_api(attention.blueprint(AttentionLedger(core.database)))
    app.register_api(webhooks.blueprint(core.providers, Inbox(core.database), core.clock))
    app.register_api(webhook_endpoints.blueprint(build_endpoints(core), DeliveryLedger(core.database)))
    keeping = ApiKeys(key_ledger, clock=core.clock, below=secrets.randbelow)
    app.register_api(keys_api.blueprint(keeping, core.clock))
    circuit_ledger, parked_ledger = CircuitLedger(core.database), ParkedLedger(core.database)
    app.register_api(reports_api.blueprint(Rollups(core.database), DecisionLog(core.database), core.clock))
    app.register_api(
        circuits.blueprint(
            providers=tuple(core.providers),
            health=core.health,
            appraiser=core.appraiser,
            flags=core.flags,
            circuits=circuit_ledger,
            accounts=core.accounts,
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
            sealing=core.keys.health,
        )
    )
    app.register_api(build_metrics(core))
    app.register_api(status.blueprint(providers=tuple(core.providers), health=core.health, flags=core.flags))
    app.register_api(dead_letters.blueprint(parked_ledger, core.clock))
    importer = Importer(core.database, formats(settings), clock=core.clock, ids=core.ids)
    views, settlement_ledger = SettlementViews(core.database), SettlementLedger(core.database)
    app.register_api(settlements.blueprint(importer, views, settlement_ledger, core.clock))
    _document(app)
    count_requests(app, core.measuring.catalogue)
    app.register_blueprint(console.blueprint(build_console(core, importer)))
    return app


def build_metrics(core: Core) -> APIBlueprint:
    """The figures of this machine's processes, and what the ledger knows."""
    state = LedgerState(StateReader(core.database, core.clock, core.providers).read, core.clock)
    token = core.settings.metrics_token

    def page() -> bytes:
        core.sampler.run_once()
        return core.measuring.page(state.collect)

    return metrics.blueprint(page, token=None if token is None else token.get_secret_value())


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


def build_console(core: Core, importer: Importer) -> Parts:
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
        circuit_story=CircuitStory(database),
        rollups=Rollups(database),
        decision_log=DecisionLog(database),
        importer=importer,
        settlements=SettlementLedger(database),
        settlement_views=SettlementViews(database),
        settlement_summaries=SettlementSummaries(database),
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
