"""Flags from LaunchDarkly: the SDK's stream feeds memory, and a payment reads memory.

Source of the options: https://launchdarkly-python-sdk.readthedocs.io/en/latest/api-main.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ldclient import Config
from ldclient.interfaces import DataSourceErrorInfo, DataSourceErrorKind

from flags.reading import SdkFlags
from flags.values import Report

START_WAIT_S = 2.0
"""A start that waits longer for LaunchDarkly is an outage of ours; the defaults serve until it answers."""

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
        base_uri: str | None = None,
        stream_uri: str | None = None,
        events_uri: str | None = None,
        initial_reconnect_delay_s: float = INITIAL_RECONNECT_DELAY_S,
        start_wait_s: float = START_WAIT_S,
    ) -> None:
        """Connect, waiting at most `start_wait_s` seconds; unreachable, the defaults serve until it answers.

        A URI of None is LaunchDarkly's own. Raises ValueError for an empty SDK key or no provider.
        """
        if not sdk_key.strip():
            raise ValueError("the LaunchDarkly SDK key is empty")
        uris = {"base_uri": base_uri, "stream_uri": stream_uri, "events_uri": events_uri}
        given: dict[str, Any] = {name: uri for name, uri in uris.items() if uri is not None}
        config = Config(sdk_key.strip(), initial_reconnect_delay=initial_reconnect_delay_s, **given)
        super().__init__(
            config, providers, report=report, start_wait_s=start_wait_s, describe_error=describe_stream_error
        )


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
