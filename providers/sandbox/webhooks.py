"""The webhooks of one provider: queued as things happen, delivered by a task of their own, retried, or mishandled."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from providers.sandbox.books import Event
from providers.sandbox.webhook_client import Undelivered, WebhookClient
from providers.sandbox.webhook_settings import WebhookMode, WebhookSettings

MAX_WAITING = 10_000  # at 2 kB each, 20 MB; the oldest give way
FIRST_RETRY_S = 0.05  # doubled each time, up to …
UNREACHABLE_RETRY_S = 1.0  # … where nobody listens: who comes back hears of it within a second
REFUSED_RETRY_S = 5.0  # … where the receiver answers, but not 2xx
TRIES_IN_ORDER = 5  # answered with an error (or not at all) that often, one steps aside for those behind it
MIN_REORDER_MS = 50  # what happens within this time, or the delay where that is longer, is put in another order


class Vendor(Protocol):
    """How a vendor says it."""

    max_batch: int

    def compose(self, event: Event) -> list[bytes]:
        """What is told of an event, as things are now; in order."""

    def request(self, notices: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
        """Body and headers of one request, signed."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One notice on its way."""

    notice: bytes
    due: float
    """By the loop's clock."""
    released: bool = False
    """Goes out under `hold` too."""
    failures: int = 0
    tries: int = 0
    """Failures that reached somebody."""

    @property
    def aside(self) -> bool:
        """Failed so often that those behind it no longer wait for it."""
        return self.tries >= TRIES_IN_ORDER


@dataclass(slots=True)
class WebhookCounters:
    """Requests sent, and how they ended; notices that were dropped (on purpose, or because too many waited)."""

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    dropped: int = 0


