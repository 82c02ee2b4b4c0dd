"""Card numbers as people and machines write them: encoded, escaped, between dots or line breaks, in bytes.

`router.pan` holds the rule (digits, first digit, Luhn). Here a text is read as whoever decodes it will read it, and
each place of the text where a card number stands is told, so that the rest of it need not be lost.

Read through: percent-encoding (however often), backslash escapes of JSON and Python, HTML's numeric entities, digits
of any script. Between the digits: blanks, dashes, control and invisible characters, up to three of them, mixed as
they like; other marks (`.`, `/`, `_`, `:`, `,` …) only where the groups are a card's, else figures, addresses and
times would be taken for one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router.pan import LONGEST, MACHINE_ID, SHORTEST, contains_pan, is_pan, json_contains_no_pan

_DIGIT = re.compile(r"\d")
_ENCODED = re.compile(r"[%\\&]|[^\x00-\x7f]")
# One written character: the ways of writing it that are decoded, longest first.
# Backslashes are read from the first of them, and in one go: tried from each, 64 KB of them took half a minute.
_SLASHES = r"(?<!\\)\\++"
_BYTE = rf"(?:%(?:25)*|{_SLASHES}x)"
_MORE = rf"{_BYTE}[89ABab][0-9A-Fa-f]"
_CHARACTER = re.compile(
    rf"(?P<utf8>{_BYTE}[CDcd][0-9A-Fa-f]{_MORE}|{_BYTE}[Ee][0-9A-Fa-f](?:{_MORE}){{2}}"
    rf"|{_BYTE}[Ff][0-7](?:{_MORE}){{3}})"
    r"|%(?:25)*(?P<percent>[0-9A-Fa-f]{2})"
    rf"|{_SLASHES}(?:u(?P<u4>[0-9A-Fa-f]{{4}})|u\{{0*(?P<ubrace>[0-9A-Fa-f]{{1,6}})\}}|U(?P<u8>[0-9A-Fa-f]{{8}})"
    r"|x(?P<x2>[0-9A-Fa-f]{2})|(?P<space>[nrtbfv0]))"
    r"|&(?:amp;)*#(?:0*(?P<decimal>\d{1,7})|[xX]0*(?P<hex>[0-9A-Fa-f]{1,6}));|&(?P<nbsp>nbsp);"
    r"|(?P<plain>.)",
    re.DOTALL,
)
# Blanks, control characters (UTF-16 read as bytes has a NUL between its digits), dashes, and what nobody sees.
_GAP = (
    r"[\x00-\x20+\-\x7f-\xa0\xad\u1680\u180e\u2000-\u2015\u2028-\u202f\u205f-\u2064\u2212\u3000\ufe58\ufe63"
    r"\ufeff\uff0d]"
)
_RUN = re.compile(rf"\d+(?:{_GAP}{{1,3}}\d+)*", re.ASCII)
_MARKED = re.compile(
    r"(?<!\d)\d{1,16}(?P<mark>[._/,:;|*~'\"=#\u00b7\u2022])(?:\d{1,16}(?P=mark))*\d{1,16}(?!\d)", re.ASCII
)
_DIGITS = re.compile(r"\d+", re.ASCII)
_ODD = r"[\x00-\x1f\x7f+._/,:;|*~'\"=#]"
_OTHERWISE = re.compile(rf"[%\\&]|[^\x00-\x7f]|\d[ \-]*{_ODD}(?:{_ODD}|[ \-])*\d")
"""What the plain rule does not read through; blanks and dashes may stand beside it."""
_OTHERWISE_IN_JSON = re.compile(rf"[%&]|\d[ \-]*{_ODD}(?:{_ODD}|[ \-])*\d".encode())
"""The same in JSON as it is sent, where it is ASCII without a backslash; between two texts, too, which is no harm."""
_CARDS_GROUPS = frozenset(
    {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (8, 8), (6, 10), (6, 6, 4), (4, 4, 8), (5, 4, 4, 3), (4, 5, 6), (4, 4, 5)}
    | {(4, 4, 4, 4, last) for last in (1, 2, 3)}
    | {(4, 4, 4, last) for last in (1, 2, 3)}
    | {(8, 11), (6, 13)}
)
"""How cards print their numbers: ISO/IEC 7812-1 lengths in the schemes' groups."""
_GROUPS = sorted({len(each) for each in _CARDS_GROUPS})
# JSON's shape as far as card numbers go: digits are all `0`, whatever may stand between two of them is left out (what
# stands between two texts with it), and what has to be looked at closely (`%`: it may be read as something else;
# an exponent) keeps a character of its own.
_BETWEEN = bytes([*range(0x21), 0x7F]) + b"+-._/,:;|*~'\"=#"
_SHAPE = bytes(
    ord("0" if 0x30 <= each <= 0x39 else "e" if each in b"eE" else "%" if each in b"%\\&" or each > 0x7F else " ")
    for each in range(256)
)
_DIGITS_OF_ONE = b"0" * SHORTEST


