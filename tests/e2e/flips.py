"""One outage of the primary on real processes: one flip, in LaunchDarkly's stand-in or the flags file; all follow."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flags.contract import PRIMARY_PROVIDER
from tests.e2e.flip_houses import (
    FLIP_AFTER_S,
    PROCESSES,
    Shop,
    all_flags,
    flip_house,
    house_on_launchdarkly,
    in_force,
    rows,
    settled,
    shopping,
    spread,
    wall,
)
from tests.e2e.house import House, eventually
from tests.fakes.launchdarkly import FakeLaunchDarkly

SOON_S = 1.0
"""What the router promises: from the duration's end to the override, and from the store's yes to every process."""
OPENED_S = 0.5
"""After an opening, a payment that was decided before may still be on its way to the broken provider."""
SECOND_WRITE_S = 0.5
"""For whoever would write a second time."""


@dataclass(frozen=True)
class FlipRound:
    """One outage, and what came of it. Times in seconds."""

    override_s: float
    """From the moment when the flip was due until the override was on record."""
    obeyed_s: float
    """Until the last payment was planned by the old primary, whichever process planned it."""
    written_s: float
    """Until the store had accepted the write."""
    followed_s: float
    """From then until the last payment that needed the override, or still had the old primary."""
    writes: int
    states: tuple[str, ...]
    statuses: Counter[int]
    to_broken: int
    """Payments that were sent to the broken provider once its circuit was open."""
    in_doubt: int
    """Payments that were with the provider when it broke: held until it was back, then settled."""
    money: tuple[str, ...]
    """What ledger, books and answers disagree in at the end."""
    others: tuple[str, ...] = ()
    """What else is not as promised."""

    @property
    def wrong(self) -> list[str]:
        """What is not as promised."""
        checks = {
            f"override after {self.override_s:.2f} s": self.override_s <= SOON_S,
            f"obeyed after {self.obeyed_s:.2f} s": self.obeyed_s <= SOON_S,
            f"followed after {self.followed_s:.2f} s": self.followed_s <= SOON_S,
            f"{self.writes} writes": self.writes == 1,
            f"flips {self.states}": self.states == ("confirmed",),
            f"statuses {dict(self.statuses)}": set(self.statuses) <= {201, 202},
            f"{self.to_broken} payments to the broken provider": self.to_broken == 0,
        }
        return [*(text for text, fine in checks.items() if not fine), *self.money, *self.others]


@dataclass
class FlipReport:
    """Many rounds."""

    store: str
    rounds: list[FlipRound] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Rounds in which something was not as promised."""
        return sum(bool(each.wrong) for each in self.rounds)

    def lines(self) -> Iterator[str]:
        """The table."""
        payments, doubts = Counter[int](), [each.in_doubt for each in self.rounds]
        for each in self.rounds:
            payments += each.statuses
        yield (
            f"{self.store}: {len(self.rounds)} outages, {sum(len(each.states) for each in self.rounds)} flips, "
            f"{sum(each.writes for each in self.rounds)} writes, {self.wrong} gone wrong"
        )
        yield f"{payments.total()} payments, answered {dict(payments)}; {sum(doubts)} in doubt, settled at the return"
        for name, title in TITLES.items():
            yield spread(title, [getattr(each, name) for each in self.rounds])
        for number, each in enumerate(self.rounds, 1):
            if each.wrong:
                yield f"round {number}: {'; '.join(each.wrong)}"


TITLES = {
    "override_s": "due → override on record",
    "obeyed_s": "due → every process obeys",
    "written_s": "due → the store accepted",
    "followed_s": "accepted → every process follows",
}


def flip_once(folder: Path) -> FlipRound:
    """With LaunchDarkly's stand-in, on fresh processes."""
    with FakeLaunchDarkly(all_flags()) as ld, house_on_launchdarkly(folder, ld) as house:
        return outage(house, ld)


def outage(house: House, ld: FakeLaunchDarkly) -> FlipRound:
    """The first outage of a house: until the flag is moved, and everyone follows it."""
    with shopping(house) as shop:
        eventually(lambda: len(shop.answers) > 30 and ld.streams == PROCESSES, 30)
        house.control("PUT", "/stripe", {"mode": "down"})
        eventually(lambda: ld.serves(PRIMARY_PROVIDER) == "adyen", 20)
        accepted = wall(ld.patches[0].at)
        _until_over(house, shop)
        writes = len(ld.patches)
    return judged(house, shop, accepted, writes)


def flip_once_in_file(folder: Path) -> FlipRound:
    """With no account: the flags are in a file."""
    with flip_house(folder) as house:
        with shopping(house) as shop:
            eventually(lambda: len(shop.answers) > 30, 20)
            before = _flag(house)["version"]
            house.control("PUT", "/stripe", {"mode": "down"})
            eventually(lambda: _serves(house) == "adyen", 20)
            # When its content was complete; a rename into its place follows at once.
            accepted = house.flags_file.stat().st_mtime
            _until_over(house, shop)
            writes = _flag(house)["version"] - before
        return judged(house, shop, accepted, writes)


def _flag(house: House) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(house.flags_file.read_text())["flags"][PRIMARY_PROVIDER]
    return found


def _serves(house: House) -> object:
    flag = _flag(house)
    return flag["variations"][flag["fallthrough"]["variation"]]


def _until_over(house: House, shop: Shop) -> None:
    eventually(lambda: not in_force(house), 10)
    time.sleep(SECOND_WRITE_S)
    shop.sells(10)


def judged(
    house: House,
    shop: Shop,
    accepted: float,
    writes: int,
    *,
    broken: str = "stripe",
    others: tuple[str, ...] = (),
) -> FlipRound:
    """What the ledger has of it, once nobody orders any more. `accepted`: when the store took it, wall clock."""
    query = (
        "SELECT at FROM circuit_transitions WHERE provider = ? AND incident = 'inc_' || provider || '_' || version"
    )
    opened_at = rows(house, query, broken)[0]["at"] / 1e6
    due = opened_at + FLIP_AFTER_S
    (override,) = rows(house, "SELECT began_at FROM primary_overrides")
    by_old, by_override = [due], [accepted]
    for at, reasons in planned(house):
        if broken in reasons:
            by_old.append(at)
        if broken in reasons or any("in place of" in each for each in reasons.values()):
            by_override.append(at)
    late = int((opened_at + OPENED_S) * 1e6)
    to_broken = rows(house, "SELECT 1 FROM attempts WHERE provider = ? AND started_at > ?", broken, late)
    in_doubt, money = settled(house, shop)
    return FlipRound(
        override_s=override["began_at"] / 1e6 - due,
        obeyed_s=max(by_old) - due,
        written_s=accepted - due,
        followed_s=max(by_override) - accepted,
        writes=writes,
        states=tuple(row["state"] for row in rows(house, "SELECT state FROM flips")),
        statuses=Counter(status for status, _ in shop.answers),
        to_broken=len(to_broken),
        in_doubt=in_doubt,
        money=tuple(money),
        others=others,
    )


def planned(house: House) -> Iterator[tuple[float, dict[str, str]]]:
    """Of every payment when it was planned, by the wall clock; by provider, the reason that makes it the primary."""
    for row in rows(house, "SELECT created_at, decision FROM payments"):
        candidates = json.loads(row["decision"])["candidates"]
        told = {each["provider"]: why for each in candidates for why in each["reasons"] if why.startswith("primary")}
        yield row["created_at"] / 1e6, told
