"""The loops: those of every process, and the worker's."""

from __future__ import annotations

import datetime as dt
import os
import random
import socket
from collections.abc import Callable
from typing import Any

import structlog

from flags.contract import FlagContext
from providers.contract import Timeouts
from router import alerts as alerting
from router import heap
from router.account_watch import AccountWatch
from router.app.core import Core
from router.clock import Clock, Ids
from router.encryption_keys import LOOKED_AT_EVERY_S
from router.events import CONTENT_TYPE
from router.fee_learning import INTERVAL_S as FEES_INTERVAL_S
from router.flip_cases import Cases
from router.flip_rules import Limits
from router.flip_writing import FlipWriting
from router.flipper import Flipper
from router.health import EXCHANGE_INTERVAL_S, SYNC_INTERVAL_S, WATCH_INTERVAL_S
from router.housekeeping import Housekeeping
from router.kafka_producer import KafkaProducer, producer_config
from router.kafka_relay import LEASE, KafkaRelay
from router.ledger.accounts import AccountLedger
from router.ledger.alerts import AlertLedger
from router.ledger.circuits import CircuitLedger
from router.ledger.decisions import DecisionLedger
from router.ledger.engine import Database
from router.ledger.event_feed import EventFeed
from router.ledger.flag_values import FlagValueLedger
from router.ledger.flips import FlipLedger
from router.ledger.inbox import Inbox
from router.ledger.merchant_volumes import MerchantVolumes
from router.ledger.parked import ParkedLedger
from router.ledger.probes import ProbeLedger
from router.ledger.relays import RelayLedger
from router.ledger.rollups import Rollups
from router.ledger.scores import ScoreLedger
from router.ledger.upkeep import Upkeep
from router.ledger.webhook_deliveries import DeliveryLedger
from router.loops import Loop, Loops
from router.measuring.sampling import SAMPLE_INTERVAL_S
from router.notices import Notices
from router.parked import Parked
from router.recovery import Recovery
from router.reports.rollup import Rollup
from router.resolver import Resolver, ResolverSettings
from router.score_sharing import EXCHANGE_INTERVAL_S as SCORES_INTERVAL_S
from router.settings import Settings
from router.volumes import Volumes
from router.webhooks_out import Relay
from router.webhooks_out_lanes import add_lanes
from router.webhooks_out_post import Poster

log = structlog.get_logger("router.app")

PROBE_READ_S = 5.0
"""A probe is one small question: a provider that takes longer for it has not recovered."""
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
ACCOUNTS_INTERVAL_S = 5.0
"""What a worker learns of a provider's account is minutes old as it is."""
HOUSEKEEPING_INTERVAL_S = 10.0
VOLUMES_INTERVAL_S = 20.0
ROLLUP_INTERVAL_S = 1.0
"""What a report is behind at most, while a worker runs; a round with nothing new only reads."""


def add_flag_watch(loops: Loops, core: Core) -> None:
    """What writes down each change of a flag."""
    loops.add(Loop("flag-watch", core.flag_watch.run_once, loops.pause(FLAG_WATCH_INTERVAL_S)))


def add_keys(loops: Loops, core: Core) -> None:
    """What follows the encryption keys."""
    loops.add(Loop("keys", core.keys.run_once, loops.pause(LOOKED_AT_EVERY_S)))


