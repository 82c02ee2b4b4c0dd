"""A period's payments through another policy, and the report of it: for a machine, or for finance to read. Pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.ledger.decision_log import LogEntry
from router.replay.asking import Asked, Redecider
from router.replay.estimate import Estimate, Measured
from router.replay.holdout import Holdout, Uplift
from router.replay.logged import LeftOut, read
from router.replay.reckoning import Reckoned, Reckoning

ESTIMATES = ("doubly_robust", "self_normalised", "inverse_propensity", "change")
NOTHING = "no payment of the period can be used"
_PERCENT = {"approval"}
_NAMES = {"approval": "approval rate", "cost": "cost a payment", "net": "net value a payment"}
_LINES = {
    "doubly_robust": "would have had",
    "change": "change",
    "self_normalised": "  by self-normalised weights",
    "inverse_propensity": "  by inverse propensity",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay found."""

    asked: Asked
    read: int
    """Payments of the period."""
    left_out: Mapping[LeftOut, int]
    overall: Reckoned | None
    """Of the approval rate; None: no payment could be used."""
    currencies: Mapping[str, Reckoned]
    uplift: Uplift | None
    uplifts: Mapping[str, Uplift]
    """Against the held-out, per currency."""

    def to_json(self) -> dict[str, Any]:
        """Every figure; `estimates` is null where they cannot be told."""
        asked = dataclasses.asdict(self.asked)
        asked["enabled"] = None if self.asked.enabled is None else sorted(self.asked.enabled)
        return {
            "asked": asked,
            "payments": {
                "read": self.read,
                "used": self.read - sum(self.left_out.values()),
                "left_out": {reason.value: count for reason, count in self.left_out.items()},
            },
            "can_tell": self.overall is not None and not self.overall.doubts,
            "overall": {"can_tell": False, "why_not": [NOTHING]} if self.overall is None else _json(self.overall),
            "currencies": {name: _json(each) for name, each in self.currencies.items()},
            "holdout": {
                "overall": None if self.uplift is None else _uplift_json(self.uplift),
                "currencies": {name: _uplift_json(each) for name, each in self.uplifts.items()},
            },
        }

    def to_text(self) -> str:
        """A page to read."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        used = self.read - sum(self.left_out.values())
        yield f"{self.read} payments, {used} of them used"
        for reason, count in self.left_out.items():
            yield f"  left out: {count}, {reason.value}"
        if self.overall is None:
            yield f"cannot tell: {NOTHING}"
            return
        many = len(self.currencies) > 1
        if many:
            yield from _section("all currencies", self.overall)
        for currency, each in self.currencies.items():
            yield from _section(currency, each)
        for currency, uplift in (({"all currencies": self.uplift} if many else {}) | dict(self.uplifts)).items():
            if uplift is not None:
                yield ""
                yield (
                    f"{currency}: the strategy ({uplift.strategy} payments) against the held-out ({uplift.held_out})"
                )
                for measure, estimate in uplift.measures.items():
                    yield f"  {_NAMES[measure]:<20} {_shown(measure, estimate, signed=True)}"


def replay(entries: Iterable[LogEntry], asked: Asked) -> Report:
    """Take each payment, in the order of time, through the policy asked about."""
    redecider, reckoning, holdout = Redecider(asked), Reckoning(), Holdout()
    seen, left_out = 0, Counter[LeftOut]()
    for entry in entries:
        seen += 1
        logged = read(entry)
        if isinstance(logged, LeftOut):
            left_out[logged] += 1
            continue
        reckoning.add(redecider.case(logged))
        holdout.add(logged)
    return Report(
        asked,
        seen,
        left_out,
        reckoning.overall(),
        reckoning.by_currency(),
        holdout.overall(),
        holdout.by_currency(),
    )


def _section(name: str, told: Reckoned) -> Iterator[str]:
    support = told.support
    yield ""
    yield (
        f"{name}: {support.payments} payments, {support.moved:.2%} would have had another first choice; "
        f"effective sample size {support.effective:.0f}"
    )
    for doubt in told.doubts:
        yield f"  cannot tell: {doubt}"
    for measure, measured in told.measures.items():
        yield f"  {_NAMES[measure]:<20} earned {_figure(measure, measured.earned)}"
        if not told.doubts:
            for estimate, words in _LINES.items():
                shown = _shown(measure, getattr(measured, estimate), signed=estimate == "change")
                yield f"    {words:<30} {shown}"


def _shown(measure: str, estimate: Estimate, *, signed: bool) -> str:
    value, low, high = (_figure(measure, each, signed=signed) for each in estimate)
    return f"{value}  ({low} to {high})"


def _figure(measure: str, value: float, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if measure not in _PERCENT:
        return f"{value:{sign}.4f}"
    return f"{value * 100:+.2f} pp" if signed else f"{value:.2%}"


def _json(told: Reckoned) -> dict[str, Any]:
    support = told.support
    return {
        "can_tell": not told.doubts,
        "why_not": list(told.doubts),
        "payments": support.payments,
        "differing": support.differing,
        "moved": round(support.moved, 6),
        "without_support": round(support.unsupported, 6),
        "effective_sample_size": round(support.effective, 1),
        "effective_moved": round(support.effective_moved, 1),
        "largest_weight": round(support.largest_weight, 6),
        "earned": {name: round(each.earned, 6) for name, each in told.measures.items()},
        "estimates": None if told.doubts else {name: _estimates(each) for name, each in told.measures.items()},
    }


def _estimates(measured: Measured) -> dict[str, Any]:
    return {name: _rounded(getattr(measured, name)) for name in ESTIMATES}


def _uplift_json(uplift: Uplift) -> dict[str, Any]:
    found = {name: _rounded(each) for name, each in uplift.measures.items()}
    return {"strategy": uplift.strategy, "held_out": uplift.held_out, **found}


def _rounded(estimate: Estimate) -> Mapping[str, float]:
    return {name: round(each, 6) for name, each in zip(Estimate._fields, estimate, strict=True)}
