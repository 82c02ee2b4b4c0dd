"""`pointsman keys`: the keys that tokens and secrets are sealed with in the ledger.

A new encryption key comes into force in this order, each step while everything runs:
`new` (all can open with it) · `promote` (all seal with it) · `rotate` (what is there is sealed anew) · `retire`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from router.cli_commands import Add, CommandError, actions_of, current_ledger
from router.clock import Clock, SystemClock
from router.settings import PREFIX, Settings

if TYPE_CHECKING:
    from router.key_file import KeyFile
    from router.ledger.engine import Database

PROGRESS_S = 2.0
"""Between two lines of a long rotation."""
KNOWN_WITHIN_S = 20.0
"""A process looks at its file every second and tells every five: then each has told."""


def add_commands(add: Add) -> None:
    """Put the command beside the others."""
    keys = add("keys", _list, "the encryption keys of the ledger: list, new, promote, rotate, retire, forget")
    action = actions_of(keys)
    action("list", _list, "the encryption keys by id, what the ledger needs of them, and which process has which")
    new = action("new", _new, "add an encryption key that opens and does not seal yet")
    new.add_argument("--print", action="store_true", help="print it, and put it nowhere: for a secret store")
    action("promote", _promote, "seal with this key from now on, once every process has it").add_argument("id")
    action("rotate", _rotate, "seal everything under the first key, while the service runs; may be begun again")
    action("retire", _retire, "remove a key that nothing is sealed under any more").add_argument("id")
    about = "a key is lost for good: processes start without it, what is sealed under it stays unreadable"
    action("forget", _forget, about).add_argument("id")


# ---------------------------------------------------------------- encryption keys


def _list(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import given_ring
    from router.ledger.sealed_keys import SealedKeys

    ledger, ring = SealedKeys(current_ledger(settings)), given_ring(settings, make=False)
    ids = () if ring is None else ring.ids
    used = {each.id: each for each in ledger.all()}
    for each in [*ids, *(name for name in used if name not in ids)]:
        use = used.get(each)
        place = "seals" if ids[:1] == (each,) else "opens" if each in ids else "NOT HERE"
        state = "unused" if use is None else "lost" if use.lost_at else "retired" if use.retired_at else "needed"
        print(f"{each}\t{place}\t{state}")
    for process, known in ledger.processes(now=SystemClock().now()).items():
        print(f"\t{process}\tseals with {known[0] if known else 'none'}; has {len(known)}")
    return 0


def _new(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import key_file
    from router.sealing import key_id, new_key

    key, file = new_key(), key_file(settings)
    if options.print:
        print(key)
        return 0
    if file is None:
        print(key)
        _say(
            f"key {key_id(key)}: put it behind the others in {PREFIX}ENCRYPTION_KEYS (or into the file of"
            f" {PREFIX}ENCRYPTION_KEYS_FILE), restart every process, then put it first and restart again"
        )
        return 0
    file.write([*(file.read() if file.mark() is not None else []), key])
    _say(
        f"key {key_id(key)} is in {file.path}; when every machine has that file: pointsman keys promote {key_id(key)}"
    )
    print(key_id(key))
    return 0


def _promote(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import attach
    from router.ledger.sealed_keys import SealedKeys
    from router.sealing import key_id

    file, clock = _file(settings), SystemClock()
    keys = list(file.read())
    chosen = [each for each in keys if key_id(each) == options.id]
    if not chosen:
        raise CommandError(f"key {options.id} is not in {file.path}: `pointsman keys new` adds one")
    database = current_ledger(settings)
    ledger = SealedKeys(database)
    without = _await(ledger, clock, lambda known: options.id in known)
    if without:
        raise CommandError(f"these do not have key {options.id} yet, so nothing was changed: {', '.join(without)}")
    ledger.use(options.id, now=clock.now())
    file.write([*chosen, *(each for each in keys if each not in chosen)])
    attach(settings, database, clock, writes=True)
    late = _await(ledger, clock, lambda known: known[:1] == (options.id,))
    if late:
        _say(f"these still seal with another key: {', '.join(late)}")
    _say(f"key {options.id} seals from now on; what is sealed under others: pointsman keys rotate")
    return 0


def _rotate(_options: argparse.Namespace, settings: Settings) -> int | None:
    from router.ledger.sealed_keys import SealedKeys
    from router.ledger.sealed_rows import SealedRows
    from router.resealing import keys_in_use, reseal

    clock = SystemClock()
    database, first = _writing(settings, clock)
    others = _await(SealedKeys(database), clock, lambda known: not known or known[:1] == (first,))
    if others:
        raise CommandError(f"these still seal with another key, so this would not end: {', '.join(others)}")
    rows, said_at, last = SealedRows(database), time.monotonic(), None
    for last in reseal(rows, clock):
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            _say(f"{last.place}: {last.rows} rows looked at; {last.changed} values sealed under key {first}")
    if last is not None:
        print(*last.examples, sep="\n", end="\n" if last.examples else "")
    if last is None or not last.is_done:
        raise CommandError("others changed values at the same moment, again and again: begin it again")
    _say(f"{last.changed} values sealed under key {first}; {last.unreadable} could not be opened")
    left = keys_in_use(rows)
    for each in SealedKeys(database).all():
        if each.id != first and each.is_needed and each.id not in left:
            _say(f"nothing is sealed under key {each.id} any more: pointsman keys retire {each.id}")
    return 1 if last.unreadable else 0


def _retire(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import key_file
    from router.ledger.sealed_keys import SealedKeys
    from router.ledger.sealed_rows import SealedRows
    from router.resealing import keys_in_use
    from router.sealing import key_id

    clock = SystemClock()
    database, first = _writing(settings, clock)
    if options.id == first:
        raise CommandError(f"key {options.id} is the one that seals: promote another first")
    ledger = SealedKeys(database)
    sealing = [name for name, known in ledger.processes(now=clock.now()).items() if known[:1] == (options.id,)]
    if sealing:
        raise CommandError(f"these still seal with key {options.id}: {', '.join(sealing)}")
    needed = keys_in_use(SealedRows(database)).get(options.id)
    if needed:
        where = ", ".join(f"{number} in {place}" for place, number in sorted(needed.items()))
        raise CommandError(f"key {options.id} is still needed ({where}): pointsman keys rotate")
    ledger.retire(options.id, now=clock.now())
    file = key_file(settings)
    if file is None:
        _say(f"key {options.id} is retired: take it out of {PREFIX}ENCRYPTION_KEYS")
    else:
        file.write([each for each in file.read() if key_id(each) != options.id])
        _say(f"key {options.id} is retired, and taken out of {file.path}")
    return 0


def _forget(options: argparse.Namespace, settings: Settings) -> int | None:
    from router.encryption_keys import given_ring
    from router.ledger.sealed_keys import SealedKeys

    ring = given_ring(settings, make=False)
    if ring is not None and options.id in ring.ids:
        raise CommandError(f"key {options.id} is not lost: it is here")
    if not SealedKeys(current_ledger(settings)).lose(options.id, now=SystemClock().now()):
        raise CommandError(f"key {options.id} was never used in this ledger")
    _say(f"key {options.id} is held to be lost; what is sealed under it waits, in case it is found")
    return 0


def _writing(settings: Settings, clock: Clock) -> tuple[Database, str]:
    """The ledger, and the id of the key that everything is to be sealed under."""
    from router.encryption_keys import attach

    if settings.seal == "off":
        raise CommandError(f"nothing is sealed while {PREFIX}SEAL=off")
    database = current_ledger(settings)
    seals = attach(settings, database, clock, writes=True)
    if seals.ring is None:
        raise CommandError("there is no key: `pointsman keys new` makes one")
    return database, seals.ring.first


def _file(settings: Settings) -> KeyFile:
    from router.encryption_keys import key_file

    file = key_file(settings)
    if file is None:
        raise CommandError(
            f"the keys are in {PREFIX}ENCRYPTION_KEYS: put this one first there, and restart every process"
        )
    return file


def _await(ledger: _Processes, clock: Clock, is_so: Callable[[Sequence[str]], bool]) -> Sequence[str]:
    """The processes of which it is not so, after as long as one that runs may need."""
    until = clock.monotonic() + KNOWN_WITHIN_S
    while True:
        wrong = [name for name, known in ledger.processes(now=clock.now()).items() if not is_so(known)]
        if not wrong or clock.monotonic() >= until:
            return wrong
        clock.sleep(0.25)


if TYPE_CHECKING:
    import datetime as dt
    from typing import Protocol

    class _Processes(Protocol):
        def processes(self, *, now: dt.datetime) -> Mapping[str, Sequence[str]]: ...


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
