"""Flags from a local file, for one machine with no account: the same SDK, evaluation and targeting rules.

The file reaches the SDK through a data source of our own, because the SDK's (9.18.2), run here: says VALID after
the file was deleted, misses an edit that keeps the modification time (a file system's clock ticks in
milliseconds), prints a traceback for every broken read, and tells no change listener of an edit by hand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ldclient import Config
from ldclient.interfaces import (
    DataSourceErrorInfo,
    DataSourceErrorKind,
    DataSourceState,
    DataSourceUpdateSink,
    UpdateProcessor,
)
from ldclient.versioned_data_kind import FEATURES, SEGMENTS

from flags import document
from flags.definitions import definitions
from flags.reading import SdkFlags
from flags.values import Report
from flags.watching import WatchedStore

POLL_INTERVAL_S = 0.1
"""A change must be seen within 1 s. Reading anew ten times a second costs 0.2% of a core, SDK included."""


class FileFlags(SdkFlags):
    """A `FlagSource` over a flags file; no network at all. Build it in the process that uses it, after any fork.

    A file that is missing or broken leaves the last values in force (at start: what `store` was given, or the
    defaults), which `status` says, until it is mended. Creating the file is `filewriter.complete_file`'s work.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[str],
        *,
        report: Report,
        store: WatchedStore | None = None,
        poll_interval_s: float = POLL_INTERVAL_S,
    ) -> None:
        """Read the file, then look at it again every `poll_interval_s` seconds.

        `store` may have been given last known flags; it is one whose changes count by time, not by version.
        """
        store = store or WatchedStore(definitions(providers), by_time=True)

        def data_source(config: Config, _store: object, ready: threading.Event) -> _WatchedFile:
            sink = config.data_source_update_sink
            assert sink is not None, "the SDK sets the sink before it builds the data source"
            return _WatchedFile(path, sink, ready, poll_interval_s)

        # The SDK wants some key; with a file as data source and no events it is sent nowhere.
        config = Config("flags-file", update_processor_class=data_source, send_events=False, feature_store=store)
        super().__init__(
            config, providers, store=store, report=report, start_wait_s=1.0, describe_error=_describe_error
        )


def source_name(path: Path) -> str:
    """The file's name in the ledger."""
    return f"file:{path.resolve()}"


class _WatchedFile(UpdateProcessor):
    """The SDK's data source over one file: reads it whole ten times a second and hands on what changed."""

    def __init__(
        self, path: Path, sink: DataSourceUpdateSink, ready: threading.Event, poll_interval_s: float
    ) -> None:
        self._path = path
        self._sink = sink
        self._ready = ready
        self._poll_interval_s = poll_interval_s
        self._content: bytes | None = None
        self._flags: dict[str, document.Flag] = {}
        self._versions: dict[str, int] = {}
        self._trouble: str | None = None
        self._initialized = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="flags-file", daemon=True)

    def start(self) -> None:
        self._load()
        self._ready.set()  # whether the file was well or not: nobody waits for a person to mend it
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._sink.update_status(DataSourceState.OFF, None)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def initialized(self) -> bool:
        return self._initialized

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_interval_s):
            self._load()

    def _load(self) -> None:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            self._content = None
            self._interrupted(f"the flags file cannot be read ({error.strerror})")
            return
        if content == self._content:
            return
        self._content = content
        try:
            parsed = document.parse(content)
        except ValueError as error:
            self._interrupted(f"the flags file is broken: {error}")
            return
        try:
            self._hand_on(parsed)
        except Exception as error:  # noqa: BLE001 - the SDK refuses a malformed flag in many ways, all a broken file
            self._interrupted(f"the flags file is broken: a flag or segment is malformed ({type(error).__name__})")

    def _hand_on(self, parsed: document.Document) -> None:
        flags, segments = parsed["flags"], parsed["segments"]
        versions = {key: self._version(key, flag) for key, flag in flags.items()}
        self._sink.init(
            {
                FEATURES: {key: {**flag, "version": versions[key]} for key, flag in flags.items()},
                SEGMENTS: {key: {"version": 1, **segment} for key, segment in segments.items()},
            }
        )
        self._flags, self._versions = flags, versions
        self._initialized = True
        self._trouble = None
        self._sink.update_status(DataSourceState.VALID, None)

    def _version(self, key: str, flag: document.Flag) -> int:
        """The version the SDK is told: higher whenever the flag changed, which a person's edit need not say."""
        if key not in self._flags:
            return document.version(flag)
        if self._flags[key] == flag:
            return self._versions[key]
        return max(document.version(flag), self._versions[key] + 1)

    def _interrupted(self, why: str) -> None:
        if why == self._trouble:  # said already, a tenth of a second ago
            return
        self._trouble = why
        error = DataSourceErrorInfo(DataSourceErrorKind.INVALID_DATA, 0, time.time(), why)
        self._sink.update_status(DataSourceState.INTERRUPTED, error)


def _describe_error(error: DataSourceErrorInfo) -> str:
    return error.message or "the flags file cannot be read"
