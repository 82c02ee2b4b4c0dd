"""The keys of this process: where they come from, and how it follows them while it runs.

A process seals with its first key only once the ledger has that key's id on record, so that a start without the key
is refused; and it keeps whatever key it once had until it ends, so that nothing it holds becomes unreadable.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from router.clock import Clock, Ids
from router.key_file import FILE, SETTING, KeyFile
from router.ledger.alerts import Alert, AlertLedger
from router.ledger.engine import Database
from router.ledger.migrate import is_current
from router.ledger.sealed import Seals
from router.ledger.sealed_keys import SealedKeys
from router.ledger.unavailable import LedgerUnavailableError
from router.sealing import Ring, UnknownKeyError, new_key
from router.settings import PREFIX, Settings, SettingsError

log = structlog.get_logger("router.encryption_keys")

LOOKED_AT_EVERY_S = 1.0
TOLD_EVERY_S = 5.0


def key_file(settings: Settings) -> KeyFile | None:
    """The file that the keys are in; None: a setting holds them, or none is to be used."""
    if settings.encryption_keys is not None:
        return None
    if settings.encryption_keys_file is not None:
        return KeyFile(settings.encryption_keys_file)
    here = KeyFile(settings.run_dir / FILE)
    return here if settings.ledger_url.startswith("sqlite") or here.path.exists() else None


def given_ring(settings: Settings, *, make: bool) -> Ring | None:
    """The keys as they are set, or in their file, which is made where it may be. Raises SettingsError.

    None: there is none, and nothing is to be sealed.
    """
    if settings.encryption_keys is not None:
        return Ring(each.strip() for each in settings.encryption_keys.get_secret_value().split(",") if each.strip())
    file = key_file(settings)
    if file is None:
        if settings.seal == "off":
            return None
        # On the disk of one machine of several a key would be lost with it, and what is sealed under it.
        raise SettingsError(
            f"setting {SETTING}: needed with a PostgreSQL ledger, whose tokens and secrets are sealed:"
            f" `pointsman keys new` makes one ({PREFIX}SEAL=off leaves them plain)"
        )
    may_make = make and settings.encryption_keys_file is None and settings.seal == "on"
    if may_make and file.mark() is None:
        file.write([new_key()], new=True)
    if settings.encryption_keys_file is None and file.mark() is None:
        return None
    return _ring_of(file)


def _ring_of(file: KeyFile) -> Ring:
    try:
        return Ring(file.read())
    except ValueError as error:
        raise SettingsError(f"setting {SETTING}_FILE: {file.path}: {error}") from None


def refuse_missing(ring: Ring | None, ledger: SealedKeys) -> None:
    """Raises SettingsError where the ledger needs a key that is not there, LedgerUnavailableError."""
    have = () if ring is None else ring.ids
    missing = [each.id for each in ledger.all() if each.is_needed and each.id not in have]
    if missing:
        raise SettingsError(
            f"setting {SETTING}: key {', '.join(missing)} is not there, and payment tokens and secrets in the ledger"
            f" are sealed under it: put it back (lost for good: `pointsman keys forget {missing[0]}`)"
        )


def check_start(settings: Settings) -> None:
    """Refuse in one line what would else be refused by each process that is started again and again.

    Raises SettingsError. A ledger that cannot be asked now, or has no tables yet, is no reason.
    """
    ring = given_ring(settings, make=False)
    with contextlib.suppress(LedgerUnavailableError):
        database = Database(settings.ledger_url, pool_size=1)
        try:
            if is_current(database):
                refuse_missing(ring, SealedKeys(database))
        finally:
            database.close()


class EncryptionKeys:
    """Follows the keys while the process runs. `run_once` is its loop's."""

    def __init__(self, settings: Settings, database: Database, *, process: str, clock: Clock, ids: Ids) -> None:
        """Raises SettingsError for keys that are wrong or missing, LedgerUnavailableError."""
        self._file = key_file(settings)
        self._ledger = SealedKeys(database)
        self._process = process
        self._alerts = AlertLedger(database)
        self._alerted: set[str] = set()
        self._clock = clock
        self._ids = ids
        self._lock = threading.Lock()
        self._told: tuple[Sequence[str], float] | None = None
        self._trouble: str | None = None
        had = self._file is None or self._file.mark() is not None
        ring = given_ring(settings, make=True)
        if self._file is not None and not had:
            log.info("encryption_key_made", path=str(self._file.path))
        self._mark = None if self._file is None else self._file.mark()
        refuse_missing(ring, self._ledger)
        writes = settings.seal == "on"
        if ring is not None and writes:
            self._ledger.use(ring.first, now=clock.now())
        self.seals = Seals(ring, writes=writes)
        self.seals.look_again = self.look
        database.seals = self.seals
        # A process starts beside a ledger that cannot be written (a full disk): it refuses payments, says why, and
        # replays. Its keys are told by the loop, as soon as anything can be written.
        with contextlib.suppress(LedgerUnavailableError):
            self._tell()

    def run_once(self) -> int:
        """Take up a file that has changed, and tell the others which keys are here."""
        self.look()
        self._tell()
        return self._alert()

    def _alert(self) -> int:
        """Tell people of what cannot be opened: once for a key that is missing, once for a value that was changed."""
        told = 0
        for of, error in self.seals.troubles().items():
            what = error.key_id if isinstance(error, UnknownKeyError) else of
            if what in self._alerted:
                continue
            text = f"{of} cannot be opened: {error}. What needs it waits."
            alert = Alert(self._ids.new("alert"), "sealed_unreadable", what, text, self._clock.now())
            told += self._alerts.tell(alert)
            self._alerted.add(what)
        return told

    def look(self) -> None:
        """Take up a file that has changed. What is wrong with it is kept for the health page; the old keys go on."""
        if self._file is None or self._file.mark() == self._mark:
            return
        with self._lock:
            mark = self._file.mark()
            if mark == self._mark:
                return
            try:
                ring = _ring_of(self._file)
                if self.seals.writes:
                    # On record first: what is sealed under a key that nobody knows of could be lost with it.
                    self._ledger.use(ring.first, now=self._clock.now())
            except (SettingsError, LedgerUnavailableError) as error:
                if self._trouble != str(error):
                    log.error("encryption_keys", cause=str(error))
                self._trouble = str(error)
                return
            self.seals.ring = ring.joined(self.seals.ring)
            self._mark, self._trouble, self._told = mark, None, None
            log.info("encryption_keys", seals_with=ring.first, keys=list(ring.ids))

    def leave(self) -> None:
        """Say that this process has ended."""
        with contextlib.suppress(LedgerUnavailableError):
            self._ledger.leave(self._process)

    def health(self) -> Mapping[str, Any]:
        """What the health page shows."""
        ring = self.seals.ring
        return {
            "seals": self.seals.writes,
            "key": None if ring is None else ring.first,
            "unreadable": [f"{of}: {why}" for of, why in sorted(self.seals.troubles().items())],
            "trouble": self._trouble,
        }

    def _tell(self) -> None:
        ring, at = self.seals.ring, self._clock.monotonic()
        ids = () if ring is None else ring.ids
        if self._told is None or self._told[0] != ids or at - self._told[1] >= TOLD_EVERY_S:
            self._ledger.tell(self._process, ids, now=self._clock.now())
            self._told = ids, at


def attach(settings: Settings, database: Database, clock: Clock, *, writes: bool) -> Seals:
    """What a command opens with, and seals with if it `writes`. Raises SettingsError, LedgerUnavailableError."""
    ring = given_ring(settings, make=writes)
    database.seals = Seals(ring, writes=writes and settings.seal == "on")
    if database.seals.writes and ring is not None:
        refuse_missing(ring, SealedKeys(database))
        SealedKeys(database).use(ring.first, now=clock.now())
    return database.seals


def attach_readers(settings: Settings, database: Database) -> None:
    """What a command opens with that does without where there is no key."""
    with contextlib.suppress(SettingsError):
        database.seals = Seals(given_ring(settings, make=False), writes=False)
