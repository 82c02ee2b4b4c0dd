"""Settlement files beside the ledger: every planted difference is found, and nothing else."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import io
from collections import Counter
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.settlement import SettlementFileError
from router.clock import ManualClock, SequentialIds, TimeOrderedIds
from router.ledger.alerts import AlertLedger
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.settlement_views import SettlementViews
from router.ledger.settlements import ImportRunningError, LeaseLostError, SettlementLedger
from router.ledger.tables import attempts, metadata, operations, report_marks
from router.reconciliation.files import formats
from router.reconciliation.importing import Importer, Progress, Result
from router.reconciliation.matching import DIFFERING
from router.settings import Settings
from tests.integration.settlement_world import AT, World

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
PROVIDERS = ("stripe", "adyen")


def importer(database: Database, clock: ManualClock | None = None) -> Importer:
    """As of NOW, some weeks after what the files are about."""
    return Importer(
        database, formats(Settings()), clock=clock or ManualClock(NOW), ids=TimeOrderedIds(clock or ManualClock(NOW))
    )


def imported(database: Database, provider: str, file: bytes, of: Importer | None = None) -> Result:
    """Import that file."""
    return (of or importer(database)).run(provider, lambda: io.BytesIO(file), name="october.csv", imported_by="test")


def listed(database: Database, result: Result) -> Counter[tuple[str, str]]:
    """Verdict and reference of every line that is not as expected."""
    lines = SettlementViews(database).lines(result.file.id, limit=1_000_000)
    return Counter((each.verdict, each.reference or "") for each in lines if each.verdict in DIFFERING)


def missing(database: Database, world: World) -> set[tuple[str, str]]:
    """What is in the ledger only."""
    views = SettlementViews(database)
    found = views.missing(world.provider, world.at, NOW - dt.timedelta(days=7), limit=1_000_000)
    return {(each.kind, each.id) for each in found}


def counts(database: Database) -> dict[str, int]:
    """Rows of every table."""
    with database.read() as connection:
        return {
            name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for name, table in metadata.tables.items()
        }


def fees(database: Database) -> dict[str, tuple[int, str]]:
    """What attempts cost, as the ledger has it."""
    query = sa.select(attempts.c.id, attempts.c.fee_actual, attempts.c.fee_currency)
    with database.read() as connection:
        return {id: (fee, currency) for id, fee, currency in connection.execute(query) if fee is not None}


def looked_at_anew(database: Database) -> set[str]:
    """The attempts of the payments that the reports have to look at again."""
    query = sa.select(attempts.c.id).where(attempts.c.payment_id.in_(sa.select(report_marks.c.payment_id)))
    with database.read() as connection:
        return set(connection.scalars(query))


def check(database: Database, world: World, result: Result) -> None:
    """All that was planted is listed, and nothing else."""
    assert listed(database, result) == world.found
    assert missing(database, world) == world.missing
    assert result.missing == len(world.missing)
    assert result.differing == sum(world.found.values())
    known = fees(database)
    assert {id: known.get(id) for id in world.fees} == world.fees


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_planted_difference_is_found_and_nothing_else_twice_the_same(database: Database, provider: str) -> None:
    """A thousand lines of each vendor, with 6 of each kind; the same file again changes nothing."""
    world = World(provider)
    world.build(1000, 6)
    world.save(database)
    known = fees(database)
    first = imported(database, provider, world.file())
    check(database, world, first)
    learned = {id for id, fee in fees(database).items() if known.get(id) != fee}
    assert learned
    assert looked_at_anew(database) == learned
    assert first.file.new_lines == len(world.rows)
    before = counts(database)
    again = imported(database, provider, world.file())
    assert again.known
    assert (again.file.id, again.counts, again.missing) == (first.file.id, first.counts, first.missing)
    assert counts(database) == before
    check(database, world, again)


def test_files_that_overlap_come_to_the_same_and_a_line_counts_once(database: Database) -> None:
    """Two halves with a common part, and then the whole: as if it had been the whole at once."""
    world = World("stripe")
    world.build(150, 2)
    world.save(database)
    head, *rows = world.file().splitlines(keepends=True)
    cut = len(rows) // 2
    parts = (rows[: cut + 20], rows[cut - 20 :], rows)
    seen: Counter[tuple[str, str]] = Counter()
    new = []
    of = importer(database)
    for part in parts:
        result = imported(database, "stripe", head + b"".join(part), of)
        new.append(result.file.new_lines)
    assert new == [cut + 20, len(rows) - cut - 20, 0]
    for each in SettlementViews(database).imports(limit=9):
        seen += listed(database, dataclasses.replace(result, file=each))
    assert (seen, missing(database, world)) == (world.found, world.missing)
    assert {id: fees(database).get(id) for id in world.fees} == world.fees


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_broken_line_leaves_nothing_behind(database: Database, provider: str) -> None:
    """Also the last one, after commits of those before; and the same line twice with another amount."""
    world = World(provider)
    world.build(620, 0)
    world.save(database)
    before = counts(database)
    rows = world.file().splitlines(keepends=True)
    last = rows[1].replace(b"2026", b"2o26")
    with pytest.raises(SettlementFileError) as refused:
        imported(database, provider, b"".join([*rows, last]))
    assert refused.value.line == len(rows) + 1
    (first,) = list(csv.DictReader(io.StringIO((rows[0] + rows[1]).decode())))
    other = World(provider, rows=[first])
    for name in ("gross", "net", "Gross Credit (GC)", "Net Credit (NC)"):
        if first.get(name):
            first[name] = "1" + first[name]
    changed = other.file().splitlines(keepends=True)[1]
    with pytest.raises(SettlementFileError, match="came before, with another amount") as refused:
        imported(database, provider, b"".join([*rows, changed]))
    assert refused.value.line == len(rows) + 1
    assert counts(database) == before
    assert imported(database, provider, b"".join(rows)).file.new_lines == len(rows) - 1


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("stage", ["writing", "matching"])
def test_what_a_killed_import_left_is_not_seen_and_the_next_one_ends_it(
    database: Database, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody clears up after a kill; until its lease is over, no other file of that provider is taken."""
    world = World("adyen")
    world.build(620, 1)
    world.save(database)
    clock = ManualClock(NOW)
    of = importer(database, clock)

    def kill(progress: Progress) -> None:
        if progress.stage == stage:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(SettlementLedger, "discard", lambda *_args, **_more: None)  # a killed process does not clear up
        with pytest.raises(Killed):
            of.run("adyen", lambda: io.BytesIO(world.file()), name="a", imported_by="t", progress=kill)
    (left,) = SettlementViews(database).imports(limit=9)
    if stage == "writing":
        assert not SettlementViews(database).lines(left.id, limit=9)
        assert SettlementViews(database).covered("adyen") is None
    with pytest.raises(ImportRunningError):
        imported(database, "adyen", world.file(), of)
    clock.advance(61)
    result = imported(database, "adyen", world.file(), of)
    check(database, world, result)
    assert len(SettlementViews(database).imports(limit=9)) == 1


