"""What the control port can set of a provider's webhooks."""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from providers.sandbox.faults import MAX_LATENCY_MS, BadFault, one_of, read_fields, whole

MAX_BATCH = 50  # more items than any vendor puts into one request


class WebhookMode(enum.StrEnum):
    """What becomes of webhooks."""

    OK = "ok"
    """Delivered in order."""
    HOLD = "hold"
    """Kept until released, or until another mode."""
    DROP = "drop"
    """Never sent."""
    DUPLICATE = "duplicate"
    """Each request sent twice at the same instant, over two connections."""
    REORDER = "reorder"
    """Delivered in another order than it happened, within a window of the delay."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What the control port can set."""

    url: str | None
    mode: WebhookMode = WebhookMode.OK
    delay_ms: int = 50
    """From what happened to its first delivery."""
    batch: int = 1
    """At most that many in one request (Adyen)."""

    def changed(self, body: Any, *, max_batch: int) -> WebhookSettings:
        """With the fields of a control body; BadFault names the first that is wrong."""
        values = read_fields(body, _CHECKS)
        if values.get("batch", 1) > max_batch:
            raise BadFault("batch", f"at most {max_batch} at this provider")
        return replace(self, **values)


def checked_url(name: str, value: Any) -> str | None:
    """None, or an http(s) URL; BadFault else."""
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value:
        with contextlib.suppress(ValueError):  # a port that is none
            parts = urlsplit(value)
            if parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1) > 0:
                return value
    raise BadFault(name, "must be null or an http(s) URL")


_CHECKS = {
    "url": checked_url,
    "mode": one_of(WebhookMode),
    "delay_ms": whole(0, MAX_LATENCY_MS, " of milliseconds"),
    "batch": whole(1, MAX_BATCH),
}
