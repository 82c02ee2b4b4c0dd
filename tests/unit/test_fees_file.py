"""The file of fees: every error is told at its line and column, and never with the value."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from providers.fees import FeeBook, Sale
from providers.fees_file import MOST_ERRORS, MOST_LINES, FeesFileError, by_provider, load, parse

TODAY = dt.date(2026, 11, 21)
HEADER = "provider,valid_from,valid_until,currency,brand,funding,region,percent,fixed,per_attempt"
SOUND = ("stripe,2024-01-01,,,,,,2.9,,", "adyen,2024-01-01,,,,,,2.1,,")
SECRET = "planted-7q"


def read(*lines: str, header: str = HEADER, today: dt.date = TODAY) -> FeeBook:
    return parse("\n".join((header, *lines)).encode(), providers=("stripe", "adyen"), today=today)


def refused(*lines: str, header: str = HEADER) -> list[str]:
    with pytest.raises(FeesFileError) as error:
        read(*lines, header=header)
    assert str(error.value) == str(error.value.findings[0])
    return [str(each) for each in error.value.findings]


def fee(book: FeeBook, *, currency: str = "EUR", brand: str | None = None, at: dt.date = TODAY) -> Decimal:
    return book.quote("stripe", Sale(Decimal(100), currency, brand, None, None, at)).fee


def test_a_sound_file_prices_every_sale() -> None:
    """Each line by its cell and its days; words in any spelling that means the same."""
    book = read(
        *SOUND,
        "Stripe,2026-11-21,,eur,VISA,,,1.5,0.25,",
        "stripe,2026-12-01,,EUR,visa,,,1.4,0.25,0.0001",
        "stripe,2026-11-01,2026-11-22,USD,,,,3,,",
    )
    assert [fee(book), fee(book, brand="Visa"), fee(book, currency="USD")] == [Decimal("2.9"), Decimal("1.75"), 3]
    assert fee(book, brand="visa", at=dt.date(2026, 12, 1)) == Decimal("1.65")
    assert fee(book, currency="USD", at=dt.date(2026, 11, 22)) == Decimal("2.9")
    assert {name: len(lines) for name, lines in by_provider(book).items()} == {"stripe": 4, "adyen": 1}
    ends = {line.number: line.until for line in book.lines}
    assert (ends[4], ends[5], ends[6]) == (dt.date(2026, 12, 1), None, dt.date(2026, 11, 22))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_spreadsheets_marks_and_line_ends_do_no_harm(mark: bytes, ends: str) -> None:
    """A byte order mark, CRLF, empty lines, columns in another order and spaces around what is in them."""
    header = "region , funding,brand,currency,per_attempt,fixed,percent,Valid_From,PROVIDER"
    lines = [header, "", ",,,,,,2.9, 2024-01-01 ,stripe", ",,,,,,,,", '"","","",EUR,0.13,,"2.1",2024-01-01,adyen']
    lines.append(",,,,,,2.0,2024-01-01,adyen")
    book = parse(mark + ends.join(lines).encode() + ends.encode(), providers=("stripe", "adyen"), today=TODAY)
    assert fee(book) == Decimal("2.9")
    assert sorted(line.number for line in book.lines) == [3, 5, 6]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        (f"{SECRET},2024-01-01,,,,,,1,,", "4: provider: unknown: one of stripe, adyen"),
        (",2024-01-01,,,,,,1,,", "4: provider: unknown: one of stripe, adyen"),
        ("stripe,2024-01-01,,XXQ,,,,1,,", "4: currency: unknown: three letters of ISO 4217"),
        ("stripe,2024-01-01,,XAU,,,,1,,", "4: currency: unknown: three letters of ISO 4217"),
        (f"stripe,2024-01-01,,EUR,{SECRET},,,1,,", "4: brand: unknown: one of visa,"),
        ("stripe,2024-01-01,,EUR,-,,,1,,", "4: brand: unknown: one of visa,"),
        (f"stripe,2024-01-01,,EUR,,{SECRET},,1,,", "4: funding: unknown: one of credit, debit, prepaid"),
        ("stripe,2024-01-01,,EUR,,,Europe,1,,", "4: region: unknown: one of domestic, regional, international"),
        ("stripe,2024-01-01,,EUR,,,,-1.5,,", "4: percent: negative"),
        ("stripe,2024-01-01,,EUR,,,,1,-0.01,", "4: fixed: negative"),
        ("stripe,2024-01-01,,EUR,,,,1,,-1", "4: per_attempt: negative"),
        ("stripe,2024-01-01,,EUR,,,,,,", "4: percent: missing"),
        ("stripe,2024-01-01,,EUR,,,,100.01,,", "4: percent: more than 100"),
        ("stripe,2024-01-01,,EUR,,,,2.9%,,", "4: percent: not a number such as 0.30"),
        ('stripe,2024-01-01,,EUR,,,,"2,9",,', "4: percent: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,NaN,,", "4: percent: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,1e1,,", "4: percent: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,\u0661,,", "4: percent: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,1,€0.30,", "4: fixed: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,1,12345678,", "4: fixed: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,1,=0.3,", "4: fixed: not a number such as 0.30"),
        ("stripe,2024-01-01,,EUR,,,,1.00001,,", "4: percent: more than 4 decimals"),
        ("stripe,2024-01-01,,EUR,,,,1,0.00000,", "4: fixed: more than 4 decimals"),
        ("stripe,2024-01-01,,,,,,1,0.30,", "4: fixed: an amount needs a currency"),
        ("stripe,2024-01-01,,,visa,,,1,,0.1", "4: per_attempt: an amount needs a currency"),
        ("stripe,,,EUR,,,,1,,", "4: valid_from: not a date such as 2026-11-21"),
        ("stripe,21.11.2026,,EUR,,,,1,,", "4: valid_from: not a date such as 2026-11-21"),
        ("stripe,2026-02-29,,EUR,,,,1,,", "4: valid_from: there is no such day"),
        (f"stripe,2024-01-01,{SECRET},EUR,,,,1,,", "4: valid_until: not a date such as 2026-11-21"),
        ("stripe,2024-01-01,2024-01-01,EUR,,,,1,,", "4: valid_until: must be after valid_from"),
        ("stripe,2024-01-01,,EUR,,,,1,", "4: 9 columns, where the first line has 10"),
        ("stripe,2024-01-01,,EUR,,,,1,,,", "4: 11 columns, where the first line has 10"),
        ('stripe,2024-01-01,,EUR,,,,1,,"', "4: not CSV: a quote is not closed, or misplaced"),
        ('stripe,2024-01-01,,EUR,"a"b,,,1,,', "4: not CSV: a quote is not closed, or misplaced"),
    ],
)
def test_what_is_wrong_in_a_line_is_told_at_its_column(line: str, finding: str) -> None:
    """One sentence, with which a person finds the cell, and nothing of what is in it."""
    found = refused(*SOUND, line)
    assert len(found) == 1
    assert found[0].startswith(finding)
    assert SECRET not in found[0]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ((SOUND[0],), ["1: provider: gap: there is no line for adyen"]),
        ((), ["1: provider: gap: there is no line for stripe", "1: provider: gap: there is no line for adyen"]),
        (
            ("stripe,2024-01-01,,EUR,,,,2.9,,", SOUND[1]),
            [
                "2: provider: gap: stripe needs a line that leaves currency, brand, funding, region empty, "
                "for all other sales"
            ],
        ),
        (
            ("stripe,2026-11-22,,,,,,2.9,,", SOUND[1]),
            ["2: valid_from: gap: no line for all other sales of stripe today"],
        ),
        (
            ("stripe,2024-01-01,2030-01-01,,,,,2.9,,", SOUND[1]),
            ["2: valid_until: gap: nothing follows for all other sales of stripe"],
        ),
        (
            ("stripe,2024-01-01,2025-01-01,,,,,2.9,,", SOUND[1], "stripe,2025-01-02,,,,,,3,,"),
            ["4: valid_from: gap: line 2, for the same sales, has ended before"],
        ),
        (
            (*SOUND, "stripe,2024-01-01,2025-01-01,EUR,,,,2.9,,", "stripe,2025-01-02,,EUR,,,,3,,"),
            ["5: valid_from: gap: line 4, for the same sales, has ended before"],
        ),
        (
            (*SOUND, "stripe,2024-01-01,,,,,,3,,"),
            ["4: valid_from: overlap: line 2 is for the same sales from the same day"],
        ),
        (
            ("stripe,2024-01-01,2025-01-02,,,,,2.9,,", SOUND[1], "stripe,2025-01-01,,,,,,3,,"),
            ["4: valid_from: overlap: line 2, for the same sales, has not ended by then"],
        ),
        (
            (*SOUND, "adyen,2024-01-01,,,visa,,,1,,", "adyen,2025-01-01,,,,,international,3,,"),
            [
                "5: overlap: line 4 and this one are equally specific for some sales on the same day; "
                "a line that names brand and region would settle it"
            ],
        ),
    ],
)
def test_gaps_and_overlaps_are_told_at_a_line(lines: tuple[str, ...], found: list[str]) -> None:
    """Each sale on each day has exactly one price."""
    assert refused(*lines) == found


def test_a_third_line_settles_an_overlap_for_as_long_as_it_holds() -> None:
    """A day before or after is enough to be in doubt again."""
    pair = (*SOUND, "adyen,2024-01-01,,,visa,,,1,,", "adyen,2025-01-01,2027-01-01,,,,international,3,,")
    assert len(read(*pair, "adyen,2024-06-01,2027-01-01,,visa,,international,2,,").lines) == 5
    halves = ("adyen,2025-01-01,2026-01-01,,visa,,international,2,,", "adyen,2026-01-01,,,visa,,international,2,,")
    assert len(read(*pair, *halves).lines) == 6
    for line in (
        "adyen,2025-01-02,,,visa,,international,2,,",
        "adyen,2024-01-01,2026-12-31,,visa,,international,2,,",
    ):
        assert refused(*pair, line)[0].startswith("5: overlap")


def test_an_overlap_may_be_settled_by_several_lines_one_after_the_other() -> None:
    """A more specific one in between, which ends earlier, takes nothing from what the broader one settles."""
    pair = (*SOUND, "stripe,2024-01-01,,EUR,visa,,,1,,", "stripe,2024-01-01,,,,credit,domestic,2,,")
    settled = (
        "stripe,2024-01-01,2030-01-01,EUR,visa,credit,,3,,",
        "stripe,2024-06-01,2025-01-01,EUR,visa,credit,domestic,4,,",
        "stripe,2030-01-01,,EUR,visa,,domestic,5,,",
    )
    assert len(read(*pair, *settled).lines) == 7


def test_the_least_and_the_most_that_is_taken() -> None:
    """A price from today on, all of the sale, and nothing."""
    book = read(f"stripe,{TODAY},,,,,,100,0,0", "adyen,2024-01-01,,EUR,,,,0.0000,9999999.9999,-0", SOUND[1])
    assert fee(book) == 100
    assert book.quote("adyen", Sale(Decimal(100), "EUR", None, None, None, TODAY)).fee == Decimal("9999999.9999")


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    """A cell with a line break in it is two lines, and a row begins on its first."""
    assert refused('"stripe\n",2024-01-01,,,,,,2.9,,', "", SOUND[1], '"adyen\n",2024-01-01,,EUR,,,,-1,,') == [
        "6: percent: negative"
    ]


def test_lines_of_different_providers_days_or_words_do_not_overlap() -> None:
    """Nor does a line that begins on the day on which the other ends."""
    book = read(
        *SOUND,
        "adyen,2024-01-01,2025-01-01,,visa,,,1,,",
        "adyen,2025-01-01,,,,,international,3,,",
        "stripe,2024-01-01,,,visa,,,1,,",
        "stripe,2024-01-01,,EUR,,debit,,1,,",
        "stripe,2024-01-01,,USD,visa,,,1,,",
    )
    assert len(book.lines) == 7


def test_every_error_of_a_file_is_told_at_once() -> None:
    """In the order of its lines. Of a provider one of whose lines cannot be read, no gap is told."""
    assert refused("stripe,2024-01-01,,,,,,-1,,", SOUND[1], "adyen,x,,ZZZ,,,,x,,", "adyen,2024-01-01,,,,,,3,,") == [
        "2: percent: negative",
        "4: valid_from: not a date such as 2026-11-21",
        "4: currency: unknown: three letters of ISO 4217",
        "4: percent: not a number such as 0.30 (a point, no signs, at most 7 digits before it)",
        "5: valid_from: overlap: line 3 is for the same sales from the same day",
    ]
    assert refused("adyen,2024-01-01,,EUR,,,,3,,", "stripe,2024-01-01,,,,,,-1,,") == [
        "2: provider: gap: adyen needs a line that leaves currency, brand, funding, region empty, "
        "for all other sales",
        "3: percent: negative",
    ]


def test_the_errors_that_are_told_are_bounded() -> None:
    """A file of another kind has one in every line."""
    for lines in (["x"] * 60, [f"stripe,2024-01-01,,,{brand},,,1,," for brand in ["visa"] * 60]):
        with pytest.raises(FeesFileError) as error:
            read(*SOUND, *lines)
        assert (len(error.value.findings), error.value.more) == (MOST_ERRORS, True)
    with pytest.raises(FeesFileError) as error:
        read(*SOUND, "x")
    assert not error.value.more


def test_a_wrong_header_is_told_alone() -> None:
    """Without its names nothing else can be read."""
    assert refused(*SOUND, header=HEADER.replace("brand", SECRET)) == [
        "1: column 5 has no name of ours: the columns are provider, valid_from, currency, brand, funding, region, "
        "percent, fixed, per_attempt, valid_until, separated by commas",
        "1: brand: this column is missing",
    ]
    assert refused("", header=f"{HEADER},Percent") == ["1: percent: this column is there twice"]
    assert len(refused("", header=HEADER.replace(",", ";"))) == 10
    assert len(refused(header="")) == 9


def test_what_is_no_text_and_what_is_too_much_is_refused() -> None:
    """A spreadsheet's own file, another encoding, a file of millions of lines."""
    with pytest.raises(FeesFileError, match="2: not UTF-8: save it as CSV UTF-8"):
        parse(HEADER.encode() + b"\n\xff", providers=(), today=TODAY)
    with pytest.raises(FeesFileError, match="1: larger than 1000000 bytes"):
        parse(b"a" * 1_000_001, providers=(), today=TODAY)
    with pytest.raises(FeesFileError, match=f"more than {MOST_LINES} lines"):
        read(*SOUND, *(f"adyen,{1000 + n}-01-01,,EUR,,,,1,," for n in range(MOST_LINES - 1)))


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    """With the providers that must be in it; one that cannot be read is the caller's to tell."""
    path = tmp_path / "fees.csv"
    with pytest.raises(OSError, match="No such file"):
        load(path, providers=("stripe",), today=TODAY)
    path.write_text(f"{HEADER}\n{SOUND[0]}\n")
    assert fee(load(path, providers=("stripe",), today=TODAY)) == Decimal("2.9")


def test_the_documents_example_is_sound() -> None:
    """Whoever copies it begins with a file that starts the router."""
    text = (Path(__file__).parents[2] / "docs/choosing.md").read_text()
    example = text.partition("```csv\n")[2].partition("```")[0]
    book = parse(example.encode(), providers=("stripe", "adyen"), today=TODAY)
    assert len(book.lines) == 8
    assert [fee(book), fee(book, at=dt.date(2027, 1, 1))] == [Decimal("1.75"), Decimal("1.65")]
