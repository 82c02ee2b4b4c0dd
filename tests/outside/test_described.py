"""The OpenAPI document holds: the short version of `make outside`."""

from __future__ import annotations

from pathlib import Path

from providers.sandbox.server import Sandbox
from router.app.web import create_app
from tests.outside.described import settings_for, try_everything


def test_every_call_answers_only_what_is_described(sandbox: Sandbox, tmp_path: Path) -> None:
    """With what each allows, what it does not, and at its bounds; and some of it came through."""
    app = create_app(settings_for(sandbox, tmp_path))
    try:
        found = try_everything(app, examples=2, phases=["coverage", "fuzzing"])
    finally:
        app.extensions["pointsman"][1]()
    assert not found.failures, found.examples
    assert not found.errors
    assert found.calls > 1000
    assert found.statuses[200] > 50
    assert found.statuses[201] + found.statuses[202] > 2
    assert found.statuses[422] > 100