def places(text: str) -> list[tuple[int, int]]:
    """Where card numbers stand in a text, as written: begins and ends, in order, none within another."""
    # Each way of writing a digit has a digit in it, so fewer of them hold no card number: ids and words end here.
    if len(text) < SHORTEST or len(_DIGIT.findall(text)) < SHORTEST:
        return []
    if not _ENCODED.search(text):
        return _merged(_found(text))
    decoded, begins, ends = _read(text)
    found = [(begins[begin], ends[end - 1]) for begin, end in _found(decoded)]
    # Also as it stands: what looks encoded may be plain.
    plain = _found(_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit.group())), text))
    return _merged([*found, *plain])


def holds_pan(value: Any) -> bool:
    """Whether a card number stands anywhere in a JSON value, however it is written."""
    if contains_pan(value):
        return True
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            if len(each) >= SHORTEST and _OTHERWISE.search(each) and places(each):
                return True
        elif isinstance(each, Mapping):
            left.extend(each.keys())
            left.extend(each.values())
        elif isinstance(each, Sequence) and not isinstance(each, bytes | bytearray):
            left.extend(each)
    return False


def json_holds_no_pan(data: bytes) -> bool:
    """Whether it is certain, of valid JSON as it was sent, that `holds_pan` would find nothing in it.

    Of most bodies it is by their shape alone: there are never digits enough, whatever stands between them. Of others
    by two passes over the bytes: a text without a backslash stands in the data as `holds_pan` reads it.
    """
    shape = data.translate(_SHAPE, _BETWEEN)
    if _DIGITS_OF_ONE not in shape and b"0e0" not in shape and b"%" not in shape:
        return True
    return _OTHERWISE_IN_JSON.search(data) is None and json_contains_no_pan(data)


def _read(text: str) -> tuple[str, list[int], list[int]]:
    """The text decoded, and for each of its characters where what it was written with begins and ends."""
    characters: list[str] = []
    begins: list[int] = []
    ends: list[int] = []
    for match in _CHARACTER.finditer(text):
        written = _decoded(match)
        characters.append(written)
        begins.extend([match.start()] * len(written))
        ends.extend([match.end()] * len(written))
    return "".join(characters), begins, ends


def _decoded(match: re.Match[str]) -> str:
    kind, written = match.lastgroup, match.group(match.lastgroup or 0)
    if kind == "plain":
        character = written
    elif kind in ("space", "nbsp"):
        return " "
    elif kind == "utf8":
        encoded = bytes.fromhex("".join(re.findall(r"[0-9A-Fa-f]{2}(?=[%\\]|$)", written)))
        character = encoded.decode(errors="replace")[:1]
    else:
        number = int(written, 10 if kind == "decimal" else 16)
        # A byte that is no character by itself stands between digits unseen.
        alone = kind in ("percent", "x2") and number > 0x7F
        character = " " if alone or number > 0x10FFFF else chr(number)
    if character.isascii():
        return character
    # Full-width and other digits read as digits to a person, and to whoever stores them.
    folded = unicodedata.normalize("NFKC", character)
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in folded)


def _found(text: str) -> list[tuple[int, int]]:
    if len(text) >= 32:
        text = MACHINE_ID.sub(lambda machine: "x" * len(machine.group()), text)
    return [*_in_runs(text), *_in_marked(text)]


def _in_runs(text: str) -> Iterator[tuple[int, int]]:
    for run in _RUN.finditer(text):
        if run.end() - run.start() < SHORTEST:
            continue
        groups = list(_DIGITS.finditer(text, run.start(), run.end()))
        parts = [group.group() for group in groups]
        for first, begin in enumerate(groups):
            digits = ""
            for last in range(first, len(groups)):
                digits += parts[last]
                if len(digits) > LONGEST:
                    break
                if len(digits) >= SHORTEST and is_pan(digits):
                    yield begin.start(), groups[last].end()


def _in_marked(text: str) -> Iterator[tuple[int, int]]:
    for run in _MARKED.finditer(text):
        groups = list(_DIGITS.finditer(text, run.start(), run.end()))
        lengths = [len(group.group()) for group in groups]
        single = 0
        for first in reversed(range(len(groups))):
            single = single + 1 if lengths[first] == 1 else 0
            # Its first groups as a card has them; or its digits one by one.
            shapes = {tuple(lengths[first : first + number]) for number in _GROUPS} & _CARDS_GROUPS
            for number in (*map(len, shapes), *range(SHORTEST, min(single, LONGEST) + 1)):
                last = first + number - 1
                if is_pan("".join(group.group() for group in groups[first : last + 1])):
                    yield groups[first].start(), groups[last].end()


def _merged(found: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(found):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
