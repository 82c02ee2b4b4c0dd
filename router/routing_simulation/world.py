"""One simulated week, drawn from a seed: its payments, and what would become of each at each provider. Pure.

Every policy gets the same payments and the same random numbers: what becomes of a payment at a provider is settled
here, by one number for the issuer's mind (the same at every provider, so that one with the better rate approves all
that the worse one does) and one for each provider's own fault. So the difference between two policies is that of
their choices, and not of their luck.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from router.routing_simulation.parameters import BAND_ENDS, BANDS, LARGEST, WEEK_S, Parameters
from router.routing_simulation.troubles import Availability, Fall, draw_availability, draw_falls

APPROVED = 0
DECLINED = 1
NOT_EXECUTED = 2
"""The provider failed, and provably did nothing: the next may be asked."""
LOST = 3
"""The provider failed and may have charged: nobody else is asked, and the sale is not made."""

_HOURS = int(WEEK_S / 3600)


@dataclass(frozen=True, slots=True)
class Kind:
    """A segment of payments."""

    brand: str
    country: str
    band: int
    """Of the amount, 0 the smallest."""
    issuer: int
    """Number of its brand × country."""


@dataclass(frozen=True, slots=True)
class World:
    """One week. Sequences but `kinds`, `probes` and `availabilities` have an item per payment, in order of time."""

    parameters: Parameters
    kinds: Sequence[Kind]
    at: Sequence[float]
    """Seconds since the week began."""
    kind: Sequence[int]
    """Index in `kinds`."""
    amount: Sequence[float]
    """Major units."""
    approval: Sequence[tuple[float, ...]]
    """The true probability that the issuer approves, by provider."""
    available: Sequence[tuple[float, ...]]
    """The true probability that the provider answers, by provider."""
    proved: Sequence[tuple[float, ...]]
    """Of the calls that fail, the share that provably did nothing, by provider."""
    result: Sequence[tuple[int, ...]]
    """What becomes of the payment, by provider: APPROVED, DECLINED, NOT_EXECUTED or LOST."""
    failure_known_s: Sequence[tuple[float, ...]]
    """Seconds until a call that fails is known to have failed, by provider."""
    answer_at: Sequence[float]
    """When the issuer's answer is known, whichever provider asked."""
    answers_in_order: Sequence[int]
    """Numbers of the payments as their answers become known."""
    probes: Sequence[bytes]
    """By provider and `PROBE_EVERY_S`: whether a synthetic probe is answered."""
    availabilities: Sequence[Availability]
    seed: int

    def __len__(self) -> int:
        return len(self.at)


def draw_world(seed: int, payments: int, parameters: Parameters) -> World:
    """One week with so many payments."""
    people = len(parameters.providers)
    kinds = [
        Kind(brand, country, band, issuer)
        for issuer, (brand, country) in enumerate(
            (brand, country) for brand, _ in parameters.brands for country, _ in parameters.countries
        )
        for band in range(BANDS)
    ]
    availabilities = [draw_availability(parameters, Random(f"{seed}/troubles/{each}")) for each in range(people)]
    rates = _Rates(parameters, kinds, seed)
    at, kind, amount = _payments(parameters, payments, Random(f"{seed}/payments"))
    answer_at = _answers(parameters, at, Random(f"{seed}/answers"))
    approval, available, proved, result, failure_known_s = [], [], [], [], []
    draw = Random(f"{seed}/fates").random
    well = (tuple(each.well for each in availabilities), (0.5,) * people, (0.0,) * people)
    for number, now in enumerate(at):
        chances = rates.at(kind[number], now)
        outages = [each.outage(now) for each in availabilities]
        if any(outages):
            up = tuple(parameters.well if out is None else 1 - out.fails for out in outages)
            nothing_done = tuple(0.5 if out is None else out.kind.proved for out in outages)
            known_s = tuple(0.0 if out is None else out.kind.known_after_s for out in outages)
        else:
            up, nothing_done, known_s = well
        mind, proof = draw(), draw()
        fate = []
        for chance, works, nothing in zip(chances, up, nothing_done, strict=True):
            if draw() < works:
                fate.append(APPROVED if mind < chance else DECLINED)
            else:
                fate.append(NOT_EXECUTED if proof < nothing else LOST)
        approval.append(chances)
        available.append(up)
        proved.append(nothing_done)
        result.append(tuple(fate))
        failure_known_s.append(known_s)
    return World(
        parameters,
        kinds,
        at,
        kind,
        amount,
        approval,
        available,
        proved,
        result,
        failure_known_s,
        answer_at,
        sorted(range(payments), key=answer_at.__getitem__),
        [each.probes(Random(f"{seed}/probes/{number}")) for number, each in enumerate(availabilities)],
        availabilities,
        seed,
    )