def test_an_import_that_was_paused_past_its_lease_stops(database: Database) -> None:
    """Another one has ended it meanwhile."""
    world = World("stripe")
    world.build(620, 0)
    world.save(database)
    clock = ManualClock(NOW)
    first, second = importer(database, clock), importer(database, clock)
    seconds: list[Result] = []

    def pause(progress: Progress) -> None:
        if progress.stage == "writing" and not seconds:
            clock.advance(61)
            seconds.append(imported(database, "stripe", world.file(), second))

    with pytest.raises(LeaseLostError):
        first.run("stripe", lambda: io.BytesIO(world.file()), name="a", imported_by="t", progress=pause)
    check(database, world, seconds[0])
    assert seconds[0].file.new_lines == len(world.rows)


@pytest.mark.parametrize("stage", ["writing", "matching"])
def test_the_same_file_in_the_same_moment_is_not_said_to_be_imported_before(
    database: Database, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other import began after this one looked for any, and before it looked for this file."""
    world = World("stripe")
    world.build(20, 1)
    world.save(database)
    refused: list[str] = []

    def meanwhile(progress: Progress) -> None:
        if progress.stage == stage:
            with monkeypatch.context() as patch:
                patch.setattr(SettlementLedger, "open_of", lambda *_args: None)
                with pytest.raises(ImportRunningError):
                    imported(database, "stripe", world.file())
            refused.append(progress.stage)

    of = importer(database)
    of.run("stripe", lambda: io.BytesIO(world.file()), name="a", imported_by="t", progress=meanwhile)
    assert refused
    assert imported(database, "stripe", world.file()).known


def test_one_alert_tells_what_differs_and_none_where_nothing_does(database: Database) -> None:
    """Once for a file, however often it comes."""
    plain = World("adyen", seed=2)
    plain.build(60, 0)
    plain.save(database)
    imported(database, "adyen", plain.file())
    assert AlertLedger(database).all() == []
    world = World("stripe")
    world.build(60, 1)
    world.save(database)
    result = imported(database, "stripe", world.file())
    imported(database, "stripe", world.file())
    (alert,) = AlertLedger(database).all()
    assert (alert.kind, alert.incident) == ("settlement_differs", result.file.id)
    assert alert.detail["ledger_only"] == 2
    assert sum(alert.detail[each] for each in DIFFERING) == sum(world.found.values())


def test_what_is_younger_than_the_grace_is_not_due_yet(database: Database) -> None:
    """And what no file reaches to is not judged as missing."""
    world = World("stripe")
    world.build(100, 2, ("ledger_only",))
    world.save(database)
    soon = ManualClock(world.at + dt.timedelta(days=6))
    assert imported(database, "stripe", world.file(), importer(database, soon)).missing == 0
    of = Importer(database, formats(Settings()), clock=soon, ids=SequentialIds(), grace=dt.timedelta(days=1))
    (file,) = SettlementViews(database).imports(limit=9)
    assert of.result(file).missing == 2


def test_what_is_booked_after_the_files_last_line_is_not_missing_yet(database: Database) -> None:
    """Adyen books a capture days later: near a file's end its line is in the next one, however long ago that was."""
    world = World("adyen")
    world.build(60, 2, ("ledger_only",))
    world.save(database)
    *lines, _fee, _same_fee, _payout, _chargeback = world.file().splitlines(keepends=True)
    assert imported(database, "adyen", b"".join(lines)).missing == 0
    assert imported(database, "adyen", world.file()).missing == 2


def test_what_the_ledger_learns_later_is_judged_anew_by_the_next_import(database: Database) -> None:
    """A charge that was declined here, as far as was known, turns out to be approved."""
    world = World("adyen")
    world.build(20, 1, ("declined_here",))
    world.save(database)
    first = imported(database, "adyen", world.file())
    assert listed(database, first) == world.found
    with database.write() as connection:
        declined = attempts.update().where(attempts.c.outcome == "declined")
        connection.execute(declined.values(outcome="approved", capture="done"))
        connection.execute(sa.update(operations).where(operations.c.kind == "capture").values(state="done"))
    later = World("adyen", seed=2)
    later.build(5, 0)
    later.save(database)
    imported(database, "adyen", later.file())
    assert not listed(database, first) - Counter({each: 9 for each in world.found if each[0] != "provider_only"})


def test_a_reference_that_could_be_a_card_number_is_kept_as_a_digest(database: Database) -> None:
    """Adyen's older references are sixteen digits, of which some pass every test of a card number."""
    world = World("adyen")
    world.build(5, 0)
    file = world.file().replace(b"P001000000000002", b"4111111111111111")
    result = imported(database, "adyen", file)
    references = [each.reference or "" for each in SettlementViews(database).lines(result.file.id, limit=99)]
    assert len([each for each in references if each.startswith("withheld-")]) >= 1
    assert "4111111111111111" not in str(references)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, bytes]]:
    """A ledger into which a file went before, and that file."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('old')}/ledger.db", pool_size=2)
    migrate(database)
    world = World("stripe")
    world.build(12, 0)
    world.save(database)
    imported(database, "stripe", world.file())
    yield database, world.file()
    database.close()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_done_to_a_file_it_goes_in_whole_or_not_at_all(
    old: tuple[Database, bytes], data: st.DataObject
) -> None:
    """Refused, every table is as it was, and nothing else than that error is raised; taken, every line is judged."""
    database, file = old
    at, cut = data.draw(st.integers(0, len(file))), data.draw(st.integers(0, 30))
    put = data.draw(st.one_of(st.binary(max_size=20), st.text('",\r\n.-0123456789atx_', max_size=12).map(str.encode)))
    before = counts(database)
    try:
        result = imported(database, "stripe", file[:at] + put + file[at + cut :])
    except SettlementFileError:
        result = None
    if result is None:
        assert counts(database) == before
    elif not result.known:
        assert sum(result.counts.values()) == result.file.new_lines


def test_lines_of_one_capture_in_two_files_are_judged_together(database: Database) -> None:
    """A charge that is settled again in the next file was matched until then; its fee is what both cost."""
    world = World("stripe")
    world.build(20, 1, ("twice",))
    world.save(database)
    again = [each for each in world.rows if each["balance_transaction_id"].rstrip("p").endswith("c")]
    first = World("stripe", rows=[each for each in world.rows if each not in again])
    assert imported(database, "stripe", first.file()).differing == 0
    second = imported(database, "stripe", World("stripe", rows=again).file())
    files = SettlementViews(database).imports(limit=9)
    seen = [listed(database, dataclasses.replace(second, file=each)) for each in files]
    assert (len(seen), sum(seen, Counter())) == (2, world.found)
    assert {id: fees(database).get(id) for id in world.fees} == world.fees


def test_of_two_captures_at_adyen_each_is_settled_by_its_own_reference(database: Database) -> None:
    """One is in the file, one is not yet: the first is matched, the second is missing."""
    world, at = World("adyen"), AT
    psp, attempt = "P001000000000001", "att_adyen1x1"
    world._keep(attempt, psp, 1000, "EUR", at, declined=False, partly=True, fee=0, number=1)
    for number, reference in ((1, "C001000000000001"), (2, "C001000000000002")):
        world._operate("capture", attempt, 300 * number, at, reference, number)
    world.save(database)
    late = at + dt.timedelta(days=1)
    world._adyen(psp, attempt, "Settled", "C001000000000001", "EUR", 300, late, fee=9, net="EUR")
    result = imported(database, "adyen", world.file())
    assert result.counts == {("matched", "capture"): 1}
    assert missing(database, world) == {("capture", "op_adyen1c2")}
