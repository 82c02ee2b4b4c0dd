"""What is known of each provider's approval and availability, as measured. Pure: every moment is passed in.

*Approval* is the discounted share of approvals among issuers' answers, in four nested groups: the payment's segment,
its brand × country, its country, the provider. Each is shrunk towards the next wider one as if so many answers of
that one had been seen (`PRIOR_ANSWERS`), and the provider towards all providers together.
*Availability* is the discounted share of calls that did not fail for the provider's fault. The two never mix: a
decline is an available provider.

Discounting is forward decay (Cormode, Shkapenyuk, Srivastava, Xu: "Forward decay", ICDE 2009): an answer at t counts
2^((t − landmark) / half-life), for ever, and a reading divides by the weight of its own moment. So neither learning
nor reading goes through anything, and answers may come in any order. Long before the weights grow too large for a
float, all sums are divided and the landmark moves on.

Figures and parameters: facts/routing.md.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from router.score_tables import (
    AVAILABILITY_HALF_LIFE_S,
    HALF_LIVES_HELD,
    LONGEST,
    NOTHING,
    Calls,
    Chain,
    Table,
    bounded,
    growth,
    move,
)
from router.segments import Segment

HALF_LIFE_H = 6.0
PRIOR_ANSWERS = (100.0, 40.0, 40.0, 20.0)
"""What the wider group's rate counts, in answers: of brand × country in a segment, of the country in a brand ×
country, of the provider in a country, of all providers in a provider."""
PRIOR_APPROVAL = 0.85
"""Before any answer: what card payments see roughly. It is the same for every provider, so it decides nothing."""
PRIOR_ALL_ANSWERS = 20.0
PRIOR_CALLS = 50.0
PRIOR_AVAILABILITY = 0.999
SEGMENTS_HELD = 1000
"""Others fall to their brand × country. A float each for approvals and for declines, a provider: 1 MB for three."""
HEARD_HELD = 50_000
"""What was heard and nobody has taken yet, to tell it to others: a second's, at most."""
KEPT_WHERE_FULL = 0.9
"""Of the segments held, where there are as many as may be: the least known go, once a half-life."""


_new = tuple.__new__  # a third of what a call of a named tuple takes


class Score(NamedTuple):
    """What to expect of one payment at one provider."""

    approval: float
    """The probability that the issuer approves, given that the provider works."""
    availability: float
    """The probability that the provider works."""
    answers: float
    """Discounted issuers' answers in the payment's own segment; what the wider groups lend it is not among them."""


class Heard(NamedTuple):
    """Outcomes that this process has seen, for the other processes to hear."""

    provider: str
    segment: Segment | None
    """Where issuers' answers were learned; None: these are calls."""
    good: int
    """Approvals; calls that did not fail."""
    bad: int
    at: float


