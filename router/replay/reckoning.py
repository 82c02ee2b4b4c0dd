"""Cases in, figures out: per currency, and the approval rate over all. Pure; memory does not grow with the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.replay import telling
from router.replay.cases import Case
from router.replay.estimate import Measured, Support, Tally
from router.replay.outcomes import Outcomes


@dataclass(frozen=True, slots=True)
class Reckoned:
    """What is told of some payments."""

    support: Support
    doubts: Sequence[str]
    """Why it cannot be told; then the measures' estimates are not to be shown."""
    measures: Mapping[str, Measured]
    """`approval`, and of one currency `cost` and `net` as well."""


class Reckoning:
    """Adds cases in the order of time."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcomes] = {}
        self._tallies: dict[str, Tally] = {}

    def add(self, case: Case) -> None:
        """One payment."""
        tally = self._tallies.get(case.currency)
        if tally is None:
            tally = self._tallies[case.currency] = Tally()
            self._outcomes[case.currency] = Outcomes()
        outcomes = self._outcomes[case.currency]
        # Where both policies agree nothing has to be predicted.
        tally.add(case, () if case.agrees else [outcomes.predict(case, option) for option in case.options])
        outcomes.learn(case)

    def by_currency(self) -> Mapping[str, Reckoned]:
        """Per currency, in alphabetical order."""
        return {currency: _reckoned(tally, tally.measured()) for currency, tally in sorted(self._tallies.items())}

    def overall(self) -> Reckoned | None:
        """The approval rate of all payments; amounts are never added up across currencies. None: no payments."""
        whole = Tally()
        for tally in self._tallies.values():
            whole.merge(tally)
        if not whole.payments:
            return None
        return _reckoned(whole, {"approval": whole.measured()["approval"]})


def _reckoned(tally: Tally, measures: Mapping[str, Measured]) -> Reckoned:
    support = tally.support()
    return Reckoned(support, telling.doubts(support), measures)
