"""Debian's Chromium, driven through selenium: what a page says, what it fetches, what it logs, what axe finds."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(__file__).with_name("axe") / "axe.min.js"
"""axe-core 4.14.1, from the npm registry; MPL-2.0, its licence is beside it."""


def missing() -> str | None:
    """Why no page can be tested here; None: it can."""
    if CHROMIUM is None or DRIVER is None:
        return "there is no chromium or chromedriver: apt-get install chromium chromium-driver"
    if importlib.util.find_spec("selenium") is None:
        return "there is no selenium: it is in requirements/dev.txt"
    return None


class Browser:
    """One window."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url
        self.fetched: set[str] = set()
        self.logged: list[str] = []

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of that many CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def go(self, path: str) -> None:
        """Open a page of the house."""
        self.driver.get(self.url + path)

    def run(self, script: str, *values: Any) -> Any:
        """The value of a script in the page; the policy forbids a page's own `eval`, not the driver's scripts."""
        return self.driver.execute_script(script, *values)

    def text(self, selector: str = "main") -> str:
        """What a part of the page says."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def click(self, selector: str) -> None:
        """Click the first that is so."""
        self.driver.find_element("css selector", selector).click()

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.driver.find_element("css selector", selector).send_keys(text)

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is; a file's field, too, only sees keys."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def picture(self, path: Path, width: int, *, dark: bool = False) -> None:
        """A picture of the whole page."""
        self.size(width, 800, dark=dark)
        height = int(self.run("return document.documentElement.scrollHeight"))
        self.size(width, min(height, 1800), dark=dark)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))

    def wrong(self, *, colours_alone: bool = False) -> list[str]:
        """What axe finds against WCAG 2.2 A and AA, in words; the page's own policy stays in force.

        `colours_alone`: only the rules that another colour scheme can break; they take a third of the time of all.
        """
        if not self.run("return Boolean(window.axe)"):
            self.run(AXE.read_text())
        script = """
            const done = arguments[arguments.length - 1];
            const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
            const rules = {type: "rule", values: ["color-contrast", "link-in-text-block"]};
            axe.run(document, {runOnly: arguments[0] ? rules : tags, resultTypes: ["violations"]}).then(
                found => done(found.violations.flatMap(each => each.nodes.map(
                    node => each.id + ": " + node.target.join(" ") + ": " + node.failureSummary))),
                error => done(["axe failed: " + error]));
        """
        found: list[str] = self.driver.execute_async_script(script, colours_alone)
        return found

    def overflow(self) -> int:
        """How many pixels the page is wider than its window."""
        return int(self.run("return document.documentElement.scrollWidth - window.innerWidth"))

    def listen(self) -> None:
        """Take up what the browser has logged and fetched since the last time."""
        for each in self.driver.get_log("browser"):
            if each["level"] in ("SEVERE", "WARNING"):
                self.logged.append(each["message"])
        for each in self.driver.get_log("performance"):
            message: Mapping[str, Any] = json.loads(each["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.fetched.add(message["params"]["request"]["url"])

    def elsewhere(self) -> set[str]:
        """What was asked for anywhere but at the house."""
        home = urlsplit(self.url).netloc
        return {each for each in self.fetched if urlsplit(each).netloc != home and not each.startswith("data:")}


@contextmanager
def browser(url: str) -> Iterator[Browser]:
    """A window on that house, closed at the end."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for each in (
        "--headless=new",
        "--no-sandbox",  # CI's containers run as root
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
    ):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.set_script_timeout(30)
    try:
        yield Browser(driver, url)
    finally:
        driver.quit()
