"""What the documents name exists: settings with their defaults, commands, make's targets, files, headings."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import SecretStr

from router.cli import command_parser
from router.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")])
MEANT_FOR_READERS = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""The changelog also tells of what was."""
NOT_SETTINGS = {"ROUTER_TEST_POSTGRES_URL", "ROUTER_TEST_BOTH"}
"""Of the tests alone."""
ROW = re.compile(r"^\| `(ROUTER_[A-Z_]+)` \| ([^|]*) \|", re.MULTILINE)


def named(page: Path) -> Iterable[str]:
    """Every setting that a page names in full; `ROUTER_KAFKA_…` stands for several."""
    return set(re.findall(r"\bROUTER_[A-Z_]*[A-Z](?![A-Z_…])", page.read_text())) - NOT_SETTINGS


def anchors(page: Path) -> set[str]:
    """What headings of a page are linked by."""
    headings = re.findall(r"^#{1,6} (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def written(default: object) -> str | None:
    """A default as the table has it; None where it says it in words."""
    match default:
        case None | SecretStr() | dict() | tuple():
            return None
        case bool():
            return str(default).lower()
        case float():
            return f"{default:g}" if default < 1e6 else str(int(default))
        case _:
            return str(default)


@pytest.mark.parametrize("page", MEANT_FOR_READERS, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    """A misspelt one would silently do nothing."""
    assert {name.removeprefix(PREFIX).lower() for name in named(page)} <= set(Settings.model_fields)


def test_every_setting_is_in_the_table_once_with_its_default() -> None:
    """Whatever can be set can be found."""
    rows = ROW.findall((ROOT / "docs/settings.md").read_text())
    assert sorted(name for name, _ in rows) == sorted(PREFIX + each.upper() for each in Settings.model_fields)
    for name, told in rows:
        default = written(Settings.model_fields[name.removeprefix(PREFIX).lower()].default)
        if default is None:
            assert not re.fullmatch(r"[0-9.]+|true|false", told), name
        else:
            assert told == default, name


def test_defaults_told_elsewhere_are_the_same() -> None:
    """Where another page has a setting's row."""
    table = dict(ROW.findall((ROOT / "docs/settings.md").read_text()))
    rows = [row for page in MEANT_FOR_READERS for row in ROW.findall(page.read_text())]
    assert len(rows) > len(table)
    for name, told in rows:
        if re.fullmatch(r"[0-9.]+", told):
            assert told == table[name], name


def commands(text: str) -> Iterable[list[str]]:
    """Each `pointsman …`, in code, by its words: `a|b` is told apart, and what begins with another mark ends it."""
    code = re.findall(r"`(pointsman [^`]+)`", text)
    code += re.findall(r"^\s*(pointsman .+)$", "\n".join(re.findall(r"```.*?```", text, re.DOTALL)), re.MULTILINE)
    code += re.findall(r"^    (pointsman .+)$", text, re.MULTILINE)
    for line in code:
        words: list[list[str]] = [[]]
        for word in line.split()[1:]:
            if not re.fullmatch(r"[a-z][a-z-]*(\|[a-z-]+)*", word):
                break
            words = [[*each, choice] for each in words for choice in word.split("|")]
        yield from words


def check_command(words: list[str]) -> str | None:
    """What is wrong with it; only what has to be one of a few words is looked at."""
    parser = command_parser()
    for word in words:
        groups = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]
        if not groups:
            return None
        if word not in groups[0].choices:
            # A position before it (a provider, an id) may take the word.
            fixed = [each.choices for each in parser._actions if not each.option_strings and each is not groups[0]]
            if any(choices is None or word in choices for choices in fixed):
                continue
            return word
        parser = groups[0].choices[word]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    """As one would type it."""
    text = page.read_text().replace("`pointsman keys create` is now", "")
    wrong = {" ".join(words): check_command(words) for words in commands(text)}
    assert {line: word for line, word in wrong.items() if word is not None} == {}


def test_commands_are_found_at_all() -> None:
    """In a line, in a block, with alternatives; and a wrong one is told."""
    found = list(commands("`pointsman keys list|new` and\n```\npointsman run  # all\n```\n"))
    assert found == [["keys", "list"], ["keys", "new"], ["run"]]
    assert check_command(["keys", "create"]) == "create"
    assert check_command(["breaker", "stripe", "force-open"]) is None
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    """And `make help` tells of it."""
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    wanted = re.findall(r"`make ([a-z][a-z-]*)", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)
    assert set(wanted) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the repository, and to a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_reached_from_the_readme() -> None:
    """A page that nobody finds is not read."""
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md|deploy/README\.md)", (ROOT / "README.md").read_text()))
    assert linked == {str(page.relative_to(ROOT)) for page in PAGES if page.parent != ROOT}


def test_the_plan_of_the_house_has_every_room() -> None:
    """Each module of the top folders and of the ledger, and each package; `cli_*.py` stands for several."""
    plan = (ROOT / "CONTRIBUTING.md").read_text()
    modules = [
        each for folder in ("flags", "providers", "router", "router/ledger") for each in (ROOT / folder).iterdir()
    ]
    rooms = {f"{each.name}/" if each.is_dir() else each.name for each in modules if not each.name.startswith("_")}
    assert len(rooms) > 120
    patterns = [each.replace("*", ".*") for each in re.findall(r"[a-z_*]+\.py", plan) if "*" in each]
    told = {room for room in rooms if any(re.fullmatch(each, room) for each in patterns)}
    assert {room for room in rooms - told if not re.search(rf"(?<![a-z_]){re.escape(room)}", plan)} == set()
