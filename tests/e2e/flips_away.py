"""An outage of the primary while LaunchDarkly is away, on real processes: they ran before, or start without it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flags.contract import PRIMARY_PROVIDER
from router.transitions import INCIDENT_OVER_AFTER
from tests.e2e.flip_houses import (
    PROCESSES,
    all_flags,
    holds,
    house_on_launchdarkly,
    in_force,
    rows,
    settled,
    shopping,
    wall,
)
from tests.e2e.flips import SOON_S, FlipRound, judged, planned
from tests.e2e.house import eventually
from tests.fakes.launchdarkly import FakeLaunchDarkly

BACKOFF_S = 65.0
"""So long at most are both left alone: the REST API by the router, the stream by the SDK."""
DROPPED_S = 80.0
"""From the write on: every stream must have had the time to come back."""


@dataclass(frozen=True)
class AwayRound:
    """One incident with LaunchDarkly away, and what came of it. Times in seconds."""

    name: str
    start_s: float
    """From the start of the processes until each has answered a payment."""
    away_s: float
    """From the override until LaunchDarkly was back."""
    back_to_written_s: float
    back_to_streams_s: float
    """Until every process had its stream again."""
    back_to_dropped_s: float
    """Until the override was over."""
    strayed: int
    """Payments planned by the broken primary once the override was in force, to the end."""
    flip: FlipRound

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        flip = self.flip
        checks = {
            f"override after {flip.override_s:.2f} s": flip.override_s <= SOON_S,
            f"{flip.writes} writes": flip.writes == 1,
            f"flips {flip.states}": flip.states == ("confirmed",),
            f"statuses {dict(flip.statuses)}": set(flip.statuses) <= {201, 202},
            f"{flip.to_broken} payments to the broken provider": flip.to_broken == 0,
            f"{self.strayed} payments by the broken primary": self.strayed == 0,
        }
        return [*(text for text, fine in checks.items() if not fine), *flip.money, *flip.others]

    def lines(self) -> Iterator[str]:
        """The table."""
        flip = self.flip
        yield f"{self.name}: {'; '.join(self.wrong) or 'all as promised'}"
        yield f"{flip.statuses.total()} payments, answered {dict(flip.statuses)}; {flip.in_doubt} in doubt, settled"
        times = {
            "start → each process has served": self.start_s,
            "due → override on record": flip.override_s,
            "override → LaunchDarkly is back": self.away_s,
            "back → PATCH accepted": self.back_to_written_s,
            "back → every stream": self.back_to_streams_s,
            "back → override over": self.back_to_dropped_s,
        }
        for name, seconds in times.items():
            yield f"{name:<34}{seconds:8.3f} s"


def away_for_the_incident(folder: Path, away_s: float) -> AwayRound:
    """It goes, then the primary; so many seconds after the override it comes back."""
    with FakeLaunchDarkly(all_flags()) as ld:
        return _incident(folder, ld, "away for the incident", away_s, broken="stripe", goes=True)


def away_at_start(folder: Path, away_s: float) -> AwayRound:
    """The processes start without it, by what those before them knew: a primary that is not the default."""
    with FakeLaunchDarkly(all_flags()) as ld:
        ld.person_sets(PRIMARY_PROVIDER, "adyen")
        with house_on_launchdarkly(folder, ld) as house:
            eventually(lambda: rows(house, "SELECT 1 FROM flag_changes WHERE key = ?", PRIMARY_PROVIDER), 10)
        ld.away()
        return _incident(folder, ld, "away at start", away_s, broken="adyen", goes=False)


def away_beyond_the_incident(folder: Path) -> list[str]:
    """The provider is well again before LaunchDarkly is back: what is wrong then, after six minutes.

    The flip is superseded with the incident's end, and the override with it; nothing is written later.
    """
    quick = {"ROUTER_BREAKER_OPEN_WAIT_SECONDS": "1", "ROUTER_BREAKER_SLOW_START_SECONDS": "3"}
    with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(folder, ld, **quick) as house:
        with shopping(house) as shop:
            eventually(lambda: len(shop.answers) > 30 and ld.streams == PROCESSES, 30)
            ld.away()
            house.control("PUT", "/stripe", {"mode": "down"})
            eventually(lambda: in_force(house), 20)
            house.control("PUT", "/stripe", {"mode": "ok"})
            ends = INCIDENT_OVER_AFTER.total_seconds() + 60
            wrong = [] if holds(lambda: not in_force(house), ends) else ["the override outlives its incident"]
            ended = time.time()
            ld.back()
            eventually(lambda: ld.streams == PROCESSES, BACKOFF_S)
            time.sleep(BACKOFF_S / 4)
            shop.sells(10)
        flips = [(each["state"], each["cause"]) for each in rows(house, "SELECT state, cause FROM flips")]
        if [(state, "is over" in cause) for state, cause in flips] != [("superseded", True)]:
            wrong.append(f"flips {flips}")
        if ld.patches or ld.serves(PRIMARY_PROVIDER) != "stripe":
            wrong.append(f"{len(ld.patches)} PATCHes, the flag serves {ld.serves(PRIMARY_PROVIDER)}")
        statuses = Counter(status for status, _ in shop.answers)
        if set(statuses) - {201, 202}:
            wrong.append(f"statuses {dict(statuses)}")
        if [told for at, told in planned(house) if at > ended + SOON_S and "stripe" not in told]:
            wrong.append("payments by another primary once the incident was over")
        return wrong + settled(house, shop)[1]


def _incident(folder: Path, ld: FakeLaunchDarkly, name: str, away_s: float, *, broken: str, goes: bool) -> AwayRound:
    other = {"stripe": "adyen", "adyen": "stripe"}[broken]
    begun = time.monotonic()
    with house_on_launchdarkly(folder, ld) as house:
        with shopping(house) as shop:
            shop.sells(1)
            start_s = time.monotonic() - begun
            shop.sells(30)
            if goes:
                eventually(lambda: ld.streams == PROCESSES, 30)
                ld.away()
            first = {answer["decision"]["primary"] for _, answer in shop.answers}
            house.control("PUT", f"/{broken}", {"mode": "down"})
            eventually(lambda: in_force(house), 20)
            overridden = time.time()
            time.sleep(away_s)
            shop.sells(10)
            ld.back()
            back = time.time()
            eventually(lambda: ld.serves(PRIMARY_PROVIDER) == other, BACKOFF_S)
            accepted = wall(ld.patches[0].at)
            eventually(lambda: ld.streams == PROCESSES, BACKOFF_S)
            streams_s = time.time() - back
            is_dropped = holds(lambda: not in_force(house), DROPPED_S)
            shop.sells(20)
        others: tuple[str, ...] = () if is_dropped else ("the override stays",)
        others += () if first == {broken} else (f"served {first} before the outage, which is not what was known",)
        flip = judged(house, shop, accepted, len(ld.patches), broken=broken, others=others)
        (override,) = rows(house, "SELECT began_at, ended_at FROM primary_overrides")
        strayed = [at for at, told in planned(house) if broken in told and at > override["began_at"] / 1e6 + SOON_S]
    return AwayRound(
        name=name,
        start_s=start_s,
        away_s=back - overridden,
        back_to_written_s=accepted - back,
        back_to_streams_s=streams_s,
        back_to_dropped_s=(override["ended_at"] or 0) / 1e6 - back,
        strayed=len(strayed),
        flip=flip,
    )
