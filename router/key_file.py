"""The file that encryption keys are kept in, read, and replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from router.sealing import key_id
from router.settings import PREFIX, SettingsError

SETTING = f"{PREFIX}ENCRYPTION_KEYS"
FILE = "encryption-keys"
"""In `run_dir`, where the ledger is a file and no setting says otherwise."""


class KeyFile:
    """Keys, one on each line; what follows a `#` is for people."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def mark(self) -> object:
        """Changes when the file does; None: it cannot be read."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> Sequence[str]:
        """The keys, in their order. Raises SettingsError."""
        try:
            lines = self.path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "no text"
            raise SettingsError(f"setting {SETTING}_FILE: {self.path} cannot be read: {cause}") from None
        return [text for line in lines if (text := line.partition("#")[0].strip())]

    def write(self, keys: Sequence[str], *, new: bool = False) -> bool:
        """Replace the file at once, so that nobody reads half of it. False: it was to be `new`, and is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")  # 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.writelines(f"{text}  # {key_id(text)}\n" for text in keys)
                file.flush()
                os.fsync(file.fileno())
            if not new:
                Path(name).replace(self.path)
                return True
            with contextlib.suppress(FileExistsError):
                os.link(name, self.path)
                return True
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
