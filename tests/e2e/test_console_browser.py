"""The console in a real browser, over real processes: an outage from the button that makes it to its end.

`make console-pictures` has it leave pictures of every page in docs/ (`$CONSOLE_PICTURES`).
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, browser, missing
from tests.e2e.house import House, eventually

pytestmark = [
    pytest.mark.processes,
    pytest.mark.browser,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

SCREENS = ((1280, False), (1280, True), (390, False))
"""Widths and schemes, dark or not: what is seen narrow has the colours that it has wide."""
PICTURES = os.environ.get("CONSOLE_PICTURES")
PLAIN, MORE = ((1280, False),), ((1280, False), (1280, True), (390, False))
SHOWN_MORE = ("now", "payment", "reports")
"""Pages whose pictures are taken in the dark and narrow, too."""
CALM_S, OUTAGE_S, AFTER_S = (110, 60, 70) if PICTURES else (0, 0, 0)
"""A picture of an outage needs something before it, some of it, and something after it."""
KEY = "the-key-of-this-test"
TAB, ENTER = "\ue004", "\ue007"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house with a little traffic that notices, flips and recovers within seconds."""
    house = House(
        tmp_path_factory.mktemp("console"),
        ROUTER_DEMO_TRAFFIC_PER_SECOND="8",
        ROUTER_BREAKER_OPEN_WAIT_SECONDS="1",
        ROUTER_BREAKER_SLOW_START_SECONDS="1",
        ROUTER_FLIP_AFTER_SECONDS="2",
    )
    yield house
    house.stop()


@pytest.fixture(scope="module")
def window(house: House) -> Iterator[Browser]:
    with browser(house.url) as window:
        window.size(1280, 900)
        yield window


def check(window: Browser, name: str) -> None:
    """The page at both widths, in both schemes: nothing that axe objects to, nothing wider than the window."""
    for width, dark in SCREENS:
        window.size(width, 900, dark=dark)
        assert window.wrong(colours_alone=dark) == [], (name, width, dark)
        assert window.overflow() <= 0, (name, width)
        if PICTURES and (width, dark) in (MORE if name in SHOWN_MORE else PLAIN):
            ending = f"{'-narrow' if width < 500 else ''}{'-dark' if dark else ''}"
            window.picture(Path(PICTURES) / f"{name}{ending}.png", width, dark=dark)
    window.size(1280, 900)
    window.listen()
    assert window.elsewhere() == set(), name
    assert window.logged == [], name


def test_an_outage_is_made_seen_and_undone_in_the_console(house: House, window: Browser) -> None:
    """Log in, break Stripe, watch the circuit open, payments move, the flag flip, recovery; then undo the flip."""
    window.go("/console")
    check(window, "login")
    # With the keyboard alone: the field has the focus; on the page the first stop skips the menu.
    window.keys(KEY + ENTER)
    eventually(lambda: window.run("return location.pathname") == "/console/now", 5)
    window.keys(TAB)
    assert window.run("return document.activeElement.className") == "skip"
    window.keys(ENTER)
    assert window.run("return document.activeElement.id") == "main"
    eventually(lambda: "stripe closed primary" in words(window, ".p-stripe.provider"), 10)

    time.sleep(CALM_S)
    window.go("/console/sandbox")
    window.click("form[action$='/sandbox/stripe'] button[value=down]")
    eventually(lambda: "stripe down" in words(window, ".breaker.p-stripe"), 5)
    window.go("/console/now")
    # Nothing is loaded anew from here on: the page refreshes itself.
    window.run("window.untouched = true")
    eventually(lambda: "open" in words(window, ".p-stripe.provider header"), 15)
    # That it does so by itself was seen; from here on it is asked to, as by somebody who comes back to its tab.
    eventually(lambda: "adyen" in refreshed(window, ".stat.wide strong"), 15)
    eventually(lambda: "set by pointsman, by flip" in refreshed(window, ".stat.wide"), 5)
    assert {"open", "flip"} <= set(words(window, ".news").split())
    assert window.run("return document.querySelectorAll('.lane.p-stripe .s-open').length") >= 1
    assert window.run("return document.querySelectorAll('.lane.p-stripe .k-failed').length") >= 1
    assert window.run("return document.querySelectorAll('.lane .mark').length") >= 1
    assert window.run("return document.querySelectorAll('.lane .f-adyen').length") == 1
    time.sleep(OUTAGE_S)
    house.control("PUT", "/stripe", {"mode": "ok"})
    eventually(lambda: "stripe closed" in refreshed(window, ".p-stripe.provider"), 20)
    time.sleep(AFTER_S)
    assert window.run("return window.untouched") is True
    assert window.run("return document.querySelectorAll('.lane.p-stripe .s-slow-start').length") >= 1
    check(window, "now")

    window.go("/console/incidents")
    check(window, "incidents")
    window.click("tbody th a")
    check(window, "incident")
    window.driver.find_element("link text", "stripe → adyen").click()
    check(window, "flip")
    window.type("#reason", "Stripe is well again")
    window.click("input[name=confirmed]")
    window.click("button.danger")
    eventually(lambda: "restored" in restored(window), 10)
    eventually(lambda: house.pay()[1]["provider"] == "stripe", 5)
    assert "operator: bootstrap key of default: Stripe is well again" in words(window, "main")


