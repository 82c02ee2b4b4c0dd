"""What the page for checkout's developers says is what is sent: its samples check real signatures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.signing import signature

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
BODY = '{"id": "pay_1:2", "reference": "Zoë"}'.encode()
NOW = 1_795_219_200
OLD, NEW = "whsec_old", "whsec_new"

CASES: list[tuple[str, bytes, list[str], int, bool]] = [
    (signature([NEW], BODY, NOW), BODY, [NEW], NOW, True),
    (signature([NEW, OLD], BODY, NOW), BODY, [OLD], NOW + 299, True),
    (signature([NEW, OLD], BODY, NOW), BODY, [NEW], NOW, True),
    (signature([NEW], BODY, NOW), BODY, [OLD, NEW], NOW, True),
    (signature([NEW], BODY, NOW), BODY, [OLD], NOW, False),
    (signature([NEW], BODY, NOW), BODY + b" ", [NEW], NOW, False),
    (signature([NEW], BODY, NOW), BODY, [NEW], NOW + 301, False),
    (signature([NEW], BODY, NOW).replace(str(NOW), str(NOW + 1)), BODY, [NEW], NOW, False),
    ("t=1,v1=", BODY, [NEW], NOW, False),
    (f"t={NOW},t={NOW},v1=00", BODY, [NEW], NOW, False),
    ("nonsense", BODY, [NEW], NOW, False),
    ("", BODY, [NEW], NOW, False),
]


def _sample(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(found) == 1
    sample: str = found[0]
    return sample


@pytest.mark.parametrize(("header", "body", "secrets", "now", "is_genuine"), CASES)
def test_the_python_sample_takes_what_the_router_signs_and_nothing_else(
    header: str, body: bytes, secrets: list[str], now: int, is_genuine: bool
) -> None:
    """Either secret of a rotation; not another body, time or secret."""
    names: dict[str, Any] = {}
    exec(_sample("python"), names)
    check: Callable[..., bool] = names["is_genuine"]
    assert check(header, body, secrets, now) is is_genuine


def test_the_node_sample_does_the_same() -> None:
    """Where Node.js is installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node here")
    cases = [[header, body.decode(), secrets, now] for header, body, secrets, now, _ in CASES]
    script = (
        _sample("js")
        + f"const cases = {json.dumps(cases)};\n"
        + "console.log(JSON.stringify(cases.map(([h, b, s, n]) => isGenuine(h, Buffer.from(b), s, n))));"
    )
    done = subprocess.run([node, "-e", script], check=True, capture_output=True, timeout=60)
    assert json.loads(done.stdout) == [each[-1] for each in CASES]
