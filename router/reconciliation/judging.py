"""Judges settlement lines, a batch at a time: finds what each stands for, sums by unit, and feeds what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.contract import Money
from router.fee_difference import apart_in, estimate_in
from router.ledger.operations import IN_FORCE
from router.ledger.settlement_matches import AttemptFound, Line, MatchLedger, OperationFound, Writing
from router.reconciliation.matching import NO_FEE, Expected, Known, Settled, expected_fee, judge, minor_units


@dataclass(frozen=True, slots=True)
class Place:
    """What a line stands for: its unit, and what the ledger knows of that."""

    unit: str | None
    payment_id: str | None = None
    attempt: AttemptFound | None = None
    operation: OperationFound | None = None
    known: Known | None = None


def judge_batch(ledger: MatchLedger, provider: str, batch: Sequence[Line]) -> Writing:
    """The verdicts on these lines, and anew on the lines that they belong with."""
    places = _places(ledger, provider, batch)
    ids = {each.id for each in batch}
    units = {place.unit for place in places.values() if place.unit is not None}
    # Of an attempt that is settled capture by capture, the fee is what all of them cost.
    apart = {place.attempt.id for place in places.values() if place.operation is not None and place.attempt}
    others = [each for each in ledger.with_units(provider, units, apart) if each.id not in ids]
    members: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in batch:
        unit = places[line.id].unit
        if unit is not None:
            members[line.kind, unit].append(line)
    by_unit = {(line.kind, places[line.id].unit): places[line.id] for line in batch}
    for line in others:
        if line.unit is not None and (line.kind, line.unit) in members:
            members[line.kind, line.unit].append(line)
    judged: list[Mapping[str, Any]] = [
        _row(line, places[line.id], "apart", None, NO_FEE) for line in batch if places[line.id].unit is None
    ]
    for (kind, unit), of in members.items():
        judged += _judged(of, by_unit[kind, unit])
    return Writing(judged, _fees(batch, places, others))


def _judged(of: Sequence[Line], place: Place) -> list[Mapping[str, Any]]:
    settled = _sum(of)
    before = next((each for each in of if each.fee_basis is not None), None)
    known = place.known
    if known is not None and before is not None:
        # What it was first compared with: by now the ledger has the settled fee, which agrees with itself.
        kept = Expected(before.fee_basis, before.expected_fee, before.expected_fee_currency)  # type: ignore[arg-type]  # as we wrote it
        known = Known(known.amount, known.currency, kept, known.apart)
    verdict = judge(settled, known)
    fee = NO_FEE if known is None or verdict == "provider_only" else known.fee
    return [_row(each, place, verdict, settled.amount, fee, keeps_basis=verdict != "provider_only") for each in of]


def _row(
    line: Line, place: Place, verdict: str, settled: int | None, fee: Expected, *, keeps_basis: bool = False
) -> Mapping[str, Any]:
    return {
        "line": line.id,
        "verdict": verdict,
        "unit": place.unit,
        "payment_id": place.payment_id,
        "attempt_id": None if place.attempt is None else place.attempt.id,
        "operation_id": None if place.operation is None else place.operation.id,
        "settled": settled,
        "expected": None if place.known is None else place.known.amount,
        "expected_currency": None if place.known is None else place.known.currency,
        "expected_fee": fee.fee,
        "expected_fee_currency": fee.currency,
        "fee_basis": fee.basis if keeps_basis else None,
    }


def _sum(of: Sequence[Line]) -> Settled:
    currencies, fee_currencies = {each.currency for each in of}, {each.net_currency for each in of}
    return Settled(
        sum(each.amount for each in of),
        currencies.pop() if len(currencies) == 1 else None,
        sum(each.fee for each in of),
        fee_currencies.pop() if len(fee_currencies) == 1 else None,
    )


def _fees(batch: Sequence[Line], places: Mapping[str, Place], others: Sequence[Line]) -> list[Mapping[str, Any]]:
    of: dict[str, list[Line]] = defaultdict(list)
    found: dict[str, AttemptFound] = {}
    for line in batch:
        attempt = places[line.id].attempt
        if line.kind == "capture" and attempt is not None:
            of[attempt.id].append(line)
            found[attempt.id] = attempt
    for line in others:
        if line.kind == "capture" and line.attempt_id in of:
            of[line.attempt_id].append(line)
    fees: list[Mapping[str, Any]] = []
    for id, members in of.items():
        total = _sum(members)
        said = (total.fee, total.fee_currency)
        if total.fee_currency is not None and said != (found[id].fee_actual, found[id].fee_currency):
            fees.append({"attempt": id, "fee_actual": total.fee, "fee_currency": total.fee_currency})
    return fees


# ---------------------------------------------------------------- what lines stand for


def _places(ledger: MatchLedger, provider: str, batch: Sequence[Line]) -> Mapping[str, Place]:
    of_attempts = [each for each in batch if each.kind in ("capture", "dispute")]
    attempts = _Attempts(ledger, provider, of_attempts)
    refunds = [each for each in batch if each.kind == "refund"]
    by_reference, by_id = {}, {}
    if refunds:
        for each in ledger.refunds(provider, _set(refunds, "reference"), _set(refunds, "own")):
            by_id[each.id] = each
            if each.provider_reference is not None:
                by_reference[each.provider_reference] = each
    places = {}
    for line in batch:
        if line.kind == "refund":
            found = by_reference.get(line.reference or "") or by_id.get(line.own or "")
            places[line.id] = Place(_unknown(line)) if found is None else _refund(found)
        elif line.kind == "capture":
            places[line.id] = attempts.place(line)
        else:
            attempt = attempts.of(line) if line.kind == "dispute" else None
            places[line.id] = Place(None) if attempt is None else Place(None, attempt.payment_id, attempt)
    return places


class _Attempts:
    """The attempts that a batch names."""

    def __init__(self, ledger: MatchLedger, provider: str, of: Sequence[Line]) -> None:
        self._provider = provider
        found = ledger.attempts(provider, _set(of, "reference"), _set(of, "own")) if of else ()
        self._by_id = {each.id: each for each in found}
        self._by_reference = {each.provider_reference: each for each in found if each.provider_reference}
        self._captures: dict[str, list[OperationFound]] = defaultdict(list)
        for each in ledger.captures(self._by_id) if found else ():
            self._captures[each.attempt_id].append(each)

    def of(self, line: Line) -> AttemptFound | None:
        """The attempt that a line is of."""
        return self._by_reference.get(line.reference or "") or self._by_id.get(line.own or "")

    def place(self, line: Line) -> Place:
        """What a capture's line stands for."""
        attempt = self.of(line)
        if attempt is None:
            return Place(_unknown(line))
        captures = self._captures[attempt.id]
        in_force = [each for each in captures if each.state in IN_FORCE]
        at_once = attempt.amount if attempt.outcome == "approved" and attempt.capture in ("done", "pending") else 0
        taken = at_once + sum(each.amount for each in in_force)
        fee = self._fee(attempt, whole=taken == attempt.amount)
        apart = minor_units(apart_in(attempt.decision, self._provider), attempt.currency)
        for each in captures:
            if line.modification is not None and each.provider_reference == line.modification:
                amount = each.amount if each in in_force else 0
                # Of one capture among several no fee is known.
                known = Known(amount, attempt.currency, fee if amount == taken else NO_FEE, apart)
                return Place(f"op:{each.id}", attempt.payment_id, attempt, each, known)
        known = Known(taken, attempt.currency, fee, apart)
        return Place(f"att:{attempt.id}", attempt.payment_id, attempt, None, known)

    def _fee(self, attempt: AttemptFound, *, whole: bool) -> Expected:
        told = None
        if attempt.fee_actual is not None and attempt.fee_currency is not None:
            told = Money(attempt.fee_actual, attempt.fee_currency)
        # The estimate is of all that was authorized.
        estimate = estimate_in(attempt.decision, self._provider) if whole else None
        return expected_fee(told, estimate, attempt.currency)


def _refund(found: OperationFound) -> Place:
    amount = -found.amount if found.state in IN_FORCE else 0
    return Place(f"op:{found.id}", found.payment_id, None, found, Known(amount, found.currency))


def _unknown(line: Line) -> str:
    return f"ref:{line.reference}" if line.reference is not None else f"line:{line.id}"


def _set(of: Sequence[Line], name: str) -> set[str]:
    return {value for each in of if (value := getattr(each, name)) is not None}
