"""What scores cost: one learning step, one reading for a decision, and a second's exchange; medians of runs.

    python bench/scores.py

60 segments × 3 providers, as issue 5 asks; the learning step includes what tells it to the other processes.
"""

from __future__ import annotations

import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from router.clock import ManualClock
from router.ledger.engine import Database
from router.ledger.migrate import migrate
from router.ledger.scores import ScoreLedger
from router.score_sharing import ScoreSharing
from router.scores import Scores
from router.segments import segment

NAMES = ("stripe", "adyen", "third")
SEGMENTS = [
    segment(amount, brand, country, "card")
    for amount in (500, 3_000, 10_000, 50_000)
    for brand in ("visa", "mastercard", "amex")
    for country in ("DE", "FR", "US", "GB", "NL")
]
LEARNING_LIMIT_US = 4.0
READING_LIMIT_US = 4.0
RUNS = 15
STEPS = 20_000
START = 1_795_000_000.0


def scores_with_a_past() -> Scores:
    """Every segment known at every provider."""
    scores, chance = Scores(NAMES), random.Random(1)  # noqa: S311 - not a secret
    for number in range(20_000):
        where = chance.choice(SEGMENTS)
        scores.hear_answer(chance.choice(NAMES), where, chance.random() < 0.9, START + number)
    for name in NAMES:
        scores.hear_calls(name, 1_000, 3, START)
    scores.take_heard()
    return scores


def learning(scores: Scores) -> Callable[[int], None]:
    """Answers all over the segments, a hundred a second."""
    answers = [(name, where, n % 9 > 0) for n, (name, where) in enumerate(itertools.product(NAMES, SEGMENTS))]
    hear, moments = scores.hear_answer, itertools.count()

    def run(steps: int) -> None:
        for (name, where, approved), n in zip(
            itertools.cycle(answers), itertools.islice(moments, steps), strict=False
        ):
            hear(name, where, approved, START + 20_000 + n / 100)

    return run


def reading(scores: Scores) -> Callable[[int], None]:
    """What each provider is expected to do with a payment, for payments of all segments."""
    read = scores.read

    def run(steps: int) -> None:
        for n, where in zip(range(steps), itertools.cycle(SEGMENTS), strict=False):
            read(where, START + 20_000 + n / 100)

    return run


def median_us(run: Callable[[int], None], after: Callable[[], object] = lambda: None) -> float:
    """Microseconds of CPU a step, the loop around it included; other processes' turns are not."""
    took = []
    for _ in range(RUNS):
        began = time.thread_time()
        run(STEPS)
        took.append((time.thread_time() - began) / STEPS * 1e6)
        after()
    return statistics.median(took)


def exchange_ms(folder: str) -> tuple[float, float, float]:
    """Telling a busy second, hearing it in another process, and learning that past anew; on SQLite."""
    database = Database(f"sqlite:///{folder}/ledger.db")
    migrate(database)
    clock = ManualClock()
    ledger = ScoreLedger(database)
    first, second = Scores(NAMES), Scores(NAMES)
    ours = ScoreSharing(first, store=ledger, process="web:1", clock=clock)
    theirs = ScoreSharing(second, store=ledger, process="web:2", clock=clock)
    ours.exchange_once()
    theirs.exchange_once()
    told, heard = [], []
    for _ in range(60):
        at = clock.now().timestamp()
        for n in range(100):
            first.hear_answer(NAMES[n % 3], SEGMENTS[n % 60], n % 9 > 0, at)
        for took, sharing in ((told, ours), (heard, theirs)):
            began = time.perf_counter()
            sharing.exchange_once()
            took.append((time.perf_counter() - began) * 1e3)
        clock.advance(0.9)
    begins = time.perf_counter()
    ScoreSharing(Scores(NAMES), store=ledger, process="web:3", clock=clock).exchange_once()
    start_ms = (time.perf_counter() - begins) * 1e3
    database.close()
    return statistics.median(told), statistics.median(heard), start_ms


def main() -> int:
    """Print the table; 1 where a limit is not kept."""
    scores = scores_with_a_past()
    learned = median_us(learning(scores), scores.take_heard)
    read = median_us(reading(scores))
    print(f"{len(SEGMENTS)} segments × {len(NAMES)} providers, median of {RUNS} runs of {STEPS}")
    print(f"learning step  {learned:6.2f} µs  (limit {LEARNING_LIMIT_US})")
    print(f"reading        {read:6.2f} µs  (limit {READING_LIMIT_US})")
    with TemporaryDirectory() as folder:
        told, heard, start = exchange_ms(folder)
    print(f"exchange of 100 answers: telling {told:.1f} ms, hearing {heard:.1f} ms; learning the past {start:.1f} ms")
    return int(learned > LEARNING_LIMIT_US or read > READING_LIMIT_US)


if __name__ == "__main__":
    sys.exit(main())
