"""Writing a flags file: one writer at a time among all processes, and no reader ever sees half a file.

Nothing here loads the LaunchDarkly SDK, so that `pointsman flags` answers at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flags import document
from flags.contract import FlagUnavailableError, FlagWriteError
from flags.definitions import FlagDefinition, definition, definitions, show

LOCK_WAIT_S = 5.0
"""A writer holds the lock for a few milliseconds; one that holds it for seconds is stopped or stuck."""

ATTEMPTS = 5
"""Each takes some milliseconds; an editor that saves five times in that is not a person."""

_NO_ONE_VALUE = object()
"""What a percentage rollout serves: equal to nothing."""


class FileFlagWriter:
    """A person's hand on a flags file: the command line's, and the tests'. The machine's is `filemover`'s."""

    def __init__(self, path: Path, providers: Sequence[str]) -> None:
        self._path = path
        self._providers = tuple(providers)

    def current(self, key: str) -> Any:
        """The value served now to everyone whom no rule or target catches.

        Raises FlagWriteError for an unknown key, an unreadable file, or a percentage rollout.
        """
        flag = definition(key, self._providers)
        return _served(flag, read_file(self._path)["flags"])

    def set(self, key: str, value: Any, *, expected: Any | None, comment: str) -> bool:
        """Serve `value` from now on; with `expected`, only while the flag still serves that.

        False: it serves something else (or a percentage rollout), and nothing was changed. A flag that is off is
        turned on. Serving the value already is success, and writes nothing. `comment` is kept beside the flag.
        Raises FlagWriteError for an unknown key, a value that the flag may not hold, an unreadable or unwritable
        file, a lock that is not to be had within `LOCK_WAIT_S` seconds, or a flag with prerequisites.
        """
        flag = definition(key, self._providers)
        flag.check(value)
        outcome = False

        def change(content: document.Document) -> bool:
            nonlocal outcome
            entry = content["flags"].setdefault(key, document.new_flag(flag))
            try:
                now = document.served(entry)
            except FlagWriteError:
                now = _NO_ONE_VALUE
            believed = flag.default if now is None else now
            outcome = expected is None or document.same(believed, expected)
            if not outcome or (entry.get("on") and document.same(now, value)):
                return False
            document.serve(entry, value, comment, closed=flag.closed)
            return True

        update_file(self._path, change)
        return outcome


@dataclass(frozen=True, slots=True)
class FlagRow:
    """One flag as `pointsman flags` lists it."""

    key: str
    value: Any
    """What everyone is served whom no rule or target catches; for a rollout its text."""
    kind: str
    allowed: str
    description: str
    notes: tuple[str, ...]
    """What a person should know: off, rules and targets, a value that is not allowed, not in the file."""


def describe(path: Path, providers: Sequence[str]) -> list[FlagRow]:
    """Every flag with the value it serves. Raises FlagWriteError where the file cannot be read."""
    flags = read_file(path)["flags"]
    return [_row(flag, flags) for flag in definitions(providers).values()]


def complete_file(path: Path, providers: Sequence[str]) -> list[str]:
    """Create the file with every flag, or add the flags an existing one lacks; the keys that were added.

    Whatever else is in an existing file stays as it is. Several processes may call it at once.
    Raises FlagWriteError where the file is broken or cannot be written; a reader still serves its defaults.
    """
    table = definitions(providers)
    added: list[str] = []

    def change(content: document.Document) -> bool:
        added[:] = [key for key in table if key not in content["flags"]]
        content["flags"].update({key: document.new_flag(table[key]) for key in added})
        return bool(added)

    update_file(path, change, create=True)
    return added


def read_file(path: Path) -> document.Document:
    """The document in the file. Raises FlagUnavailableError where there is none that can be read."""
    return _parse(path, _content(path))


def update_file(path: Path, change: Callable[[document.Document], bool], *, create: bool = False) -> None:
    """Read, change and replace the file under the lock, unless `change` says that there is nothing to write.

    A person's editor knows no lock: if the file changes meanwhile, it is read and changed anew.
    Raises FlagUnavailableError, and whatever `change` raises: then nothing was written.
    """
    with _locked(path):
        for _ in range(ATTEMPTS):
            before = None if create and not path.exists() else _content(path)
            content = document.new_document(()) if before is None else _parse(path, before)
            if not change(content) or _replace(path, before, document.render(content)):
                return
    raise FlagUnavailableError(f"the flags file {path} is being changed by something else; nothing was written")


def _row(flag: FlagDefinition, flags: dict[str, document.Flag]) -> FlagRow:
    entry = flags.get(flag.key)
    notes: list[str] = []
    if entry is None:
        notes.append("not in the file: its default is served")
        return FlagRow(flag.key, flag.default, flag.kind, flag.allowed, flag.description, tuple(notes))
    try:
        value = _served(flag, flags)
    except FlagWriteError as error:
        value = None
        notes.append(str(error))
    else:
        problem = flag.problem(value)
        if problem is not None:
            notes.append(f"{problem}: its default {show(flag.default)} is used")
    if not entry.get("on"):
        notes.append("switched off")
    lists = (entry.get(part) for part in ("rules", "targets", "contextTargets"))
    caught = sum(len(part) for part in lists if isinstance(part, list))
    if entry.get("on") and caught:
        notes.append(f"{caught} rule(s) or target(s) may serve something else")
    return FlagRow(flag.key, value, flag.kind, flag.allowed, flag.description, tuple(notes))


def _served(flag: FlagDefinition, flags: dict[str, document.Flag]) -> Any:
    entry = flags.get(flag.key)
    value = None if entry is None else document.served(entry)
    return flag.default if value is None else value


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FlagUnavailableError(f"the flags file {path} cannot be read: {error.strerror}") from error


def _parse(path: Path, content: bytes) -> document.Document:
    try:
        return document.parse(content)
    except ValueError as error:
        raise FlagUnavailableError(f"the flags file {path} is broken ({error}): mend it first") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock beside the file; it ends with the process that holds it, however that ends."""
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target.with_name(target.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FlagUnavailableError(f"the flags file {path} cannot be locked: {error.strerror}") from error
    try:
        _wait_for(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path) -> None:
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= give_up_at:
                raise FlagUnavailableError(f"another writer has held {path} for {LOCK_WAIT_S:g} s") from error
            time.sleep(0.005)


def _replace(path: Path, before: bytes | None, content: bytes) -> bool:
    """Replace the file by one rename, durably; False, and nothing done, if it no longer holds `before`.

    Its permissions stay. Only under the lock: the temporary name is fixed.
    """
    target = Path(os.path.realpath(path))  # a link goes on pointing where it points
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # left by a writer that was killed
        with open(temporary, "xb") as file:
            if before is not None:
                _copy_permissions(target, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before != (target.read_bytes() if target.exists() else None):
            temporary.unlink()
            return False
        os.replace(temporary, target)
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise FlagUnavailableError(f"the flags file {path} cannot be written: {error.strerror}") from error
    return True


def _copy_permissions(source: Path, descriptor: int) -> None:
    status = source.stat()
    with contextlib.suppress(PermissionError):  # only root may give a file away
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, status.st_mode & 0o7777)
