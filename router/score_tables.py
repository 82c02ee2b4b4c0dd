"""The sums that scores are read from, under one landmark of forward decay. Pure; `router.scores` holds the lock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from router.segments import Segment

HALF_LIFE_BOUNDS_H = (0.1, 720.0)
"""As the flag `payments-routing-tuning` is checked."""
AVAILABILITY_HALF_LIFE_S = 300.0
HALF_LIVES_HELD = 64
"""Until the landmark moves on: weights up to 2^64 leave a float all of its digits."""
NEGLIGIBLE = 2.0**-20
"""Answers; a segment of which no provider has as many left is forgotten when the landmark moves on."""
LONGEST = 900.0
"""Half-lives: after so many nothing is left, and 2^1024 is no float."""

Cell = list[float]
"""Discounted [declines, approvals], or [failed, answered] calls, each weighed as of the landmark. Two sums that do
not depend on each other: who reads sees one answer in the segment and not yet in the country, which is no harm."""
NOTHING: Cell = [0.0, 0.0]
Chain = tuple[Cell, Cell, Cell, Cell]
"""Segment, brand × country, country, provider."""


def growth(half_lives: float) -> float:
    """How much more an answer counts after so many half-lives, within what can be calculated with."""
    return float(2.0 ** max(-HALF_LIVES_HELD, min(half_lives, LONGEST)))


def bounded(hours: float) -> float:
    """A half-life within its bounds."""
    low, high = HALF_LIFE_BOUNDS_H
    return max(low, min(float(hours), high))


class Table:
    """The sums under one landmark. Who reads holds on to one table, and it is replaced as a whole."""

    __slots__ = ("branches", "chains", "countries", "doublings_per_s", "everyone", "landmark", "providers")

    def __init__(self, names: tuple[str, ...], half_life_s: float, landmark: float) -> None:
        self.landmark = landmark
        self.doublings_per_s = 1.0 / half_life_s
        self.everyone: Cell = [0.0, 0.0]
        self.providers: dict[str, Cell] = {name: [0.0, 0.0] for name in names}
        self.countries: dict[str, dict[str, Cell]] = {}
        self.branches: dict[Segment, dict[str, Chain]] = {}
        """Brand × country; the first of a chain is nothing."""
        self.chains: dict[Segment, dict[str, Chain]] = {}

    def weight(self, at: float) -> float:
        """What an answer of that moment counts."""
        return float(2.0 ** ((at - self.landmark) * self.doublings_per_s))

    def branch(self, segment: Segment) -> dict[str, Chain]:
        """The chains of a brand × country, made where there are none."""
        found = self.branches.get(segment)
        if found is None:
            country = self.countries.setdefault(segment.country, {name: [0.0, 0.0] for name in self.providers})
            found = {name: (NOTHING, [0.0, 0.0], country[name], root) for name, root in self.providers.items()}
            self.branches[segment] = found
        return found

    def chain(self, segment: Segment) -> dict[str, Chain]:
        """The chains of a segment, made where there are none."""
        found = self.chains.get(segment)
        if found is None:
            above = self.branch(segment.parent())
            found = {name: ([0.0, 0.0], *chain[1:]) for name, chain in above.items()}
            self.chains[segment] = found
        return found

    def known(self, segment: Segment) -> Mapping[str, Chain]:
        """The chains by which a payment is judged that nothing is known of more closely; makes nothing."""
        found = self.branches.get(segment.parent())
        if found is not None:
            return found
        country = self.countries.get(segment.country, {})
        return {name: (NOTHING, NOTHING, country.get(name, NOTHING), root) for name, root in self.providers.items()}

    def rescaled(self, landmark: float, half_life_s: float, *, keep: int) -> Table:
        """The same knowledge under another landmark, discounted up to it; then at another half-life."""
        factor = 2.0 ** -max(0.0, (landmark - self.landmark) * self.doublings_per_s)
        new = Table(tuple(self.providers), half_life_s, landmark)
        move(self.everyone, new.everyone, factor)
        for name, root in self.providers.items():
            move(root, new.providers[name], factor)
        for branch, chains in self.branches.items():
            if any(sum(each[1]) * factor > NEGLIGIBLE for each in chains.values()):
                for name, chain in new.branch(branch).items():
                    move(chains[name][1], chain[1], factor)
        for country, cells in self.countries.items():
            moved = new.countries.setdefault(country, {name: [0.0, 0.0] for name in new.providers})
            for name, cell in cells.items():
                move(cell, moved[name], factor)
        fresh = [
            (sum(sum(each[0]) for each in chains.values()) * factor, segment, chains)
            for segment, chains in self.chains.items()
        ]
        fresh = [each for each in fresh if each[0] > NEGLIGIBLE]
        for _, segment, chains in sorted(fresh, reverse=True, key=lambda each: each[0])[:keep]:
            for name, chain in new.chain(segment).items():
                move(chains[name][0], chain[0], factor)
        return new


def move(old: Cell, new: Cell, factor: float) -> None:
    new[0], new[1] = old[0] * factor, old[1] * factor


class Calls:
    """Each provider's calls under one landmark."""

    __slots__ = ("cells", "landmark")

    def __init__(self, names: Iterable[str], landmark: float) -> None:
        self.landmark = landmark
        self.cells: dict[str, Cell] = {name: [0.0, 0.0] for name in names}

    def weight(self, at: float) -> float:
        """What a call of that moment counts."""
        return float(2.0 ** ((at - self.landmark) / AVAILABILITY_HALF_LIFE_S))
