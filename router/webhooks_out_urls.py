"""An endpoint's URL, taken apart once and strictly: no second parser may find another host in it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from router.webhooks_out_addresses import Network, refusal

LONGEST = 1000
_VISIBLE = re.compile(r"[!-\[\]-~]+")
"""Visible ASCII but for the backslash, which some take for a slash."""
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")


class BadUrlError(ValueError):
    """The URL cannot be an endpoint's; the message says why, without a part of the URL."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a delivery goes."""

    is_tls: bool
    host: str
    """As it is resolved, and named in TLS: in small letters, an IPv6 address without brackets."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The Host header's value."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def target_of(url: str, *, allow_http: bool, allowed: Sequence[Network] = ()) -> Target:
    """The URL, checked. Raises BadUrlError.

    A host that is written as an address is judged here already; a name only when it is connected to.
    """
    if not 0 < len(url) <= LONGEST or not _VISIBLE.fullmatch(url):
        raise BadUrlError(f"must be at most {LONGEST} visible ASCII characters without a backslash")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadUrlError("is not a URL") from None
    if parts.scheme not in (("https", "http") if allow_http else ("https",)):
        raise BadUrlError("must be https://…")
    if "@" in parts.netloc:
        raise BadUrlError("must not hold a user name or a password")
    if "#" in url:
        raise BadUrlError("must not have a fragment")
    host = (parts.hostname or "").lower().removesuffix(".")
    address = _address(host)
    if port == 0 or (address is None and ("[" in parts.netloc or not _NAME.fullmatch(host))):
        raise BadUrlError("must have a host and, if any, a port of 1 to 65535; other alphabets in punycode")
    if address is not None and (word := refusal(address, allowed)) is not None:
        raise BadUrlError(f"must be at a public address, not at a {word.replace('_', '-')} one")
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(is_tls, host, port or (443 if is_tls else 80), path)


def _address(host: str) -> str | None:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None
