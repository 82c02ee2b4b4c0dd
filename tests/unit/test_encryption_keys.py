"""Where a process has its keys from, when it refuses to start, and how it follows them while it runs."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from router.clock import ManualClock, SequentialIds
from router.encryption_keys import EncryptionKeys, check_start, given_ring
from router.key_file import FILE, KeyFile
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.sealed import UnreadableError
from router.ledger.sealed_keys import GONE_AFTER, SealedKeys
from router.ledger.unavailable import LedgerUnavailableError
from router.sealing import Ring, key_id, new_key
from router.settings import Settings, SettingsError
from tests.fakes.ledger import fresh_ledger

OLD, NEW = new_key(), new_key()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with fresh_ledger(tmp_path) as database:
        yield database


def settings(folder: Path, **more: object) -> Settings:
    url = f"sqlite:///{folder / 'ledger.db'}"
    return Settings(**{"run_dir": folder, "database_url": url} | more)  # type: ignore[arg-type]  # as pydantic takes them


def keys(folder: Path, database: Database, clock: ManualClock | None = None, **more: object) -> EncryptionKeys:
    return EncryptionKeys(
        settings(folder, **more), database, process="web:1", clock=clock or ManualClock(), ids=SequentialIds()
    )


def test_a_ledger_that_is_a_file_gets_a_key_beside_it(tmp_path: Path, database: Database) -> None:
    """Made once, readable by its owner alone; a second process finds it."""
    first, second = keys(tmp_path, database), keys(tmp_path, database)
    assert first.seals.ring is not None
    assert second.seals.ring is not None
    assert first.seals.ring.ids == second.seals.ring.ids
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert [each.id for each in SealedKeys(database).all()] == [first.seals.ring.first]


def test_a_shared_ledger_is_never_sealed_under_a_key_of_one_machine(tmp_path: Path) -> None:
    """Nor left plain by an oversight: somebody says which."""
    shared = settings(tmp_path, database_url="postgresql://db/ledger")
    with pytest.raises(SettingsError, match=r"ROUTER_ENCRYPTION_KEYS.*PostgreSQL"):
        given_ring(shared, make=True)
    assert not (tmp_path / FILE).exists()
    assert given_ring(settings(tmp_path, database_url="postgresql://db/ledger", seal="off"), make=True) is None
    ring = given_ring(settings(tmp_path, database_url="postgresql://db/x", encryption_keys=SecretStr(OLD)), make=True)
    assert ring is not None
    assert ring.ids == (key_id(OLD),)


def test_a_process_starts_beside_a_full_disk_and_tells_of_its_keys_later(tmp_path: Path, database: Database) -> None:
    """It has payments to refuse and answers to replay. Under a key that is not on record nothing is ever sealed."""
    keys(tmp_path, database, encryption_keys=SecretStr(OLD))
    SealedKeys(database).leave("web:1")
    full = True

    def refuse(connection: sa.Connection) -> None:
        if full and connection.get_execution_options().get("ledger_write"):
            raise sa.exc.OperationalError("BEGIN IMMEDIATE", None, OSError("the disk is full"))

    sa.event.listen(database.engine, "begin", refuse)
    clock = ManualClock()
    process = keys(tmp_path, database, clock, encryption_keys=SecretStr(OLD))
    assert process.seals.writes
    with pytest.raises(LedgerUnavailableError):
        process.run_once()
    with pytest.raises(LedgerUnavailableError):
        keys(tmp_path, database, encryption_keys=SecretStr(f"{NEW},{OLD}"))
    full = False
    assert SealedKeys(database).processes(now=clock.now()) == {}
    process.run_once()
    assert SealedKeys(database).processes(now=clock.now()) == {"web:1": (key_id(OLD),)}


def test_a_key_that_was_retired_is_needed_again_once_a_process_seals_with_it(
    tmp_path: Path, database: Database
) -> None:
    sealed = SealedKeys(database)
    for end in (sealed.retire, sealed.lose):
        keys(tmp_path, database, encryption_keys=SecretStr(OLD))
        end(key_id(OLD), now=ManualClock().now())
        assert not sealed.all()[0].is_needed
    keys(tmp_path, database, encryption_keys=SecretStr(OLD))
    assert sealed.all()[0].is_needed


def test_a_lost_key_is_a_clear_refusal(tmp_path: Path, database: Database) -> None:
    """One line that names the key's id and what it is needed for; with the key back, or given up, it starts."""
    keys(tmp_path, database, encryption_keys=SecretStr(OLD))
    wanted = f"ROUTER_ENCRYPTION_KEYS: key {key_id(OLD)} is not there, and payment tokens and secrets"
    with pytest.raises(SettingsError, match=wanted) as refused:
        keys(tmp_path, database, encryption_keys=SecretStr(NEW))
    assert "\n" not in str(refused.value)
    with pytest.raises(SettingsError, match=wanted):
        check_start(settings(tmp_path, encryption_keys=SecretStr(NEW)))
    # A key that was never sealed with is not on record.
    assert [each.id for each in SealedKeys(database).all()] == [key_id(OLD)]
    check_start(settings(tmp_path, encryption_keys=SecretStr(f"{NEW},{OLD}")))
    assert SealedKeys(database).lose(key_id(OLD), now=ManualClock().now())
    check_start(settings(tmp_path, encryption_keys=SecretStr(NEW)))


