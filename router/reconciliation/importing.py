"""Imports a settlement file: all of it, once, in memory that does not grow with it; then judges every line.

The file is read twice. The first time nothing is written: a broken line, wrong columns or another account's file
end it there. The second time its lines are staged in small commits that nobody sees; then they count, all at once,
and are judged. Whatever interrupts this leaves the ledger as it was, or is taken up where it was by the next import.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from providers.settlement import SettlementFileError, SettlementLine
from router.clock import Clock, Ids
from router.ledger.alerts import Alert, AlertLedger
from router.ledger.engine import Database
from router.ledger.settlement_matches import Line, MatchLedger
from router.ledger.settlement_views import SettlementViews
from router.ledger.settlements import (
    BATCH,
    Import,
    ImportRunningError,
    LeaseLostError,
    LineDiffersError,
    SettlementLedger,
    batches,
)
from router.pan import contains_pan
from router.reconciliation.files import Format
from router.reconciliation.judging import judge_batch
from router.reconciliation.matching import DIFFERING
from router.reconciliation.standing import GRACE, count_missing

NAME_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is."""

    stage: str
    """`checking`, `writing` or `matching`."""
    lines: int


@dataclass(frozen=True, slots=True)
class Result:
    """What an import found."""

    file: Import
    counts: Mapping[tuple[str, str], int]
    """New lines by verdict and kind."""
    missing: int
    """Captures and refunds in the ledger only, over all that the provider's files cover, but for the grace."""
    known: bool = False
    """Whether this very file was imported before: nothing was done."""

    @property
    def differing(self) -> int:
        """Lines that the ledger does not agree with."""
        return sum(self.count(verdict) for verdict in DIFFERING)

    def count(self, verdict: str) -> int:
        """New lines with that verdict."""
        return sum(count for (given, _), count in self.counts.items() if given == verdict)


@dataclass(frozen=True, slots=True)
class _Summary:
    digest: str
    lines: int
    first_at: dt.datetime | None
    last_at: dt.datetime | None


