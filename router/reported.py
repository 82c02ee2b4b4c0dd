"""What clients report of one provider's calls that they made themselves: whom to believe, and when to be suspicious.

A merchant's bug must not cut off the others. So what is reported never enters a circuit's windows, nor the past by
which thresholds are fitted; and **of trouble, one merchant alone is not believed**: with its fifth failure or so in
a short while (the tenth, of a provider of which little is known) its own detector alarms, and from there on its
reports of calls teach nothing, until a second merchant's detector says the same, or the circuit is suspect or not
closed anyhow (this router's own calls say so), or its reports are good again. Two merchants that say the same make
the provider suspect.

Where there is nobody else (no other merchant has reported anything of this provider for an hour, and the router
itself has hardly called it) that one merchant is believed: there is nobody to be cut off, and nobody else to notice.

Answers of issuers are not trouble; of these one merchant teaches so many a second at most, and while it has nothing
but approvals to tell, or nothing but declines, it is not believed alone either (`SAME_APPROVALS`): the usual bugs, of
telling only one of the two, must not decide for everybody which provider approves more. What one merchant tells with
some of both does count for all; it can make others prefer a worse provider that works, and no more than that.

The detector is the early warning's CUSUM over failures, one for each merchant, by the provider's own usual rate.
Latencies are recorded and judged by nobody: they hold the client's way to the provider, which is not ours. Pure;
`now` is monotonic seconds. Each process hears what is told to it; a mark that it makes is everybody's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from router.cusum import ErrorCusum

WITNESSES = 2
"""Merchants that must say the same."""
FADES_BY_HALF_S = 180.0
"""A merchant that reports one failure a minute and nothing else alarms with the eighth; one that has reported nothing
for nine minutes is calm again."""
OTHERS_HEARD_S = 3600.0
FEW_OWN_CALLS = 20
"""Of this router, all processes together, in the last hour or two: with fewer it knows too little to contradict."""
TAUGHT_PER_S = 20.0
"""By one merchant in one process: a sample that tells a rate to a percent within minutes."""
TAUGHT_AT_ONCE = 200.0
SAME_APPROVALS = 200
SAME_DECLINES = 30
"""Answers in a row, all the same, after which one merchant's teach nothing until it tells another. At 97% approvals a
sound checkout comes there once in 440 times, at 90% never; 30 declines in a row, at 50% approvals, never."""
MERCHANTS_HELD = 1000


@dataclass(slots=True)
class _Teller:
    """One merchant."""

    cusum: ErrorCusum
    heard_at: float
    tokens: float = TAUGHT_AT_ONCE
    run: int = 0
    """Its last answers that were all the same: so many approvals, or as a negative number declines."""

    def answered(self, approved: bool) -> None:
        """One more answer."""
        if approved:
            self.run = max(self.run, 0) + 1
        else:
            self.run = min(self.run, 0) - 1

    @property
    def always(self) -> bool | None:
        """What it always tells; None: now this and now that."""
        if self.run > SAME_APPROVALS:
            return True
        return False if self.run < -SAME_DECLINES else None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What one report may teach."""

    call: bool
    """Whether the provider worked."""
    answer: bool
    """What the issuer said."""


@dataclass(slots=True)
class _OwnCalls:
    """The router's own calls lately, from a count that only grows."""

    before: int = 0
    last: tuple[float, int] | None = None

    def lately(self, total: int, now: float) -> int:
        """Since one to two hours ago; at first, since the process began."""
        if self.last is None:
            self.last = (now, total)
        elif now - self.last[0] >= OTHERS_HEARD_S:
            self.before, self.last = self.last[1], (now, total)
        return total - self.before


