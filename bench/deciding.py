"""What deciding costs in process: terms of three providers with scores of 60 segments, and their order. µs, medians.

    make bench-deciding

Without flags and circuits, which are read beside it (`make bench-flags`, `make bench-breaker`). Runs take turns, so
that whatever else the machine does hits all; the last line is what the same machine needs for a known piece of work.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flags.contract import RoutingFlags
from providers.fees import FeeBook, Sale
from router.appraisal import Appraiser
from router.policy import Decision, Offer, decide, drawn
from router.scores import Scores
from router.segments import Segment, segment

PROVIDERS = ("stripe", "adyen", "third")
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
BRANDS, COUNTRIES, AMOUNTS = ("visa", "mastercard", "amex"), ("DE", "FR", "NL", "GB", "US"), (500, 1999, 9999, 50_000)
CALLS, ROUNDS = 400, 25
DECISION_LIMIT_US, LEARNING_LIMIT_US = 15.0, 4.0
"""What issue 5 asks."""


def kinds() -> list[Segment]:
    """Sixty segments."""
    return [
        segment(amount, brand, country, "card") for brand in BRANDS for country in COUNTRIES for amount in AMOUNTS
    ]


def fed(rng: random.Random) -> Scores:
    """Scores that know a week's answers of every segment at every provider."""
    scores = Scores(PROVIDERS)
    for back in range(20_000, 0, -1):
        at = NOW.timestamp() - back * 30
        name = rng.choice(PROVIDERS)
        scores.hear_answer(name, rng.choice(kinds()), rng.random() < 0.88, at)
        scores.hear_calls(name, 1, int(rng.random() < 0.002), at)
    return scores


def main() -> int:
    """Print the table; answer 1 where a limit is not kept."""
    rng = random.Random(1)  # noqa: S311 - a draw for a bench is no secret
    scores = fed(rng)
    appraiser = Appraiser(PROVIDERS, scores=scores, fees=FeeBook.default())
    flags = RoutingFlags(strategy="best-value")
    segments = kinds()
    rng.shuffle(segments)
    turns = itertools.cycle(segments)
    sale = Sale(Decimal("19.99"), "EUR", "visa", "credit", "domestic", NOW.date())

    def one() -> Decision:
        terms = appraiser.terms_of(next(turns), sale, NOW)
        offers = [Offer(name, terms[name]) for name in PROVIDERS]
        return decide(offers, flags, 19.99, draws=drawn(flags, rng.random), incumbent="stripe")

    decision, at = one(), NOW.timestamp()
    works: dict[str, Callable[[], object]] = {
        "a decision: terms and order": one,
        "  of it: scores read": lambda: scores.read(next(turns), at),
        "  of it: three fees": lambda: [appraiser._fees.quote(name, sale) for name in PROVIDERS],
        "its explanation, as it is stored": decision.to_json,
        "a learning step": lambda: scores.hear_answer("stripe", segments[7], approved=True, at=at),
        "(one dictionary of 60 made and sorted)": lambda: sorted({each: each for each in range(60)}),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.thread_time()
            for _ in range(CALLS):
                work()
            taken[name].append((time.thread_time() - began) / CALLS * 1e6)
            scores.take_heard()
    medians = {name: statistics.median(each) for name, each in taken.items()}
    for name, each in medians.items():
        sys.stdout.write(f"{name:42} {each:6.1f} µs\n")
    decided, learned = next(iter(medians.values())), medians["a learning step"]
    return int(decided > DECISION_LIMIT_US or learned > LEARNING_LIMIT_US)


if __name__ == "__main__":
    sys.exit(main())
