"""The console's settlements: a file is uploaded as a person does it, and what differs is found by looking."""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from providers.sandbox.server import Sandbox
from router.ledger.console_settlements import SettlementSummaries
from router.ledger.engine import Database
from router.ledger.settlement_views import SettlementViews
from router.ledger.tables import settlement_imports, settlement_lines
from router.reconciliation.matching import DIFFERING
from tests.integration.console_visitor import Visitor, visitor
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.settlement_world import AT, PLANTS, World
from tests.integration.shop import Shop, open_shop

pytestmark = pytest.mark.either_database

EVIL = "<img src=x onerror=alert(2)>.csv"
OCTOBER = "provider=stripe&from=2026-10-01T00:00&to=2026-11-01T00:00"


@pytest.fixture(scope="module", params=BACKENDS)
def shop(
    request: pytest.FixtureRequest, sandbox_process: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A router; each test imports what no other does."""
    folder = tmp_path_factory.mktemp("settlements")
    with ledger_on(request.param, request, folder) as url, open_shop(url, sandbox_process, folder) as shop:
        yield shop


@pytest.fixture(autouse=True)
def _nothing_imported(shop: Shop) -> Iterator[None]:
    yield
    with shop.core.database.write() as connection:
        for table in (settlement_lines, settlement_imports):
            connection.execute(table.delete())


def upload(person: Visitor, data: bytes, name: str = "october.csv", **form: str) -> TestResponse:
    """Choose a file, and press the button."""
    person.get("/settlements")
    return person.send("/settlements", {"provider": "stripe", "file": (io.BytesIO(data), name), **form})


def imported(shop: Shop) -> int:
    """Imports and lines that the ledger has."""
    with shop.core.database.read() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
            for table in (settlement_imports, settlement_lines)
        )


def world(shop: Shop, seed: int) -> World:
    """A ledger and its file, with one difference of every kind."""
    made = World("stripe", seed=seed)
    made.build(60, 1)
    made.save(shop.core.database)
    return made


@pytest.fixture(scope="module")
def made(shop: Shop) -> World:
    """The ledger's side is written once."""
    return world(shop, 11)


def test_every_difference_of_an_uploaded_file_is_listed_with_its_payment(shop: Shop, made: World) -> None:
    """Each kind under its verdict, by the provider's reference; what is in the ledger only on its own page."""
    person = visitor(shop)
    answer = upload(person, made.file())
    assert answer.status_code == 303, answer.text
    place = answer.headers["Location"].removeprefix("/console").partition("?")[0]
    assert "new lines of" in person.text(answer.headers["Location"].removeprefix("/console"))

    for verdict in DIFFERING:
        page = person.get(f"{place}?verdict={verdict}").text
        listed = re.findall(r'<th scope="row"><code>([^<]*)</code>', page)
        wanted = sorted(
            reference for (given, reference), n in made.found.items() if given == verdict for _ in range(n)
        )
        assert sorted(listed) == wanted, verdict
        if verdict != "provider_only":
            (link, *_) = re.findall(r'href="/console(/payments/pay_[^"]+)"', page)
            assert person.get(link).status_code == 200
    missing = person.get(f"/settlements/missing?{OCTOBER}").text
    assert len(re.findall(r'<th scope="row">', missing)) == len(made.missing) == 2
    files = person.text("/settlements")
    assert "october.csv" in files
    assert "differs" in files
    many = sum(n for (verdict, _), n in made.found.items() if verdict in DIFFERING)
    assert f"{many} differ" in person.text("/now/live")


def test_the_same_file_again_changes_nothing_and_says_so(shop: Shop, made: World) -> None:
    """It leads to the import that is there."""
    person = visitor(shop)
    first = upload(person, made.file()).headers["Location"]
    before = imported(shop)
    again = upload(person, made.file(), "another-name.csv")
    assert again.headers["Location"] == first.replace("now", "before")
    assert "nothing was done" in person.text(again.headers["Location"].removeprefix("/console"))
    assert imported(shop) == before


@pytest.mark.parametrize("wrong", ["line", "columns", "account", "nothing", "pan"])
def test_a_broken_file_is_refused_by_its_line_and_nothing_is_imported(shop: Shop, made: World, wrong: str) -> None:
    """The page names the line and the column, never the value, and the form is there to try again."""
    lines = made.file().split(b"\r\n")
    heading = lines[0].split(b",")
    if wrong == "line":
        cells = lines[7].split(b",")
        cells[heading.index(b"gross")] = b"stolen"
        lines[7] = b",".join(cells)
    elif wrong == "columns":
        lines[0] = lines[0].replace(b"gross", b"net worth")
    elif wrong == "pan":
        cells = lines[7].split(b",")
        cells[heading.index(b"gross")] = b"4242424242424242"
        lines[7] = b",".join(cells)
    data = b"" if wrong == "nothing" else b"\r\n".join(lines)
    form = {"provider": "adyen"} if wrong == "account" else {}
    answer = upload(visitor(shop), data, **form)
    assert answer.status_code == 422
    told = {"line": "line 8, gross:", "pan": "line 8, gross:", "columns": "line 1, gross:", "account": "line 1, "}
    assert told.get(wrong, "line 1: the file is empty") in answer.text
    assert "Nothing was imported" in answer.text
    assert "stolen" not in answer.text
    assert "4242" not in answer.text
    assert 'type="file"' in answer.text
    assert imported(shop) == 0


def test_an_upload_needs_its_forms_token_a_login_and_the_scope(shop: Shop, made: World) -> None:
    """Nobody else's file is read: not without a session, not for reports alone, not without the token."""
    person, data = visitor(shop), made.file()
    for form in ({}, {"form_token": "0" * 64}):
        sent = {"provider": "stripe", "file": (io.BytesIO(data), "x.csv"), **form}
        assert person.client.post("/console/settlements", data=sent).status_code == 403
    person.get("/settlements")
    other = {"headers": {"Sec-Fetch-Site": "cross-site"}}
    sent = {"provider": "stripe", "file": (io.BytesIO(data), "x.csv")}
    assert person.send("/settlements", sent, **other).status_code == 403
    large = {"provider": "stripe", "file": (io.BytesIO(b"x" * 200_000), "x.csv")}
    guest = Visitor(shop).client.post("/console/settlements", data=large)
    assert (guest.status_code, "/console/login" in guest.headers["Location"]) == (302, True)
    for scope, seen in (("reports", True), ("payments", False)):
        shop.add_key(f"only-{scope}-{shop.url}", merchant="default", scopes=(scope,))
        reader = visitor(shop, f"only-{scope}-{shop.url}")
        page = reader.get("/settlements")
        assert (page.status_code == 200) == seen
        assert 'type="file"' not in page.text
        large = {"provider": "stripe", "file": (io.BytesIO(b"x" * 200_000), "x.csv")}
        assert reader.send("/settlements", large).status_code == 403
        assert reader.get("/settlements/missing").status_code == (200 if seen else 403)
    assert imported(shop) == 0


@pytest.mark.parametrize(
    ("form", "field"), [({"provider": "paypal"}, "provider"), ({"file": ""}, "file"), ({"provider": ""}, "provider")]
)
def test_a_form_that_is_not_whole_names_its_field(shop: Shop, form: dict[str, str], field: str) -> None:
    """On the page with the form; the value is not repeated."""
    answer = upload(visitor(shop), b"x", **form)
    assert answer.status_code == 422
    assert f"{field}: " in answer.text
    assert "paypal" not in answer.text


def test_a_large_file_passes_the_usual_limit_of_a_body(shop: Shop, made: World) -> None:
    """Which is for JSON: 64 KiB."""
    text = b'"A ""quoted"", text"'
    data = made.file().replace(text, b'"' + b"x" * 4000 + b'"')
    assert len(data) > 128 * 1024
    assert upload(visitor(shop), data).status_code == 303


def test_another_merchants_lines_are_not_shown(shop: Shop, made: World) -> None:
    """Its operator sees lines of no payment here, its finance nothing at all; nobody a link to the payments."""
    own = visitor(shop)
    place = upload(own, made.file()).headers["Location"].removeprefix("/console").partition("?")[0]
    for scope in ("operate", "reports"):
        shop.add_key(f"other-{scope}-{shop.url}", merchant="another", scopes=(scope,))
        stranger = visitor(shop, f"other-{scope}-{shop.url}")
        for verdict in ("matched", "amount_differs", "fee_differs", "provider_only"):
            page = stranger.get(f"{place}?verdict={verdict}").text
            rows = page.count('<th scope="row">')
            assert bool(rows) == (scope == "operate" and verdict == "provider_only"), (scope, verdict)
            assert "/console/payments/pay_" not in page
        missing = stranger.get(f"/settlements/missing?{OCTOBER}").text
        assert "/console/payments/pay_" not in missing
        assert "pay_" not in missing


def test_what_a_file_is_called_is_text_and_never_markup(shop: Shop, made: World) -> None:
    """In the list and as the page's title."""
    person = visitor(shop)
    place = upload(person, made.file(), EVIL).headers["Location"].removeprefix("/console")
    for path in ("/settlements", place):
        page = person.get(path).text
        assert "onerror" in page
        assert "<img" not in page


def test_lists_go_on_where_they_stopped(shop: Shop, made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines by their number, what is missing by its moment: each once."""
    monkeypatch.setattr("router.console.page_settlements.PAGE", 1)
    monkeypatch.setattr("router.api.paging.PAGE", 3)
    person = visitor(shop)
    place = upload(person, made.file()).headers["Location"].removeprefix("/console").partition("?")[0]
    for first, pattern in (
        (f"{place}?verdict=matched", r'<td class="number">(\d+)</td><td>(?:capture|refund)'),
        (f"/settlements/missing?{OCTOBER}", r"<td><code>(\w+)</code></td>"),
    ):
        seen: list[str] = []
        path: str | None = first
        while path is not None:
            page = person.get(path).text
            seen += re.findall(pattern, page)
            following = re.findall(r'rel="next" href="(?:/console)([^"]*)"', page)
            path = following[0].replace("&amp;", "&") if following else None
        assert len(seen) == len(set(seen)) >= 2, first


def test_what_is_missing_is_looked_for_a_week_at_a_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as in one go, in its order, up to the limit; a week is eleven minutes here, for payments of hours."""
    monkeypatch.setattr("router.ledger.console_settlements.LOOKED_AT_ONCE", dt.timedelta(minutes=11))
    made = World("stripe", seed=3)
    made.build(200, 0, plants=PLANTS)
    made.save(database)
    views, summaries = SettlementViews(database), SettlementSummaries(database)
    until = AT + dt.timedelta(days=1)
    whole = views.missing("stripe", AT, until, limit=10_000)
    assert len(whole) > 150
    assert whole[-1].at - whole[0].at > dt.timedelta(minutes=33)
    assert summaries.missing("stripe", AT, until, limit=10_000) == whole
    assert summaries.missing("stripe", AT, until, limit=100) == whole[:100]
    after = (whole[99].at, whole[99].id)
    assert summaries.missing("stripe", AT, until, limit=10_000, after=after) == whole[100:]
