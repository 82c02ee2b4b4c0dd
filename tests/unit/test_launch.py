"""What `pointsman run` says when it is up."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from router.launch import _introduce
from router.settings import Settings


def test_a_key_that_was_set_is_not_said_and_one_that_was_made_is(tmp_path: Path) -> None:
    """The one was given by somebody who has it, and a log keeps what is said; the other is this run's alone."""
    for given, shown in ((SecretStr("somebodys-own-key"), "$ROUTER_API_KEY"), (None, "pm_local_made")):
        said: list[str] = []
        settings = Settings(run_dir=tmp_path, api_key=given)
        key = "pm_local_made" if given is None else given.get_secret_value()
        _introduce(settings, "http://127.0.0.1:8080", key, pretend=True, say=said.append)
        text = "\n".join(said)
        assert f'-H "Authorization: Bearer {shown}"' in text
        assert "somebodys-own-key" not in text
