"""`pointsman run`: everything on one machine, with stand-in providers and a little traffic."""

from __future__ import annotations

import math
import os
import random
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from providers.sandbox.server import SANDBOX_ADYEN_HMAC_KEY, SANDBOX_STRIPE_WEBHOOK_SECRET
from router.clock import Clock, SystemClock, TimeOrderedIds
from router.demo import DemoTraffic
from router.key_file import FILE, KeyFile
from router.sealing import new_key
from router.settings import LOOPBACK, PREFIX, Settings
from router.supervisor import Child, Supervisor, wait_until_ready

READY_WITHIN_S = 30.0


def launch(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Run until Ctrl-C. Raises AlreadyRunningError when this run directory is in use."""
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = _api_key(settings)
    urls = _provider_urls(settings)
    # Somebody's real provider must never be sent synthetic payments.
    pretend = all(urlsplit(url).hostname in LOOPBACK for url in urls.values())
    env = {
        f"{PREFIX}API_KEY": key,
        f"{PREFIX}RUN_DIR": str(settings.run_dir.resolve()),
        f"{PREFIX}LOG_FORMAT": settings.log_format if "log_format" in settings.model_fields_set else "text",
        # Ctrl-C promises to be done within five seconds.
        f"{PREFIX}DRAIN_SECONDS": "3",
        **urls,
        **_encryption_keys(settings),
        **(webhook_environment(settings) if pretend else {}),
        **({f"{PREFIX}CONSOLE_SANDBOX": "true", **_management(settings, urls)} if pretend else {}),
    }
    roles = ["sandbox", "web", "worker"] if pretend else ["web", "worker"]
    children = [Child(role, [sys.executable, "-m", "router", role], env) for role in roles]
    clock = SystemClock()
    supervisor = Supervisor(children, run_dir=settings.run_dir, clock=clock, say=say)

    def accompany() -> None:
        base_url = f"http://{settings.bind}"
        if not _becomes_ready(f"{base_url}/readyz", clock, supervisor.stopping, say=say):
            return
        _introduce(settings, base_url, key, pretend=pretend, say=say)
        if pretend:
            traffic = DemoTraffic(
                base_url=base_url,
                api_key=key,
                per_second=settings.demo_traffic_per_second,
                say=say,
                clock=clock,
                ids=TimeOrderedIds(clock),
                rng=random.Random(),  # noqa: S311 - which synthetic amount comes next is no secret
            )
            traffic.run(supervisor.stopping)

    threading.Thread(target=accompany, name="accompany", daemon=True).start()
    supervisor.run()


def _becomes_ready(url: str, clock: Clock, stopping: threading.Event, *, say: Callable[[str], None]) -> bool:
    """Whether it did before it was stopped. A machine that is slow is told of, and not given up."""
    if wait_until_ready(url, clock, READY_WITHIN_S, stopping):
        return True
    if not stopping.is_set():
        say(f"the router is not ready after {READY_WITHIN_S:.0f} s (its log says why); addresses follow when it is")
    return wait_until_ready(url, clock, math.inf, stopping)


def _provider_urls(settings: Settings) -> Mapping[str, str]:
    """Where the providers are: as set, or else the sandbox's ports."""
    urls = {"stripe_base_url": settings.stripe_base_url, "adyen_base_url": settings.adyen_base_url}
    ports = {"stripe_base_url": settings.sandbox_stripe_port, "adyen_base_url": settings.sandbox_adyen_port}
    return {
        f"{PREFIX}{name.upper()}": url if name in settings.model_fields_set else f"http://127.0.0.1:{ports[name]}"
        for name, url in urls.items()
    }


def _management(settings: Settings, urls: Mapping[str, str]) -> Mapping[str, str]:
    """Where the stand-in Adyen tells of its merchant account."""
    name = f"{PREFIX}ADYEN_MANAGEMENT_URL"
    return {name: settings.adyen_management_url or f"{urls[f'{PREFIX}ADYEN_BASE_URL']}/v3"}


def webhook_environment(settings: Settings) -> Mapping[str, str]:
    """The stand-in providers tell this router, and it believes them.

    For stand-ins only: the sandbox's secrets are public, so anybody could sign a real provider's notices with them.
    """
    stripe, adyen = settings.stripe_webhook_secret, settings.adyen_hmac_key
    return {
        f"{PREFIX}STRIPE_WEBHOOK_SECRET": stripe.get_secret_value() if stripe else SANDBOX_STRIPE_WEBHOOK_SECRET,
        f"{PREFIX}ADYEN_HMAC_KEY": adyen.get_secret_value() if adyen else SANDBOX_ADYEN_HMAC_KEY,
        f"{PREFIX}SANDBOX_STRIPE_WEBHOOK_URL": settings.sandbox_stripe_webhook_url
        or f"http://{settings.bind}/webhooks/stripe",
        f"{PREFIX}SANDBOX_ADYEN_WEBHOOK_URL": settings.sandbox_adyen_webhook_url
        or f"http://{settings.bind}/webhooks/adyen",
    }


def _api_key(settings: Settings) -> str:
    """The bootstrap key: as set, or one made for this run directory and kept in it."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    path = settings.run_dir / "api-key"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"pm_local_{secrets.token_urlsafe(24)}")
    return Path(path).read_text().strip()


def _encryption_keys(settings: Settings) -> Mapping[str, str]:
    """Everything is on this machine, so a key in its run directory will do, whatever the ledger is."""
    if settings.encryption_keys is not None or settings.encryption_keys_file is not None or settings.seal == "off":
        return {}
    file = KeyFile(settings.run_dir.resolve() / FILE)
    if file.mark() is None:
        file.write([new_key()], new=True)
    return {f"{PREFIX}ENCRYPTION_KEYS_FILE": str(file.path)}


def _introduce(settings: Settings, base_url: str, key: str, *, pretend: bool, say: Callable[[str], None]) -> None:
    where = "key as set" if settings.api_key is not None else f"key in {settings.run_dir / 'api-key'}"
    # One that was set is somebody's, and what is said here ends up in a log.
    shown = f"${PREFIX}API_KEY" if settings.api_key is not None else key
    command = Path(sys.executable).with_name("pointsman")
    say("")
    say(f"console   {base_url}/console   log in with the {where}, or set a password: {command} console password")
    say(f"router    {base_url}   API {base_url}/docs   {where}")
    if pretend:
        control = f"http://127.0.0.1:{settings.sandbox_control_port}"
        say(f"sandbox   control {control}/control/stripe and {control}/control/adyen")
        say(f"flags     {settings.flags_path}   {command} flags set payments-primary-provider adyen")
    say("")
    say("pay:")
    say(
        f'curl -i {base_url}/v1/payments -H "Authorization: Bearer {shown}" \\\n'
        "  -H \"Idempotency-Key: $(date +%s)-$$\" -H 'Content-Type: application/json' \\\n"
        '  -d \'{"reference": "ORD-\'$(date +%s)-$$\'", "amount": 1999, "currency": "EUR",'
        ' "payment_method": {"type": "card",'
        ' "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"},'
        ' "card": {"brand": "visa", "country": "DE"}},'
        ' "customer": {"id": "cus_1", "country": "DE"}, "return_url": "https://shop.example/return"}\''
    )
    if pretend:
        say("break Stripe, and mend it:")
        say(f'curl -X PUT {control}/control/stripe -d \'{{"mode": "down"}}\'')
        say(f'curl -X PUT {control}/control/stripe -d \'{{"mode": "ok"}}\'')
    say("")
