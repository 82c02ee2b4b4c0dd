"""Somebody at the console without a browser: keeps cookies, finds forms, presses their buttons."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import unescape
from typing import Any

from werkzeug.test import Client, TestResponse

from tests.integration.shop import API_KEY, Shop

_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


@dataclass
class Visitor:
    """A browser's cookies, and what a form of the page that was seen last brings back."""

    shop: Shop
    client: Client = field(init=False)
    token: str = ""

    def __post_init__(self) -> None:
        self.client = self.shop.app.test_client()

    def get(self, path: str, **options: Any) -> TestResponse:
        """Look at a page."""
        answer = self.client.get("/console" + path, **options)
        found = _TOKEN.findall(answer.text)
        # The last form is the page's own; the first is in its head, to log out, with the same token.
        self.token = found[-1] if found else self.token
        return answer

    def send(self, path: str, form: Mapping[str, Any] | None = None, **options: Any) -> TestResponse:
        """Send a form with the token of the page that was seen last."""
        return self.client.post("/console" + path, data={"form_token": self.token, **(form or {})}, **options)

    def log_in(self, word: str = API_KEY, **form: str) -> TestResponse:
        """Log in as a person does."""
        self.get("/login")
        return self.send("/login", {"word": word, **form})

    def cookie(self) -> str:
        """The session's cookie."""
        found = self.client.get_cookie("pointsman_session", path="/console")
        assert found is not None
        return found.value

    def text(self, path: str) -> str:
        """What a page says, without its tags."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def visitor(shop: Shop, word: str = API_KEY) -> Visitor:
    """Somebody who has logged in."""
    made = Visitor(shop)
    answer = made.log_in(word)
    assert answer.status_code == 303, answer.text
    return made
