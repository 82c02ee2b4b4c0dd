"""Flips and toggles on real processes: two web processes, two workers, the real SDK, LaunchDarkly's stand-in."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flags.contract import PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document
from router.settings import PROVIDER_NAMES
from tests.e2e.house import House, eventually
from tests.fakes.launchdarkly import FakeLaunchDarkly

FLIP_AFTER_S = 1.0
PACE_S = 0.03
SOON_S = 1.0
"""What the router promises: from the duration's end to the override, and from LaunchDarkly's yes to every process."""
OPENED_S = 0.5
"""After an opening, a payment that was decided before may still be on its way to the broken provider."""


@dataclass(frozen=True)
class FlipRound:
    """One outage, and what came of it. Times in seconds."""

    override_s: float
    """From the moment when the flip was due until the override was on record."""
    obeyed_s: float
    """Until the last payment was planned by the old primary, whichever process planned it."""
    written_s: float
    """Until LaunchDarkly had accepted the write."""
    followed_s: float
    """From then until the last payment that needed the override, or still had the old primary."""
    patches: int
    flips: int
    states: tuple[str, ...]
    statuses: Counter[int]
    to_broken: int
    """Payments that were sent to the broken provider once its circuit was open."""
    open_payments: int

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        checks = {
            f"override after {self.override_s:.2f} s": self.override_s <= SOON_S,
            f"obeyed after {self.obeyed_s:.2f} s": self.obeyed_s <= SOON_S,
            f"followed after {self.followed_s:.2f} s": self.followed_s <= SOON_S,
            f"{self.patches} PATCHes": self.patches == 1,
            f"flips {self.states}": self.states == ("confirmed",),
            f"statuses {dict(self.statuses)}": set(self.statuses) <= {201, 202},
            f"{self.to_broken} payments to the broken provider": self.to_broken == 0,
            f"{self.open_payments} payments not final": self.open_payments == 0,
        }
        return [text for text, fine in checks.items() if not fine]


@dataclass
class FlipReport:
    """Many rounds."""

    rounds: list[FlipRound] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Rounds in which something was not as promised."""
        return sum(bool(each.wrong) for each in self.rounds)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{len(self.rounds)} outages, {sum(each.flips for each in self.rounds)} flips, {self.wrong} gone wrong"
        for name in ("override_s", "obeyed_s", "written_s", "followed_s"):
            yield _spread(name, [getattr(each, name) for each in self.rounds])
        for number, each in enumerate(self.rounds, 1):
            if each.wrong:
                yield f"round {number}: {'; '.join(each.wrong)}"


def _spread(name: str, values: Sequence[float]) -> str:
    return f"{name:12} median {statistics.median(values):.2f}  maximum {max(values):.2f}"