def add_health(loops: Loops, core: Core, *, patience: float) -> None:
    """What keeps a process's circuits right: with the ledger, with the other processes, and by itself."""
    health = core.health

    loops.add(Loop("circuits", health.sync_once, lambda: health.wait_for_news(SYNC_INTERVAL_S), health.wake))
    # Not behind the circuits: a transition that cannot be written must not keep an override from being obeyed.
    loops.add(Loop("override", core.override.refresh, loops.pause(SYNC_INTERVAL_S)))
    loops.add(Loop("scores", core.score_sharing.exchange_once, loops.pause(SCORES_INTERVAL_S)))
    loops.add(Loop("fees", core.fee_lessons.run_once, loops.pause(FEES_INTERVAL_S)))
    loops.add(Loop("counts", health.exchange_once, loops.pause(EXCHANGE_INTERVAL_S)))
    loops.add(Loop("sampling", core.sampler.run_once, loops.pause(SAMPLE_INTERVAL_S)))
    loops.add(Loop("heap", heap.trim, loops.pause(heap.TRIM_INTERVAL_S)))
    # On a thread of its own: what hangs must be noticed while the ledger hangs too.
    loops.add(Loop("watch", health.watch_once, loops.pause(WATCH_INTERVAL_S)))
    loops.add(Loop("accounts", core.accounts.refresh, loops.pause(ACCOUNTS_INTERVAL_S)))
    timeouts = Timeouts(core.settings.connect_timeout_seconds, min(PROBE_READ_S, core.settings.read_timeout_seconds))
    probes = ProbeLedger(core.database)
    recovery = Recovery(core.providers, health, probes=probes, timeouts=timeouts, clock=core.clock, patience=patience)
    loops.add(Loop("recovery", recovery.run_once, lambda: recovery.wait_for_news(RECOVERY_INTERVAL_S), recovery.wake))


def create_worker(core: Core) -> Loops:
    """The worker's loops: circuits, recovery, parked payments, notices, doubts, flips, housekeeping, the rollup."""
    loops = Loops(core.measuring.round_ended)
    add_health(loops, core, patience=1.0)
    add_flag_watch(loops, core)
    add_keys(loops, core)
    parked = build_parked(core, stopping=lambda: loops.stopping)
    loops.add(Loop("parked", parked.run_once, lambda: parked.wait(PARKED_INTERVAL_S), parked.wake))
    resolver, notices = build_resolver(core), build_notices(core)
    loops.add(Loop("notices", notices.run_once, loops.pause(NOTICES_INTERVAL_S)))
    loops.add(Loop("resolver", resolver.run_once, loops.pause(RESOLVE_INTERVAL_S)))
    housekeeping = build_housekeeping(core, stopping=lambda: loops.stopping)
    loops.add(Loop("housekeeping", housekeeping.run_once, loops.pause(HOUSEKEEPING_INTERVAL_S)))
    watch = AccountWatch(
        core.providers,
        AccountLedger(core.database),
        every_s=core.settings.account_check_seconds,
        timeouts=Timeouts(core.settings.connect_timeout_seconds, core.settings.read_timeout_seconds),
        clock=core.clock,
        ids=core.ids,
    )
    loops.add(Loop("account-watch", watch.run_once, loops.pause(ACCOUNTS_INTERVAL_S)))
    rollup = Rollup(Rollups(core.database), core.clock, stopping=lambda: loops.stopping)
    loops.add(Loop("rollup", rollup.run_once, loops.pause(ROLLUP_INTERVAL_S)))
    loops.add(
        Loop("volumes", Volumes(MerchantVolumes(core.database), core.clock).run_once, loops.pause(VOLUMES_INTERVAL_S))
    )
    _add_flips(loops, core)
    _add_kafka(loops, core)
    _add_webhooks_out(loops, core)
    return loops


def build_parked(core: Core, **more: Any) -> Parked:
    """The loop over parked payments; `more` as `Parked` has it."""
    return Parked(
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
        **more,
    )


def build_resolver(core: Core) -> Resolver:
    """The loop over payments in doubt."""
    return Resolver(
        ledger=core.ledger,
        journals=core.journals,
        sender=core.inquirer,
        providers=core.providers,
        settings=ResolverSettings(core.settings.deadline_seconds, core.settings.resend_max_age_seconds),
        clock=core.clock,
        held_back=core.health.held_back,
    )


def build_notices(core: Core) -> Notices:
    """The loop over the inbox."""
    return Notices(
        inbox=Inbox(core.database),
        ledger=core.ledger,
        journals=core.journals,
        clock=core.clock,
        resend_max_age_s=core.settings.resend_max_age_seconds,
    )


def build_housekeeping(core: Core, *, stopping: Callable[[], bool] = lambda: False) -> Housekeeping:
    """The loop over what is old."""
    return Housekeeping(
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
        stopping=stopping,
    )


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
