"""The sandbox as a whole: three ports (Stripe, Adyen, control) on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from providers.sandbox.adyen_notices import AdyenNotices
from providers.sandbox.adyen_wire import AdyenWire
from providers.sandbox.books import Books, Event
from providers.sandbox.control import Control
from providers.sandbox.faults import Faults
from providers.sandbox.http import ListeningPort, PortTaken
from providers.sandbox.standin import StandIn
from providers.sandbox.stripe_events import StripeEvents
from providers.sandbox.stripe_wire import StripeWire
from providers.sandbox.webhook_settings import checked_url
from providers.sandbox.webhooks import Webhooks

SANDBOX_STRIPE_WEBHOOK_SECRET = "whsec_sandbox"  # noqa: S105 - the sandbox's, for tests and local runs
SANDBOX_ADYEN_HMAC_KEY = "5A4DB0C5E7F1962D3B8A40C19E6F7D2158B3C4A69F0E1D7281A5F6B3C2D4E890"
WEBHOOK_DELAY_MS = 50  # webhooks come after the answer, as a rule; 0 lets them race it
CALL_TIMEOUT_S = 5.0  # an order to the sandbox's thread takes microseconds; more means that it died


class Sandbox:
    """Stand-in Stripe and Adyen servers and their control port (design §9).

    `port=0` takes a free one. `clock` gives Unix seconds, `seed` fixes which calls a `rate` below 1 hits. `on_event`
    is called, on the sandbox's thread, with everything a provider tells by webhook. Webhooks are sent to the URLs,
    where given (also later, by the control port), signed with the vendor's secret; the HMAC key is hexadecimal.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        stripe_port: int = 8091,
        adyen_port: int = 8092,
        control_port: int = 8090,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
        stripe_webhook_url: str | None = None,
        adyen_webhook_url: str | None = None,
        stripe_webhook_secret: str = SANDBOX_STRIPE_WEBHOOK_SECRET,
        adyen_hmac_key: str = SANDBOX_ADYEN_HMAC_KEY,
        webhook_delay_ms: int = WEBHOOK_DELAY_MS,
    ) -> None:
        self._ports = {
            "stripe": ListeningPort("stripe", host, stripe_port),
            "adyen": ListeningPort("adyen", host, adyen_port),
            "control": ListeningPort("control", host, control_port),
        }
        self._clock = clock
        self._seed = seed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._control: Control | None = None
        self.on_event: list[Callable[[Event], None]] = []
        self._webhooks = {
            "stripe": Webhooks(
                StripeEvents(stripe_webhook_secret, clock),
                url=checked_url("stripe_webhook_url", stripe_webhook_url),
                delay_ms=webhook_delay_ms,
                seed=seed,
            ),
            "adyen": Webhooks(
                AdyenNotices(adyen_hmac_key, clock),
                url=checked_url("adyen_webhook_url", adyen_webhook_url),
                delay_ms=webhook_delay_ms,
                seed=seed,
            ),
        }

    @property
    def stripe_url(self) -> str:
        """`http://host:port` of the stand-in Stripe."""
        return self._ports["stripe"].url

    @property
    def adyen_url(self) -> str:
        """`http://host:port` of the stand-in Adyen; a `/checkout` or `/v72` prefix may follow."""
        return self._ports["adyen"].url

    @property
    def control_url(self) -> str:
        """`http://host:port` of the control calls."""
        return self._ports["control"].url

    def start(self) -> None:
        """Start the thread; all ports listen when it returns. Raises PortTaken, in one line."""
        if self._thread is not None:
            raise RuntimeError("this sandbox was started already")
        try:
            for port in self._ports.values():
                port.reserve()
        except PortTaken:
            for port in self._ports.values():
                port.release()
            raise
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="sandbox", daemon=True)
        self._thread.start()
        try:
            self._call(self._open())
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the ports and end the thread; does nothing where it does not run."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._call(self._close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CALL_TIMEOUT_S)
        self._loop = self._thread = None

    def reset(self) -> None:
        """All well, books empty, counters zero, ports up, hung requests aborted; effective when it returns."""
        assert self._control is not None, "the sandbox is not running"
        self._call(self._control.reset())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_forever()
        loop.close()

    async def _open(self) -> None:
        webhooks, ports = self._webhooks, self._ports
        stripe_books = Books("stripe", self._clock, on_event=[webhooks["stripe"].take, self._tell])
        adyen_books = Books("adyen", self._clock, on_event=[webhooks["adyen"].take, self._tell])
        stripe = StripeWire(stripe_books, clock=self._clock, base_url=self.stripe_url)
        adyen = AdyenWire(adyen_books, base_url=self.adyen_url)
        providers = {
            "stripe": StandIn("stripe", ports["stripe"], stripe, Faults(self._seed), webhooks["stripe"]),
            "adyen": StandIn("adyen", ports["adyen"], adyen, Faults(self._seed), webhooks["adyen"]),
        }
        self._control = Control(providers)
        for provider in providers.values():
            await provider.webhooks.reset()
            await provider.apply()
        await self._ports["control"].listen(self._control.handle)

    def _tell(self, event: Event) -> None:
        for listener in self.on_event:
            listener(event)

    async def _close(self) -> None:
        for webhooks in self._webhooks.values():
            await webhooks.stop()
        for port in self._ports.values():
            port.release()
        await asyncio.sleep(0)  # transports finish closing in the loop's next round


def serve(
    *,
    host: str = "127.0.0.1",
    stripe_port: int = 8091,
    adyen_port: int = 8092,
    control_port: int = 8090,
    seed: int | None = None,
    announce: Callable[[str], None] | None = None,
    **webhooks: Any,
) -> int:
    """Run until SIGTERM or SIGINT (main thread only); returns the exit code: 0, or 1 where a port is taken.

    `webhooks` are those of Sandbox: its URLs, secrets and delay.
    """
    sandbox = Sandbox(
        host=host,
        stripe_port=stripe_port,
        adyen_port=adyen_port,
        control_port=control_port,
        seed=seed,
        **webhooks,
    )
    over = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        over.set()

    # Before the ports listen, so that no signal from then on finds Python's own handler.
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        sandbox.start()
        if announce is not None:
            announce(f"sandbox: stripe {sandbox.stripe_url} adyen {sandbox.adyen_url} control {sandbox.control_url}")
        over.wait()
    except PortTaken as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{error}\n")
        return 1
    finally:
        sandbox.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