@contextlib.contextmanager
def house_on_launchdarkly(folder: Path, ld: FakeLaunchDarkly, **settings: str) -> Iterator[House]:
    """Two web processes and two workers, their flags in the stand-in."""
    folder.mkdir(parents=True, exist_ok=True)
    house = House(
        folder,
        ROUTER_WEB_PROCESSES="2",
        ROUTER_LAUNCHDARKLY_SDK_KEY="sdk-key-of-this-test",
        ROUTER_LAUNCHDARKLY_BASE_URI=ld.uri,
        ROUTER_LAUNCHDARKLY_STREAM_URI=ld.uri,
        ROUTER_LAUNCHDARKLY_EVENTS_URI=ld.uri,
        ROUTER_LAUNCHDARKLY_API_URI=ld.uri,
        ROUTER_LAUNCHDARKLY_API_TOKEN=ld.token,
        ROUTER_LAUNCHDARKLY_PROJECT=ld.project,
        ROUTER_LAUNCHDARKLY_ENVIRONMENT=ld.environment,
        ROUTER_FLIP_AFTER_SECONDS=str(FLIP_AFTER_S),
        ROUTER_BREAKER_MINIMUM_CALLS="4",
        **settings,
    )
    second = subprocess.Popen(
        [sys.executable, "-m", "router", "worker"],
        env=house.env,
        stdout=(folder / "second.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield house
    finally:
        second.terminate()
        house.stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            second.wait(10)
        second.kill()


def all_flags() -> dict[str, dict[str, Any]]:
    """Every flag at its default, as a new project has them."""
    flags: dict[str, dict[str, Any]] = new_document(definitions(PROVIDER_NAMES).values())["flags"]
    return flags


@contextlib.contextmanager
def shopping(house: House, threads: int = 2) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Customers who order all the time; what they were answered."""
    answers: list[tuple[int, dict[str, Any]]] = []
    stop = threading.Event()

    def shop() -> None:
        while not stop.wait(PACE_S):
            answers.append(house.pay())

    customers = [threading.Thread(target=shop, daemon=True) for _ in range(threads)]
    for each in customers:
        each.start()
    try:
        yield answers
    finally:
        stop.set()
        for each in customers:
            each.join(30)


def rows(house: House, query: str, *values: Any) -> list[sqlite3.Row]:
    """From the house's ledger, beside it."""
    with contextlib.closing(sqlite3.connect(house.run_dir / "ledger.db", timeout=10)) as ledger:
        ledger.row_factory = sqlite3.Row
        return ledger.execute(query, values).fetchall()


def flip_once(folder: Path) -> FlipRound:
    """One outage of the primary on fresh processes: until the flag is moved, and everyone follows it."""
    with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(folder, ld) as house, shopping(house) as answers:
        eventually(lambda: len(answers) > 30 and ld.streams >= 4, 20)
        house.control("PUT", "/stripe", {"mode": "down"})
        eventually(lambda: ld.serves(PRIMARY_PROVIDER) == "adyen", 20)
        accepted = time.time() - (time.monotonic() - ld.patches[0].at)
        eventually(lambda: not _in_force(house), 10)
        time.sleep(0.5)  # for whoever would write a second time
        ended = len(answers)
        eventually(lambda: len(answers) > ended + 10, 10)
        patches = len(ld.patches)
    # The processes have ended, and with them every payment that was under way.
    return _judged(house, accepted, patches, Counter(status for status, _ in answers))


def _in_force(house: House) -> bool:
    return bool(rows(house, "SELECT 1 FROM primary_overrides WHERE ended_at IS NULL"))


def _judged(house: House, accepted: float, patches: int, statuses: Counter[int]) -> FlipRound:
    (opened,) = rows(house, "SELECT at FROM circuit_transitions WHERE provider = 'stripe' AND version = 1")
    opened_at = opened["at"] / 1e6
    due = opened_at + FLIP_AFTER_S
    (override,) = rows(house, "SELECT began_at FROM primary_overrides")
    by_old, by_override = [due], [accepted]
    for row in rows(house, "SELECT created_at, decision FROM payments"):
        at, reasons = row["created_at"] / 1e6, _reasons(row["decision"])
        if "stripe" in reasons:
            by_old.append(at)
        if "stripe" in reasons or "in place of" in reasons.get("adyen", ""):
            by_override.append(at)
    states = tuple(row["state"] for row in rows(house, "SELECT state FROM flips"))
    late = int((opened_at + OPENED_S) * 1e6)
    to_broken = rows(house, "SELECT 1 FROM attempts WHERE provider = 'stripe' AND started_at > ?", late)
    unfinished = rows(house, "SELECT 1 FROM payments WHERE status IN ('processing', 'parked')")
    return FlipRound(
        override_s=override["began_at"] / 1e6 - due,
        obeyed_s=max(by_old) - due,
        written_s=accepted - due,
        followed_s=max(by_override) - accepted,
        patches=patches,
        flips=len(states),
        states=states,
        statuses=statuses,
        to_broken=len(to_broken),
        open_payments=len(unfinished),
    )


def _reasons(decision: str) -> dict[str, str]:
    """By provider, the reason that names it the primary."""
    return {
        each["provider"]: reason
        for each in json.loads(decision)["candidates"]
        for reason in each["reasons"]
        if reason.startswith("primary")
    }


@dataclass
class Toggles:
    """How long each toggle of a product team took until every payment went by it."""

    seconds: list[float]
    lost: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{len(self.seconds)} toggles, {self.lost} lost"
        yield _spread("followed", self.seconds)


def toggle(house: House, ld: FakeLaunchDarkly, times: int, *, in_a_row: int = 10) -> Toggles:
    """Move the primary so often, each time until so many payments in a row, which two processes share, obey."""
    found = Toggles([])
    for number in range(times):
        wanted = ("adyen", "stripe")[number % 2]
        begun = time.monotonic()
        ld.person_sets(PRIMARY_PROVIDER, wanted)
        row, since = 0, time.monotonic()
        while row < in_a_row and time.monotonic() - begun < 10:
            asked = time.monotonic()
            follows = house.pay()[1]["provider"] == wanted
            row, since = (row + 1, since if row else asked) if follows else (0, since)
        found.lost += row < in_a_row
        found.seconds.append(since - begun)
    return found