class Importer:
    """Imports files of any provider."""

    def __init__(
        self,
        database: Database,
        formats: Mapping[str, Format],
        *,
        clock: Clock,
        ids: Ids,
        grace: dt.timedelta = GRACE,
    ) -> None:
        self._settlements = SettlementLedger(database)
        self._matches = MatchLedger(database)
        self._views = SettlementViews(database)
        self._alerts = AlertLedger(database)
        self._formats = formats
        self._clock = clock
        self._ids = ids
        self._grace = grace

    @property
    def providers(self) -> Collection[str]:
        """Whose files can be imported."""
        return self._formats.keys()

    def run(
        self,
        provider: str,
        open_file: Callable[[], BinaryIO],
        *,
        name: str,
        imported_by: str,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Result:
        """Import one file; `open_file` is called for each reading.

        Raises SettlementFileError, ImportRunningError, LeaseLostError, LedgerUnavailableError, OSError.
        """
        form = self._formats[provider]
        summary = self._check(form, open_file, progress)
        holder = self._ids.new("settling")
        self._end_what_was_left(provider, holder, progress)
        before = self._settlements.by_digest(provider, form.account, summary.digest)
        if before is not None and before.state != "done":
            # Begun since: it may yet be discarded, and what it finds is not known.
            raise ImportRunningError
        if before is not None:
            return dataclasses.replace(self.result(before), known=True)
        shown = "".join(each if each.isprintable() else "?" for each in name)[:NAME_AT_MOST]
        new = Import(
            id=self._ids.new("settlement"),
            provider=provider,
            account=form.account,
            name="(a number)" if contains_pan(shown) else shown,
            digest=summary.digest,
            imported_by=imported_by,
            at=self._clock.now(),
            lines=summary.lines,
            first_at=summary.first_at,
            last_at=summary.last_at,
            holder=holder,
        )
        self._settlements.begin(new, now=self._clock.now())
        try:
            whole = dataclasses.replace(new, new_lines=self._stage(new, form, open_file, progress))
            self._settlements.complete(whole, now=self._clock.now())
        except LeaseLostError:
            raise
        except BaseException:
            self._settlements.discard(new.id, holder, now=self._clock.now())
            raise
        return self._judge(whole, holder, progress)

    def _end_what_was_left(self, provider: str, holder: str, progress: Callable[[Progress], None]) -> None:
        left = self._settlements.open_of(provider)
        if left is None:
            return
        self._settlements.take_over(left, holder=holder, now=self._clock.now())
        if left.state == "importing":
            self._settlements.discard(left.id, holder, now=self._clock.now())
        else:
            self._judge(left, holder, progress)

    def _check(
        self, form: Format, open_file: Callable[[], BinaryIO], progress: Callable[[Progress], None]
    ) -> _Summary:
        count, first_at, last_at = 0, None, None
        with open_file() as stream:
            hashed = _Hashed(stream)
            for line in form.read(hashed):
                count += 1
                first_at = line.at if first_at is None or line.at < first_at else first_at
                last_at = line.at if last_at is None or line.at > last_at else last_at
                if count % BATCH == 0:
                    progress(Progress("checking", count))
        return _Summary(hashed.digest(), count, first_at, last_at)

    def _stage(
        self, new: Import, form: Format, open_file: Callable[[], BinaryIO], progress: Callable[[Progress], None]
    ) -> int:
        written = count = 0
        with open_file() as stream:
            hashed = _Hashed(stream)
            for batch in batches(_withheld(form.read(hashed))):
                try:
                    written += self._settlements.stage(
                        new.id, new.holder or "", batch, provider=new.provider, now=self._clock.now()
                    )
                except LineDiffersError as error:
                    raise SettlementFileError(error.number, None, str(error)) from None
                count += len(batch)
                progress(Progress("writing", count))
        if hashed.digest() != new.digest:
            raise SettlementFileError(1, None, "the file changed while it was read")
        return written

    def _judge(self, whole: Import, holder: str, progress: Callable[[Progress], None]) -> Result:
        done = 0
        while batch := self._matches.unjudged(whole.id):
            self._judge_batch(whole, holder, batch)
            done += len(batch)
            progress(Progress("matching", done))
        after = ""
        while batch := self._matches.judged_as(whole.provider, DIFFERING, after=after):
            self._judge_batch(whole, holder, batch)
            after = batch[-1].id
        result = self.result(whole)
        # First: told again by whoever ends what this process could not, it is still told once.
        self._tell(result)
        self._settlements.finish(whole.id)
        return dataclasses.replace(result, file=dataclasses.replace(whole, state="done", holder=None))

    def _judge_batch(self, whole: Import, holder: str, batch: Sequence[Line]) -> None:
        writing = judge_batch(self._matches, whole.provider, batch)
        self._matches.write(whole.id, holder, whole.provider, writing, now=self._clock.now())

    def result(self, file: Import) -> Result:
        """What a file's import found, as it stands now."""
        missing = count_missing(self._views, file.provider, self._clock.now() - self._grace)
        return Result(file, self._views.counts(file.id), missing)

    def _tell(self, result: Result) -> None:
        if not result.differing and not result.missing:
            return
        file = result.file
        by_verdict: dict[str, int] = {verdict: result.count(verdict) for verdict in DIFFERING}
        text = (
            f"{file.provider}'s settlement differs from the ledger: {by_verdict['amount_differs']} lines in their"
            f" amount, {by_verdict['fee_differs']} in their fee, {by_verdict['provider_only']} at the provider only;"
            f" {result.missing} captures and refunds in the ledger only"
        )
        detail = {"import": file.id, "provider": file.provider, **by_verdict, "ledger_only": result.missing}
        alert = Alert(self._ids.new("alert"), "settlement_differs", file.id, text, self._clock.now(), detail=detail)
        self._alerts.tell(alert)


def _withheld(found: Iterator[SettlementLine]) -> Iterator[SettlementLine]:
    """What could be a card number is known by its digest only: some of Adyen's older references are numbers."""
    for line in found:
        said = (line.id, line.reference, line.modification, line.own, line.batch)
        if not any(each is not None and contains_pan(each) for each in said):
            yield line
        else:
            yield dataclasses.replace(
                line,
                id=_covered(line.id) or "",
                reference=_covered(line.reference),
                modification=_covered(line.modification),
                own=_covered(line.own),
                batch=_covered(line.batch),
            )


def _covered(text: str | None) -> str | None:
    return _digest(text) if text is not None and contains_pan(text) else text


def _digest(text: str) -> str:
    return "withheld-" + hashlib.sha256(text.encode()).hexdigest()[:16]


class _Hashed:
    """A stream whose lines are hashed as they are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def readline(self, limit: int = -1) -> bytes:
        """The next line."""
        line = self._stream.readline(limit)
        self._hash.update(line)
        return line

    def digest(self) -> str:
        """Of all that was read."""
        return self._hash.hexdigest()
