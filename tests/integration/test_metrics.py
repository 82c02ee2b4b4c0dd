"""`/metrics` of a whole router: what it counts is what the ledger holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from providers.sandbox.server import Sandbox
from tests.integration.postgres import Databases
from tests.integration.shop import Shop, open_shop, order, paying_with


def figures(text: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page, which must be sound."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Page:
    """One scrape."""

    def __init__(self, shop: Shop) -> None:
        answer = shop.send("GET", "/metrics", api_key=None)
        assert answer.status_code == 200, answer.text
        self.text = answer.text
        self._found = figures(answer.text)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples of that name with these labels, and any others."""
        wanted = set(labels.items())
        found = [value for (each, has), value in self._found.items() if each == name and wanted <= has]
        assert found, f"no {name} {labels}"
        return sum(found)

    def has(self, name: str) -> bool:
        """Whether there is such a sample."""
        return any(each == name for each, _ in self._found)
