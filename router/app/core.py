"""What every process needs, built from the settings: adapters, flags, ledger, circuits, and payments over them."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import math
import os
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import structlog
from pydantic import SecretStr

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
from providers.contract import Provider
from providers.stripe import StripeProvider
from router.accounts import Accounts
from router.appraisal import Appraiser
from router.baseline import Fixed
from router.breaker import BreakerSettings
from router.clock import Clock, Ids, SystemClock, TimeOrderedIds
from router.encryption_keys import EncryptionKeys
from router.fee_book import fee_book
from router.fee_learning import FeeLessons
from router.flag_watch import FlagWatch
from router.fleet import FleetCounts
from router.health import ProviderHealth
from router.learning import Lessons
from router.ledger import event_clock
from router.ledger.accounts import AccountLedger
from router.ledger.actual_fees import ActualFees
from router.ledger.cards import CardLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.counts import CountLedger
from router.ledger.engine import KEPT_BY_A_WORKER, KEPT_CONNECTIONS, Database
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger
from router.ledger.journal import Journals
from router.ledger.migrate import migrate
from router.ledger.payments import PaymentLedger
from router.ledger.scores import ScoreLedger
from router.local_override import LocalOverride
from router.measuring.observers import Committed, LedgerTimes, timed
from router.measuring.process import Measuring
from router.measuring.sampling import Sampler, pools
from router.payments import Payments, PaymentSettings
from router.planning import Planner
from router.score_sharing import ScoreSharing
from router.scores import Scores
from router.sending import Sender, SendTimes
from router.settings import PROVIDER_NAMES, Settings
from router.telemetry import traces
from router.telemetry.traces import Tracing

log = structlog.get_logger("router.app")

SLOW_MINIMUM_CALLS = 20
"""A healthy provider whose neighbouring calls hang together opened in 0.8% of fresh windows at 10, in 0.08% at 20."""
LEAST_HANGING_AT_ONCE = 3
"""Calls that hang at one moment and open a circuit, where half of a provider's places are fewer: two are bad luck."""


@dataclass(frozen=True, slots=True)
class Core:
    """What the web and the worker share, each with its own."""

    settings: Settings
    clock: Clock
    ids: Ids
    measuring: Measuring
    sampler: Sampler
    database: Database
    keys: EncryptionKeys
    providers: Mapping[str, Provider]
    flags: FlagSource
    flag_mover: FlagMover | None
    """None: flags come from LaunchDarkly, and there is no token to write with."""
    override: LocalOverride
    flag_watch: FlagWatch
    accounts: Accounts
    health: ProviderHealth
    scores: Scores
    appraiser: Appraiser
    fee_lessons: FeeLessons
    score_sharing: ScoreSharing
    ledger: PaymentLedger
    journals: Journals
    sender: Sender
    """What checkout asks for."""
    inquirer: Sender
    """What a worker does by itself: it leaves a provider whose circuit is open to the probes."""
    payments: Payments
    planner: Planner
    tracing: Tracing | None = None
    """None: no payment is traced."""

    def close(self) -> None:
        """Let go of connections and threads, within bounds; to be called when the loops have stopped."""
        with contextlib.suppress(Exception):  # a second's answers: not worth a stop that fails
            self.score_sharing.tell()
        self.flags.close()
        if self.flag_mover is not None:
            self.flag_mover.close()
        for provider in self.providers.values():
            provider.close()
        self.keys.leave()
        self.database.close()
        if self.tracing is not None:
            self.tracing.close()
        self.measuring.close()