class Webhooks:
    """Used on the sandbox's own thread only; `start` gives it its task."""

    def __init__(self, vendor: Vendor, *, url: str | None, delay_ms: int, seed: int | None) -> None:
        self._vendor = vendor
        self._delay_ms = delay_ms
        self._random = random.Random(seed)  # noqa: S311 - an order is no secret
        self.settings = WebhookSettings(url, delay_ms=delay_ms)
        self.counters = WebhookCounters()
        self._waiting: deque[Delivery] = deque()
        self._in_flight: list[Delivery] = []
        self._window_end = 0.0
        self._paused = False
        self._clients = (WebhookClient(), WebhookClient())
        self._changed: asyncio.Event
        self._task: asyncio.Task[None] | None = None

    # -- what the sandbox asks

    def start(self) -> None:
        """Deliver from now on."""
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._deliver_for_ever())

    async def stop(self) -> None:
        """Deliver no more; a request that is under way is cut."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for client in self._clients:
            client.close()

    async def reset(self) -> None:
        """Nothing waits, the mode is `ok`, counters zero; the URL stays."""
        await self.stop()
        self._waiting.clear()
        self._in_flight = []
        self._window_end = 0.0
        self.settings = WebhookSettings(self.settings.url, delay_ms=self._delay_ms)
        self.counters = WebhookCounters()
        self.start()

    def pause(self, paused: bool) -> None:
        """While its provider is down, nothing goes out."""
        self._paused = paused
        self._changed.set()

    def take(self, event: Event) -> None:
        """Something happened. Without a URL nobody is told, now or later."""
        settings = self.settings
        if settings.url is None:
            return
        notices = self._vendor.compose(event)
        if settings.mode is WebhookMode.DROP:
            self.counters.dropped += len(notices)
            return
        now = asyncio.get_running_loop().time()
        for notice in notices:
            self._enqueue(notice, now)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.counters.dropped += 1
        if settings.mode is not WebhookMode.HOLD:
            self._changed.set()

    def configure(self, body: Any) -> None:
        """From a control body (BadFault names what is wrong); what waits goes the way of the new mode."""
        left_out = WebhookSettings(self.settings.url, delay_ms=self._delay_ms)
        self.settings = left_out.changed(body, max_batch=self._vendor.max_batch)
        if self.settings.mode is WebhookMode.DROP:
            self.counters.dropped += len(self._waiting)
            self._waiting.clear()
        elif self.settings.mode is WebhookMode.REORDER:
            self._shuffle()
        self._changed.set()

    def release(self) -> int:
        """What waits is due now, held or not; returns how many."""
        now = asyncio.get_running_loop().time()
        for delivery in self._waiting:
            delivery.released, delivery.due = True, now
        self._changed.set()
        return len(self._waiting)

    def state(self) -> dict[str, Any]:
        """Settings and counters, as the control port shows them; `waiting`: notices not yet acknowledged."""
        waiting = len(self._waiting) + len(self._in_flight)
        return {**asdict(self.settings), **asdict(self.counters), "waiting": waiting}

    # -- order

    def _enqueue(self, notice: bytes, now: float) -> None:
        settings, waiting = self.settings, self._waiting
        if settings.mode is not WebhookMode.REORDER:
            waiting.append(Delivery(notice, now + settings.delay_ms / 1000))
            return
        if now >= self._window_end:
            self._window_end = now + max(settings.delay_ms, MIN_REORDER_MS) / 1000
        in_window = 0
        for delivery in reversed(waiting):
            if delivery.due != self._window_end:
                break
            in_window += 1
        # Before one that happened earlier, where there is one: the order of a window is never the true one.
        position = len(waiting) - in_window + (self._random.randrange(in_window) if in_window else 0)
        waiting.insert(position, Delivery(notice, self._window_end))

    def _shuffle(self) -> None:
        if len(self._waiting) < 2:
            return
        before = list(self._waiting)
        after = before.copy()
        while after == before:
            self._random.shuffle(after)
        due = max(delivery.due for delivery in after)
        for delivery in after:
            delivery.due = due
        self._waiting = deque(after)

    # -- delivery

    async def _deliver_for_ever(self) -> None:
        while True:
            self._changed.clear()
            batch, wait_s = self._next(asyncio.get_running_loop().time())
            if batch:
                await self._deliver(batch)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    def _next(self, now: float) -> tuple[list[Delivery], float | None]:
        """What goes out now, taken from the queue; else how long to wait (None: until something changes)."""
        if self.settings.url is None or self._paused:
            return [], None
        held = self.settings.mode is WebhookMode.HOLD
        batch: list[Delivery] = []
        wait_s: float | None = None
        for delivery in self._waiting:
            if held and not delivery.released:
                continue
            if delivery.due > now:
                wait_s = min(wait_s or delivery.due - now, delivery.due - now)
                if delivery.aside:
                    continue
                break
            if delivery.aside and batch:
                continue
            batch.append(delivery)
            if delivery.aside or len(batch) >= self.settings.batch:
                break
        for delivery in batch:
            if self._waiting[0] is delivery:
                self._waiting.popleft()
            else:
                self._waiting.remove(delivery)
        return batch, wait_s

    async def _deliver(self, batch: list[Delivery]) -> None:
        self._in_flight = batch
        url = self.settings.url
        assert url is not None
        body, headers = self._vendor.request([delivery.notice for delivery in batch])
        clients = self._clients if self.settings.mode is WebhookMode.DUPLICATE else self._clients[:1]
        ends = await asyncio.gather(*(self._send(client, url, body, headers) for client in clients))
        self._in_flight = []
        if any(end == "acknowledged" for end in ends):
            return
        reached = any(end == "refused" for end in ends)
        longest_s = REFUSED_RETRY_S if reached else UNREACHABLE_RETRY_S
        now = asyncio.get_running_loop().time()
        for delivery in reversed(batch):
            delivery.due = now + min(FIRST_RETRY_S * 2 ** min(delivery.failures, 10), longest_s)
            delivery.failures += 1
            delivery.tries += reached
            self._waiting.appendleft(delivery)

    async def _send(self, client: WebhookClient, url: str, body: bytes, headers: dict[str, str]) -> str:
        self.counters.sent += 1
        try:
            status = await client.post(url, body, headers)
        except Undelivered as error:
            end = "unreachable" if error.unreachable else "refused"
        else:
            end = "acknowledged" if 200 <= status < 300 else "refused"
        if end == "acknowledged":
            self.counters.acknowledged += 1
        else:
            self.counters.failed += 1
        return end