def test_a_lost_file_is_refused_too_and_not_made_anew_in_silence(tmp_path: Path, database: Database) -> None:
    """A file of the run directory that is gone was the only copy of its key."""
    keys(tmp_path, database)
    (tmp_path / FILE).unlink()
    with pytest.raises(SettingsError, match="is not there"):
        keys(tmp_path, database)
    with pytest.raises(SettingsError, match="is not there"):
        keys(tmp_path, database, seal="off")


@pytest.mark.parametrize(
    ("text", "wanted"), [(None, "/keys cannot be read"), ("words", "number 1 is not a Fernet key"), ("", "no key")]
)
def test_a_wrong_file_is_named(text: str | None, wanted: str, tmp_path: Path, database: Database) -> None:
    """And nothing of what is in it."""
    if text is not None:
        (tmp_path / "keys").write_text(text)
    with pytest.raises(SettingsError, match=wanted):
        keys(tmp_path, database, encryption_keys_file=tmp_path / "keys")


def test_a_file_that_changes_is_followed_and_no_key_is_dropped(tmp_path: Path, database: Database) -> None:
    """Added: it opens. First: it seals, on record before. Taken out: what this process holds is still readable."""
    file = KeyFile(tmp_path / "keys")
    file.write([OLD])
    here = keys(tmp_path, database, encryption_keys_file=file.path)
    old = here.seals.text("secret", "of")
    file.write([OLD, NEW])
    here.run_once()
    assert here.health()["key"] == key_id(OLD)
    assert here.seals.open_text(Ring([NEW]).seal("x", "of"), "of") == "x"
    assert [each.id for each in SealedKeys(database).all()] == [key_id(OLD)]
    file.write([NEW])
    here.run_once()
    assert here.health()["key"] == key_id(NEW)
    assert {each.id for each in SealedKeys(database).all()} == {key_id(OLD), key_id(NEW)}
    assert here.seals.open_text(old, "of") == "secret"
    file.write(["nonsense"])
    here.run_once()
    assert here.health()["key"] == key_id(NEW)
    assert "number 1 is not a Fernet key" in here.health()["trouble"]
    file.write([NEW, OLD])
    here.run_once()
    assert here.health()["trouble"] is None


def test_what_is_met_under_a_new_key_has_the_file_read_at_once(tmp_path: Path, database: Database) -> None:
    """Before the loop's next look: another process was quicker."""
    file = KeyFile(tmp_path / "keys")
    file.write([OLD])
    here = keys(tmp_path, database, encryption_keys_file=file.path)
    sealed = Ring([NEW]).seal("x", "of:1")
    with pytest.raises(UnreadableError, match=key_id(NEW)):
        here.seals.open_text(sealed, "of:1")
    (line,) = here.health()["unreadable"]
    assert key_id(NEW) in line
    file.write([OLD, NEW])
    assert here.seals.open_text(sealed, "of:1") == "x"
    assert here.health()["unreadable"] == []


def test_processes_tell_which_keys_they_have(tmp_path: Path, database: Database) -> None:
    """So that none seals under what another cannot open; one that is gone is not waited for."""
    clock, ledger = ManualClock(), SealedKeys(database)
    here = keys(tmp_path, database, clock, encryption_keys=SecretStr(f"{NEW},{OLD}"))
    assert ledger.processes(now=clock.now()) == {"web:1": (key_id(NEW), key_id(OLD))}
    clock.advance(GONE_AFTER.total_seconds() - 1)
    here.run_once()
    clock.advance(2)
    assert list(ledger.processes(now=clock.now())) == ["web:1"]
    clock.advance(GONE_AFTER.total_seconds())
    assert not ledger.processes(now=clock.now())
    here.run_once()
    here.leave()
    assert not ledger.processes(now=clock.now())


def test_people_are_told_once_for_a_missing_key_and_for_each_changed_value(
    tmp_path: Path, database: Database
) -> None:
    """However many payments are sealed under it; and by however many processes."""
    clock = ManualClock()
    here = keys(tmp_path, database, clock, encryption_keys=SecretStr(OLD))
    missing = Ring([NEW])
    changed = Ring([OLD]).seal("x", "tokens:pay_9")
    for of, sealed in [(f"tokens:pay_{n}", missing.seal("x", f"tokens:pay_{n}")) for n in range(3)] + [
        ("tokens:pay_8", changed)
    ]:
        with pytest.raises(UnreadableError):
            here.seals.open_text(sealed, of)
    here.run_once()
    here.run_once()
    found = AlertLedger(database).due(clock.now(), limit=9)
    assert {each.kind for each in found} == {"sealed_unreadable"}
    assert sorted(each.incident for each in found) == sorted([key_id(NEW), "tokens:pay_8"])
