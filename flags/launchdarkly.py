"""Flags from LaunchDarkly: the SDK's stream feeds memory, and a payment reads memory.

Source of the options: https://launchdarkly-python-sdk.readthedocs.io/en/latest/api-main.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ldclient import Config
from ldclient.interfaces import DataSourceErrorInfo, DataSourceErrorKind

from flags.definitions import definitions
from flags.reading import SdkFlags
from flags.values import Report
from flags.watching import WatchedStore

START_WAIT_S = 2.0
"""A start that waits longer for LaunchDarkly is an outage of ours; the last known flags serve until it answers."""

INITIAL_RECONNECT_DELAY_S = 1.0
"""First wait before the stream is opened again; the SDK doubles it, with jitter, up to 30 s."""


class LaunchDarklyFlags(SdkFlags):
    """A `FlagSource` over LaunchDarkly's stream. Build it in the process that uses it, after any fork."""

    def __init__(
        self,
        sdk_key: str,
        providers: Sequence[str],
        *,
        report: Report,
        store: WatchedStore | None = None,
        base_uri: str | None = None,
        stream_uri: str | None = None,
        events_uri: str | None = None,
        initial_reconnect_delay_s: float = INITIAL_RECONNECT_DELAY_S,
        start_wait_s: float = START_WAIT_S,
    ) -> None:
        """Connect, waiting at most `start_wait_s` seconds; unreachable, `store` serves until it answers.

        A store that was given last known flags serves those, an empty one (None) the defaults. A URI of None is
        LaunchDarkly's own. Raises ValueError for an empty SDK key or no provider.
        """
        if not sdk_key.strip():
            raise ValueError("the LaunchDarkly SDK key is empty")
        uris = {"base_uri": base_uri, "stream_uri": stream_uri, "events_uri": events_uri}
        given: dict[str, Any] = {name: uri for name, uri in uris.items() if uri is not None}
        store = store or WatchedStore(definitions(providers))
        config = Config(
            sdk_key.strip(), initial_reconnect_delay=initial_reconnect_delay_s, feature_store=store, **given
        )
        super().__init__(
            config,
            providers,
            store=store,
            report=report,
            start_wait_s=start_wait_s,
            describe_error=describe_stream_error,
        )


def source_name(
    sdk_key: str, stream_uri: str | None, *, project: str | None = None, environment: str | None = None
) -> str:
    """A name of the environment that a key reads, from which the key cannot be told.

    By the project's key and the environment's, where both are known: they stay while one SDK key replaces another.
    """
    if project is not None and environment is not None:
        at = "" if stream_uri is None else f":{hashlib.sha256(stream_uri.encode()).hexdigest()[:16]}"
        return f"launchdarkly:{project}/{environment}{at}"
    digest = hashlib.sha256(f"{sdk_key.strip()}\n{stream_uri or ''}".encode()).hexdigest()
    return f"launchdarkly:{digest[:16]}"


def describe_stream_error(error: DataSourceErrorInfo) -> str:
    """Why the stream is not well, in words fit for a page; the SDK's own text names hosts and sockets."""
    if error.kind == DataSourceErrorKind.ERROR_RESPONSE:
        hint = {401: ": is the SDK key right?", 403: ": is the SDK key right?"}.get(error.status_code, "")
        return f"LaunchDarkly answered HTTP {error.status_code}{hint}"
    if error.kind == DataSourceErrorKind.INVALID_DATA:
        return "LaunchDarkly sent something that is not flags"
    if error.kind == DataSourceErrorKind.NETWORK_ERROR:
        return "LaunchDarkly closed the stream"
    return "LaunchDarkly cannot be reached"