def test_every_other_page_is_sound_at_both_widths(house: House, window: Browser) -> None:
    """Payments, one that failed over, the store, flags, a page that is not there."""
    window.go("/console")
    if "/login" in window.driver.current_url:
        window.type("#word", KEY + ENTER)
    first = house.pay()[1]["provider"]
    house.control("PUT", f"/{first}", {"mode": "down"})
    moved = eventually(lambda: next((each for each in [house.pay()[1]] if len(each["attempts"]) > 1), None), 10)
    house.control("PUT", f"/{first}", {"mode": "ok"})
    window.go("/console/payments")
    check(window, "payments")
    window.type("#q", moved["reference"] + ENTER)
    eventually(lambda: "reference" in window.driver.current_url or moved["reference"] in window.text("tbody"), 5)
    window.driver.find_element("link text", moved["reference"]).click()
    assert f"{first}: not executed" in words(window, ".steps")
    check(window, "payment")
    window.go("/console/sandbox")
    check(window, "sandbox")
    window.click("input[value=book]")
    window.click("form[action$='/sandbox/order'] button")
    assert "14.50 GBP" in window.text()
    window.go("/console/flags")
    check(window, "flags")
    # The worker adds payments up within seconds.
    eventually(lambda: has_reports(window), 20)
    eventually(lambda: window.run("return document.querySelectorAll('.chart .main-svg').length") >= 10, 10)
    check(window, "reports")
    window.click("tbody td a")
    assert "its payments" in window.text("h1")
    check(window, "report-payments")


def test_a_settlement_file_is_uploaded_and_compared(house: House, window: Browser, tmp_path: Path) -> None:
    """The stand-in's own file by the keyboard, one charge of it made dearer; a broken one; each page is sound."""
    window.go("/console")
    if "/login" in window.driver.current_url:
        window.type("#word", KEY + ENTER)
    eventually(lambda: house.pay()[1]["provider"] == "stripe", 10)
    file = tmp_path / "october.csv"
    rows = list(csv.DictReader(io.StringIO(house.text("GET", "/stripe/settlement"))))
    charge = next(each for each in rows if each["reporting_category"] == "charge")
    gross, net = charge["gross"], charge["net"]
    charge["gross"] = "a lot"
    write(file, rows)
    window.go("/console/settlements")
    send(window, file, "stripe")
    eventually(lambda: f"line {rows.index(charge) + 2}, gross: " in window.text("[role=alert]"), 10)
    window.listen()
    # The browser's own word on the page of 422, which is meant; and nothing else.
    assert [each.partition(" - ")[0] for each in window.logged] == [f"{house.url}/console/settlements"]
    window.logged.clear()
    charge |= {name: f"{Decimal(value) + 1}" for name, value in (("gross", gross), ("net", net))}
    write(file, rows)
    send(window, file, "stripe")
    eventually(lambda: "new lines of" in words(window, "[role=status]"), 20)
    assert "amount differs 1" in words(window, ".segments [aria-current]")
    check(window, "settlement")
    window.go("/console/settlements")
    assert "october.csv" in window.text("tbody")
    check(window, "settlements")
    window.driver.find_element("link text", "In the ledger only").click()
    check(window, "settlement-missing")


def write(file: Path, rows: list[dict[str, str]]) -> None:
    """A settlement file of these lines."""
    with file.open("w", newline="") as text:
        writer = csv.DictWriter(text, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def send(window: Browser, file: Path, provider: str) -> None:
    """Choose a file, and go on with the keyboard."""
    window.type("#file", str(file))
    window.run("document.querySelector('#file').focus()")
    window.keys(TAB)
    window.keys(provider)
    window.keys(TAB)
    window.keys(ENTER)


def refreshed(window: Browser, selector: str) -> str:
    """What a part of a live page says; and the page asks for what is new now, not in three seconds."""
    window.run("document.dispatchEvent(new Event('visibilitychange'))")
    return words(window, selector)


def has_reports(window: Browser) -> bool:
    """Whether the report has rows by now."""
    window.go("/console/reports")
    return bool(window.run("return document.querySelectorAll('tbody tr').length"))


def words(window: Browser, selector: str) -> str:
    """What a part of the page says, its lines joined."""
    return " ".join(window.text(selector).split())


def restored(window: Browser) -> str:
    """What the page says of the flip's state, loaded anew: a flip's page is no live one."""
    window.driver.refresh()
    return window.text("h1")