class Scores:
    """Thread-safe: any number of threads read without a lock while others learn.

    Moments are seconds since 1970, by the wall clock, for other processes' and yesterday's answers count as well.
    """

    def __init__(
        self, providers: Iterable[str], *, half_life_h: float = HALF_LIFE_H, prior_approval: float = PRIOR_APPROVAL
    ) -> None:
        self.providers = tuple(providers)
        self._prior = prior_approval
        self._half_life_h = bounded(half_life_h)
        self._lock = threading.Lock()
        self._answers: Table | None = None
        self._calls: Calls | None = None
        self._empty = Table(self.providers, self._half_life_h * 3600, 0.0)
        self._no_calls = dict.fromkeys(self.providers, NOTHING)
        self._pruned_at = float("-inf")
        self._heard: deque[Heard] = deque(maxlen=HEARD_HELD)

    # ------------------------------------------------------------ learning

    def hear_answer(self, provider: str, segment: Segment, approved: bool, at: float) -> None:
        """Learn one issuer's answer that this process has seen. Of a provider that is not ours, nothing."""
        with self._lock:
            table = self._table(at)
            held = table.chains.get(segment)
            if held is None:
                table, segment, held = self._place(table, segment, at)
            chain = held.get(provider)
            if chain is None:
                return
            weight = 2.0 ** ((at - table.landmark) * table.doublings_per_s)
            which = 1 if approved else 0
            leaf, branch, country, root = chain
            if leaf is not NOTHING:
                leaf[which] += weight
            branch[which] += weight
            country[which] += weight
            root[which] += weight
            table.everyone[which] += weight
            self._heard.append(Heard(provider, segment, which, 1 - which, at))

    def hear_calls(self, provider: str, calls: int, failures: int, at: float) -> None:
        """Learn how so many calls of this process ended; `failures` of them for the provider's fault."""
        if calls <= 0:
            return
        with self._lock:
            if self._add_calls(provider, calls - failures, failures, at, at):
                self._heard.append(Heard(provider, None, calls - failures, failures, at))

    def hear_reported(
        self, provider: str, segment: Segment, *, approved: bool | None, failed: bool, at: float
    ) -> None:
        """Learn of one call that a client made by itself and told of: it is one call, and perhaps an answer.

        `approved` None: no issuer answered. `failed`: the provider did not work, so that whatever else is told is
        not an answer.
        """
        self.hear_calls(provider, 1, int(failed), at)
        if approved is not None and not failed:
            self.hear_answer(provider, segment, approved, at)

    def hear_others(
        self, provider: str, segment: Segment | None, good: int, bad: int, *, good_at: float, bad_at: float
    ) -> None:
        """Learn what another process, or this one before it began, has seen; `segment` None: calls.

        `good_at` and `bad_at` are the mean moments of the approvals and of the declines. It is not told again.
        """
        if provider not in self.providers:
            return
        with self._lock:
            if segment is None:
                self._add_calls(provider, good, bad, good_at, bad_at)
                return
            at = max(good_at, bad_at)
            table = self._table(at)
            table, _, chains = self._place(table, segment, at)
            added = (bad * table.weight(bad_at) if bad else 0.0, good * table.weight(good_at) if good else 0.0)
            for cell in (*chains[provider], table.everyone):
                if cell is not NOTHING:
                    cell[0] += added[0]
                    cell[1] += added[1]

    def take_heard(self) -> list[Heard]:
        """What this process has seen since the last time: for whoever tells it to the others."""
        taken = []
        while self._heard:
            taken.append(self._heard.popleft())
        return taken

    # ------------------------------------------------------------ reading

    def read(self, segment: Segment, at: float) -> dict[str, Score]:
        """What is expected of such a payment at each provider, in the order in which they were named."""
        # Written out, step by step: every payment that is decided pays for it.
        table, calls = self._answers or self._empty, self._calls
        grown = (at - table.landmark) * table.doublings_per_s
        now = 2.0**grown if -HALF_LIVES_HELD < grown < LONGEST else growth(grown)
        # Priors are weighed as answers of this moment: all terms then have the factor that a division takes away.
        of_branch, of_country, of_provider, of_all = PRIOR_ANSWERS
        of_branch *= now
        of_country *= now
        of_provider *= now
        of_all *= now
        declined, approved = table.everyone
        prior = PRIOR_ALL_ANSWERS * now
        from_all = of_all * ((approved + prior * self._prior) / (approved + declined + prior))
        cells, usual = self._no_calls, PRIOR_CALLS
        if calls is not None:
            cells, grown = calls.cells, (at - calls.landmark) / AVAILABILITY_HALF_LIFE_S
            usual *= 2.0**grown if -HALF_LIVES_HELD < grown < LONGEST else growth(grown)
        usually_well = usual * PRIOR_AVAILABILITY
        scores = {}
        for name, (leaf, branch, country, root) in (table.chains.get(segment) or table.known(segment)).items():
            declined, approved = root
            rate = (approved + from_all) / (approved + declined + of_all)
            declined, approved = country
            rate = (approved + of_provider * rate) / (approved + declined + of_provider)
            declined, approved = branch
            rate = (approved + of_country * rate) / (approved + declined + of_country)
            declined, approved = leaf
            answers = approved + declined
            rate = (approved + of_branch * rate) / (answers + of_branch)
            failed, well = cells[name]
            scores[name] = _new(Score, (rate, (well + usually_well) / (well + failed + usual), answers / now))
        return scores

    def availability(self, provider: str, at: float) -> float:
        """The probability that the provider works."""
        calls = self._calls
        if calls is None or provider not in calls.cells:
            return PRIOR_AVAILABILITY
        failed, answered = calls.cells[provider]
        usual = PRIOR_CALLS * growth((at - calls.landmark) / AVAILABILITY_HALF_LIFE_S)
        return (answered + usual * PRIOR_AVAILABILITY) / (answered + failed + usual)

    def segments(self) -> int:
        """How many segments are held."""
        return 0 if self._answers is None else len(self._answers.chains)

    # ------------------------------------------------------------ at run time

    @property
    def half_life_h(self) -> float:
        """Hours after which an issuer's answer counts half."""
        return self._half_life_h

    def set_half_life(self, hours: float, at: float) -> bool:
        """Discount at this rate from now on, within bounds; what is known counts at this moment what it did.

        Answers whether it is another one. `router.score_sharing` then learns the past anew at the new rate.
        """
        hours = bounded(hours)
        if hours == self._half_life_h:
            return False
        with self._lock:
            self._half_life_h = hours
            if self._answers is not None:
                at = max(at, self._answers.landmark)
                self._answers = self._answers.rescaled(at, hours * 3600, keep=SEGMENTS_HELD)
        return True

    def blank(self) -> Scores:
        """Scores that know nothing, to be taught the past and adopted."""
        return Scores(self.providers, half_life_h=self._half_life_h, prior_approval=self._prior)

    def adopt(self, taught: Scores) -> None:
        """Forget everything, and know what these do, and what was heard here and not yet taken (`take_heard`)."""
        with self._lock:
            for each in self._heard:
                taught.hear_others(*each[:4], good_at=each.at, bad_at=each.at)
            self._answers, self._calls = taught._answers, taught._calls

    # ------------------------------------------------------------ inside: the caller holds the lock

    def _place(self, table: Table, segment: Segment, at: float) -> tuple[Table, Segment, dict[str, Chain]]:
        """Where answers of this segment are learned: itself, or its brand × country where too many are held."""
        if segment in table.chains:
            return table, segment, table.chains[segment]
        full = len(table.chains) >= SEGMENTS_HELD
        if full and segment.band and (at - self._pruned_at) * table.doublings_per_s > 1:
            keep = int(SEGMENTS_HELD * KEPT_WHERE_FULL)
            table = self._answers = table.rescaled(max(at, table.landmark), self._half_life_h * 3600, keep=keep)
            self._pruned_at, full = at, False
        if full or not segment.band:
            return table, segment.parent(), table.branch(segment.parent())
        return table, segment, table.chain(segment)

    def _table(self, at: float) -> Table:
        """The table, with a landmark that suits a weight of that moment."""
        table = self._answers
        if table is None:
            table = self._answers = Table(self.providers, self._half_life_h * 3600, at)
        elif (at - table.landmark) * table.doublings_per_s > HALF_LIVES_HELD:
            table = self._answers = table.rescaled(at, self._half_life_h * 3600, keep=SEGMENTS_HELD)
        return table

    def _add_calls(self, provider: str, good: int, bad: int, good_at: float, bad_at: float) -> bool:
        if provider not in self.providers:
            return False
        at, calls = max(good_at, bad_at), self._calls
        if calls is None:
            calls = self._calls = Calls(self.providers, at)
        half_lives = (at - calls.landmark) / AVAILABILITY_HALF_LIFE_S
        if half_lives > HALF_LIVES_HELD:
            new = Calls(self.providers, at)
            for name, cell in calls.cells.items():
                move(cell, new.cells[name], 2.0**-half_lives)
            calls = self._calls = new
        elif half_lives < -HALF_LIVES_HELD:
            return False
        cell = calls.cells[provider]
        if bad:
            cell[0] += bad * calls.weight(bad_at)
        if good:
            cell[1] += good * calls.weight(good_at)
        return True