def build(settings: Settings, *, role: str, clock: Clock | None = None, ids: Ids | None = None) -> Core:
    """Everything that a payment needs, from the settings. Raises LedgerUnavailableError, SettingsError."""
    clock = clock or SystemClock()
    ids = ids or TimeOrderedIds(clock)
    fees = fee_book(settings, clock.now().date())
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    measuring = Measuring(settings.run_dir, PROVIDER_NAMES, life=ids.new(role))
    counted = measuring.catalogue
    times = LedgerTimes(counted)
    kept = KEPT_BY_A_WORKER if role == "worker" else KEPT_CONNECTIONS
    database = Database(settings.ledger_url, pool_size=settings.web_threads + 8, kept=kept, times=times)
    migrate(database)
    event_clock.settle(database)
    tracing = traces.start(settings, process=role)
    actor = f"{role}:{socket.gethostname()}:{os.getpid()}"
    keys = EncryptionKeys(settings, database, process=actor, clock=clock, ids=ids)
    adapters = build_providers(settings)
    providers = timed(adapters, counted)
    if tracing is not None:
        providers = tracing.providers(providers)
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
    fee_lessons = FeeLessons(
        providers, fees=ActualFees(database), book=fees, clock=clock, country_of=settings.country_of
    )
    appraiser = Appraiser(providers, scores=scores, fees=fees, country_of=settings.country_of, learned=fee_lessons)
    # A name of its own for every life of a process: counts of one that is gone are never taken for another's.
    process = ids.new(role)
    margin = dt.timedelta(seconds=settings.account_margin_seconds)
    accounts = Accounts(AccountLedger(database).known, margin=margin, clock=clock)
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
        restricted=accounts.restriction,
        turned_away=lambda provider: counted.places_refused.of(provider).add(1.0),
    )
    ledger = PaymentLedger(database)
    if tracing is not None:
        tracing.watch_ledger(ledger)
    committed = Committed(counted, Lessons(scores, clock).heard)
    journals = Journals(
        ledger,
        deadline_s=settings.deadline_seconds,
        margin_s=settings.lease_margin_seconds,
        clock=clock,
        ids=ids,
        heard=committed.attempts,
        watched=committed.payment,
    )
    send_times = SendTimes(settings.connect_timeout_seconds, settings.read_timeout_seconds)
    chance = random.Random().random  # noqa: S311 - neither jitter nor a provider's share is a secret
    params_of, operating, finding_out = ledger.params_of, health.operating, health.finding_out
    sender = Sender(providers, send_times, clock=clock, random=chance, operating=operating, params_of=params_of)
    inquirer = Sender(providers, send_times, clock=clock, random=chance, operating=finding_out, params_of=params_of)
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
        timed=counted.deciding.of().observe,
    )
    if tracing is not None:
        tracing.watch_planner(planner)
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
    sampler = Sampler(
        counted,
        role=role,
        flags=source,
        flag_source="file" if settings.launchdarkly_sdk_key is None else "launchdarkly",
        health=health,
        database=database,
        http_pools=pools(adapters.items()),
        web_threads=settings.web_threads if role == "web" else 0,
        clock=clock,
    )
    return Core(
        settings=settings,
        clock=clock,
        ids=ids,
        measuring=measuring,
        sampler=sampler,
        database=database,
        keys=keys,
        providers=providers,
        flags=source,
        flag_mover=mover,
        override=override,
        flag_watch=FlagWatch(store, values, source=name, seen_by=actor, clock=clock),
        accounts=accounts,
        health=health,
        scores=scores,
        appraiser=appraiser,
        fee_lessons=fee_lessons,
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
        tracing=tracing,
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
        webhook_secrets=several(settings.stripe_webhook_secret),
    )
    adyen = AdyenProvider(
        api_key=settings.adyen_api_key.get_secret_value(),
        merchant_account=settings.adyen_merchant_account,
        base_url=settings.adyen_base_url,
        default_return_url=settings.default_return_url,
        management_url=settings.adyen_management_url,
        pool_size=pool_size,
        hmac_keys=several(settings.adyen_hmac_key),
    )
    return {provider.name: provider for provider in cast("tuple[Provider, ...]", (stripe, adyen))}


def several(secret: SecretStr | None) -> Sequence[str]:
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
