"""The addresses that README and docs name are the OpenAPI document's."""

from __future__ import annotations

import re
from typing import Any

from tests.integration.shop import Shop
from tests.unit.test_documents import MEANT_FOR_READERS

ADDRESS = re.compile(r"/v1/[a-z][a-z/{}-]*[a-z}]")


def plain(address: str) -> str:
    """Whatever its places are called; an example's id is one."""
    return re.sub(r"\{[a-z_]+\}", "{}", address)


def test_every_address_that_a_page_names_is_answered(shop: Shop) -> None:
    """And each kind of thing that the API has is named by some page."""
    document: Any = shop.send("GET", "/openapi.json", api_key=None).json
    there = {plain(path) for path in document["paths"]}
    named = {plain(each) for page in MEANT_FOR_READERS for each in ADDRESS.findall(page.read_text())}
    assert len(named) > 30
    assert named <= there
    assert {each.split("/")[2] for each in there if each.startswith("/v1/")} <= {each.split("/")[2] for each in named}