class _Rates:
    """The true probability of an approval, by segment, provider and moment."""

    def __init__(self, parameters: Parameters, kinds: Sequence[Kind], seed: int) -> None:
        draws = Random(f"{seed}/rates")
        people, issuers = range(len(parameters.providers)), range(kinds[-1].issuer + 1)
        everywhere = [draws.gauss(0, parameters.provider_spread) for _ in people]
        brand = {name: draws.gauss(0, parameters.brand_spread) for name, _ in parameters.brands}
        country = {name: draws.gauss(0, parameters.country_spread) for name, _ in parameters.countries}
        band = [draws.gauss(0, parameters.band_spread) for _ in range(BANDS)]
        issuer = [[draws.gauss(0, parameters.issuer_spread) for _ in issuers] for _ in people]
        self._issuer = [each.issuer for each in kinds]
        self._base = [
            [
                parameters.level
                + brand[each.brand]
                + country[each.country]
                + band[each.band]
                + everywhere[one]
                + issuer[one][each.issuer]
                + draws.gauss(0, parameters.segment_spread)
                for one in people
            ]
            for each in kinds
        ]
        self._drift = [[_wander(parameters, draws) for _ in issuers] for _ in people]
        falls = draw_falls(parameters.step, len(people) * len(issuers), draws)
        self._falls = [falls[one * len(issuers) : (one + 1) * len(issuers)] for one in people]

    def at(self, kind: int, now: float) -> tuple[float, ...]:
        """By provider."""
        issuer = self._issuer[kind]
        hour, part = divmod(now / 3600, 1)
        index = int(hour)
        rates = []
        for base, drift, falls in zip(self._base[kind], self._drift, self._falls, strict=True):
            path = drift[issuer]
            odds = base + path[index] * (1 - part) + path[index + 1] * part
            if falls[issuer]:
                odds -= _fallen(falls[issuer], now)
            rates.append(1 / (1 + math.exp(-odds)))
        return tuple(rates)


def _fallen(falls: Sequence[Fall], now: float) -> float:
    """By how much the log-odds are down."""
    return sum(each.by for each in falls if each.start <= now < each.end)


def _wander(parameters: Parameters, draws: Random) -> list[float]:
    """An Ornstein-Uhlenbeck process at every full hour, from its stationary distribution."""
    kept = math.exp(-1 / parameters.drift_relaxation_h)
    fresh = parameters.drift_spread * math.sqrt(1 - kept * kept)
    path = [draws.gauss(0, parameters.drift_spread)]
    for _ in range(_HOURS + 1):
        path.append(path[-1] * kept + draws.gauss(0, fresh))
    return path


def _payments(
    parameters: Parameters, payments: int, draws: Random
) -> tuple[Sequence[float], Sequence[int], Sequence[float]]:
    """Moments, segments and amounts."""
    hours = [1 - parameters.daily_swing * math.cos(2 * math.pi * (hour % 24 - 3) / 24) for hour in range(_HOURS)]
    at = sorted(3600 * (hour + draws.random()) for hour in draws.choices(range(_HOURS), hours, k=payments))
    shares = list(accumulate(one * other for _, one in parameters.brands for _, other in parameters.countries))
    middle = math.log(parameters.median_amount)
    kind, amount = [], []
    for _ in range(payments):
        issuer = min(bisect_right(shares, draws.random() * shares[-1]), len(shares) - 1)
        paid = min(round(math.exp(draws.gauss(middle, parameters.amount_spread)), 2) or 0.01, LARGEST)
        kind.append(issuer * BANDS + bisect_right(BAND_ENDS, paid))
        amount.append(paid)
    return at, kind, amount


def _answers(parameters: Parameters, at: Sequence[float], draws: Random) -> Sequence[float]:
    """When each payment's answer is known: after it was asked for."""
    quick, slow = math.log(parameters.answer_median_s), math.log(parameters.challenge_median_s)
    known = []
    for now in at:
        middle = slow if draws.random() < parameters.challenged else quick
        known.append(now + math.exp(draws.gauss(middle, parameters.answer_spread)))
    return known