@dataclass(slots=True)
class Reports:
    """Of one provider. Thread-safe."""

    _tellers: dict[str, _Teller] = field(default_factory=dict)
    _own: _OwnCalls = field(default_factory=_OwnCalls)
    _believed_alone: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hear(
        self,
        merchant: str,
        failed: bool,
        now: float,
        *,
        rates: tuple[float, float],
        own_calls: int,
        in_trouble: bool,
        approved: bool | None = None,
        call: bool = True,
    ) -> Lesson:
        """One call that a merchant tells of. Answers what it may teach.

        `rates` to tell apart, usual and in trouble; `own_calls`: all that this router ever heard of its own;
        `in_trouble`: the circuit is suspect, or keeps payments away; `approved`: the issuer's answer, None without
        one; `call` False: the call was told before, and this is only its answer.
        """
        with self._lock:
            teller = self._teller(merchant, now, rates)
            teller.tokens = min(TAUGHT_AT_ONCE, teller.tokens + (now - teller.heard_at) * TAUGHT_PER_S)
            self._fade(teller, now)
            teller.cusum.aim(*rates)
            if call:
                teller.cusum.add(1, int(failed))
            if approved is not None:
                teller.answered(approved)
            self._believed_alone = (
                self._own.lately(own_calls, now) < FEW_OWN_CALLS and len(self._lately(now)) < WITNESSES
            )
            if teller.tokens < 1:
                return Lesson(call=False, answer=False)
            teller.tokens -= 1
            return Lesson(
                call=call and (in_trouble or not teller.cusum.alarmed or self._is_suspect(now)),
                answer=teller.always is None or self._say_the_same(teller, now),
            )

    def suspect(self, now: float) -> bool:
        """Whether those who report say together that the provider is in trouble."""
        if not self._tellers:
            return False  # nearly always, and quick: this is asked several times a second
        with self._lock:
            return self._is_suspect(now)

    def reset(self) -> None:
        """Suspect nothing: the circuit has moved, and what was told was about the time before."""
        if not self._tellers:
            return
        with self._lock:
            for teller in self._tellers.values():
                teller.cusum.reset()

    def reason(self, now: float) -> str:
        """What speaks for trouble, in plain words; empty when nothing does."""
        with self._lock:
            if not self._is_suspect(now):
                return ""
            count = len(self._alarmed(now))
        return f"clients report more failures than usual ({count} {'merchant' if count == 1 else 'merchants'})"

    def evidence(self, now: float) -> dict[str, Any]:
        """The figures behind it; no merchant is named."""
        with self._lock:
            alarmed, lately = self._alarmed(now), self._lately(now)
        return {"reporting_merchants": len(lately), "reporting_trouble": len(alarmed)} if lately else {}

    # ------------------------------------------------------------ inside the lock

    def _teller(self, merchant: str, now: float, rates: tuple[float, float]) -> _Teller:
        found = self._tellers.get(merchant)
        if found is None:
            if len(self._tellers) >= MERCHANTS_HELD:
                del self._tellers[min(self._tellers, key=lambda each: self._tellers[each].heard_at)]
            found = self._tellers[merchant] = _Teller(ErrorCusum(*rates), now)
        return found

    def _fade(self, teller: _Teller, now: float) -> None:
        teller.cusum.fade(0.5 ** ((now - teller.heard_at) / FADES_BY_HALF_S))
        teller.heard_at = now

    def _lately(self, now: float) -> list[_Teller]:
        return [each for each in self._tellers.values() if now - each.heard_at < OTHERS_HEARD_S]

    def _alarmed(self, now: float) -> list[_Teller]:
        return [
            each
            for each in self._tellers.values()
            if each.cusum.statistic * 0.5 ** ((now - each.heard_at) / FADES_BY_HALF_S) >= each.cusum.alarm_at
        ]

    def _say_the_same(self, teller: _Teller, now: float) -> bool:
        """Whether others always tell this answer too, or there are none."""
        alike = [each for each in self._lately(now) if each.always is teller.always]
        return self._believed_alone or len(alike) >= WITNESSES

    def _is_suspect(self, now: float) -> bool:
        return len(self._alarmed(now)) >= (1 if self._believed_alone else WITNESSES)
