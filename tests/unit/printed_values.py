"""The line that explains a value, read again: what its printed terms come to."""

from __future__ import annotations

import re
from decimal import Decimal

LINE = re.compile(
    r"(?P<provider>\w+) (?P<value>-?[\d.]+) = approval (?P<approval>[\d.]+)% "
    r"× availability (?P<availability>[\d.]+)% "
    r"× \((?:(?P<margin>[\d.]+)% × (?P<amount>[\d.]+)|guard (?P<guard>[\d.]+)) − fee (?P<fee>[\d.]+)\) "
    r"− attempt (?P<attempt>[\d.]+)(?: \(no fee schedule\))?"
)


def recomputed(line: str) -> tuple[str, Decimal, Decimal]:
    """Whose line it is, the value it prints, and what its terms come to."""
    found = LINE.fullmatch(line)
    assert found is not None, line
    texts = found.groupdict()
    printed = {name: Decimal(text) for name, text in texts.items() if text and name != "provider"}
    gain = printed["guard"] if "guard" in printed else printed["margin"] / 100 * printed["amount"]
    made = printed["approval"] / 100 * printed["availability"] / 100 * (gain - printed["fee"]) - printed["attempt"]
    return texts["provider"], printed["value"], made
