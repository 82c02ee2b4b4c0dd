"""`pointsman flags bootstrap` against the stand-in LaunchDarkly: what it finds, makes, and leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flags.bootstrap import Bootstrap
from flags.contract import (
    AUTO_FLIP_ENABLED,
    CASCADE_ON_SOFT_DECLINE,
    MAINTENANCE_NOTICE,
    PRIMARY_PROVIDER,
    ROUTING_STRATEGY,
    ROUTING_TUNING,
    FlagContext,
    FlagUnavailableError,
    RoutingFlags,
    provider_enabled_key,
)
from flags.definitions import definitions
from flags.document import new_document
from flags.launchdarkly import LaunchDarklyFlags
from flags.restapi import LaunchDarklyApi
from router.cli import main
from tests.fakes.launchdarkly import FakeLaunchDarkly

PROVIDERS = ("stripe", "adyen")
TABLE = definitions(PROVIDERS)


@pytest.fixture
def launchdarkly(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLaunchDarkly]:
    """A project without a flag, and the settings for it."""
    with FakeLaunchDarkly({}) as fake:
        monkeypatch.setenv("ROUTER_LAUNCHDARKLY_API_TOKEN", fake.token)
        monkeypatch.setenv("ROUTER_LAUNCHDARKLY_PROJECT", fake.project)
        monkeypatch.setenv("ROUTER_LAUNCHDARKLY_API_URI", fake.rest_uri)
        yield fake


def writes(fake: FakeLaunchDarkly) -> list[str]:
    """The calls that were more than looking."""
    return [call for call in fake.calls if call not in ("get", "environment")]


def full(**changes: dict[str, Any]) -> dict[str, Any]:
    """A project as it should be, but for these."""
    flags = new_document(TABLE.values())["flags"]
    for key, change in changes.items():
        flags[key].update(change)
    return dict(flags)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    return capsys


def run(said: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["flags", "bootstrap", *words])
    out, err = said.readouterr()
    return code, out + err


def test_without_apply_it_says_what_is_missing_and_does_nothing(
    launchdarkly: FakeLaunchDarkly, said: pytest.CaptureFixture[str]
) -> None:
    """A dry run is the default; its exit code says that something differs."""
    code, text = run(said)
    assert code == 1
    assert text.count("\n+ payments-") == len(TABLE)
    assert '+ payments-primary-provider: missing: string, on, serving "stripe"' in text
    assert "nothing was changed" in text
    assert (writes(launchdarkly), launchdarkly.audit) == ([], [])


def test_apply_makes_every_flag_and_a_second_run_changes_nothing(
    launchdarkly: FakeLaunchDarkly, said: pytest.CaptureFixture[str]
) -> None:
    """On, serving its default, with every variation; the real SDK reads the router's defaults from it."""
    code, text = run(said, "--apply")
    assert (code, text.count(": done\n")) == (0, len(TABLE))
    assert writes(launchdarkly) == ["create"] * len(TABLE)
    assert {key: launchdarkly.serves(key) for key in TABLE} == {key: flag.default for key, flag in TABLE.items()}
    kill_switch = launchdarkly.flag(provider_enabled_key("adyen"))
    assert kill_switch["variations"][kill_switch["offVariation"]] is False
    uri = launchdarkly.uri
    flags = LaunchDarklyFlags("sdk", PROVIDERS, report=print, base_uri=uri, stream_uri=uri, events_uri=uri)
    assert flags.read(FlagContext()) == RoutingFlags(enabled={"stripe": True, "adyen": True})
    flags.close()
    launchdarkly.calls.clear()
    for words in ((), ("--apply",)):
        code, text = run(said, *words)
        assert (code, text.count("as it should be\n")) == (0, len(TABLE))
        assert "0 flags changed, 0 not as they should be" in text
    assert writes(launchdarkly) == []


def test_what_teams_have_set_is_left_alone(monkeypatch: pytest.MonkeyPatch, said: pytest.CaptureFixture[str]) -> None:
    """Another value, rules, a rollout, text and numbers of their own: none of it is a difference."""
    changes: dict[str, dict[str, Any]] = {
        PRIMARY_PROVIDER: {"fallthrough": {"variation": 1}, "rules": [{"id": "r", "variation": 0, "clauses": []}]},
        MAINTENANCE_NOTICE: {"variations": ["We are back at 10:00."]},
        ROUTING_TUNING: {"variations": [{"margin": 0.2}]},
    }
    with FakeLaunchDarkly(full(**changes)) as fake:
        configure(monkeypatch, fake)
        code, _ = run(said, "--apply")
        assert (code, writes(fake)) == (0, [])


def configure(monkeypatch: pytest.MonkeyPatch, fake: FakeLaunchDarkly) -> None:
    monkeypatch.setenv("ROUTER_LAUNCHDARKLY_API_TOKEN", fake.token)
    monkeypatch.setenv("ROUTER_LAUNCHDARKLY_PROJECT", fake.project)
    monkeypatch.setenv("ROUTER_LAUNCHDARKLY_API_URI", fake.rest_uri)


def test_a_missing_variation_is_added(monkeypatch: pytest.MonkeyPatch, said: pytest.CaptureFixture[str]) -> None:
    """A new provider: the primary can then be moved to it. What the flag serves stays."""
    with FakeLaunchDarkly(full(**{PRIMARY_PROVIDER: {"variations": ["stripe"]}})) as fake:
        configure(monkeypatch, fake)
        code, text = run(said)
        assert (code, writes(fake)) == (1, [])
        assert '~ payments-primary-provider: no variation "adyen"' in text
        code, text = run(said, "--apply")
        assert (code, writes(fake)) == (0, ["patch"])
        assert fake.flag(PRIMARY_PROVIDER)["variations"] == ["stripe", "adyen"]
        assert fake.serves(PRIMARY_PROVIDER) == "stripe"
        assert run(said)[0] == 0


def test_a_wrong_kind_cannot_be_mended(monkeypatch: pytest.MonkeyPatch, said: pytest.CaptureFixture[str]) -> None:
    """LaunchDarkly keeps a flag's kind for ever; the person is told what to do, and the others are still made."""
    changes: dict[str, dict[str, Any]] = {
        ROUTING_STRATEGY: {"variations": [True, False]},
        CASCADE_ON_SOFT_DECLINE: {"variations": ["yes", "no"]},
    }
    flags = full(**changes)
    del flags[MAINTENANCE_NOTICE]
    with FakeLaunchDarkly(flags) as fake:
        configure(monkeypatch, fake)
        code, text = run(said, "--apply")
        assert (code, writes(fake)) == (1, ["create"])
        assert "! payments-routing-strategy: wrong kind: boolean where it must be string" in text
        assert "! payments-cascade-on-soft-decline: wrong kind: string where it must be boolean" in text
        assert "1 flags changed, 2 not as they should be" in text


def test_a_flag_that_is_off_is_named_and_never_switched_on(
    monkeypatch: pytest.MonkeyPatch, said: pytest.CaptureFixture[str]
) -> None:
    """A kill switch that someone has thrown must not be undone by a command that sets things up."""
    key = provider_enabled_key("stripe")
    with FakeLaunchDarkly(full(**{key: {"on": False}})) as fake:
        configure(monkeypatch, fake)
        code, text = run(said, "--apply")
        assert f"! {key}: off in production, where it serves false" in text
        assert (code, fake.flag(key)["on"], writes(fake)) == (1, False, [])


def test_what_would_not_be_used_is_noted(monkeypatch: pytest.MonkeyPatch, said: pytest.CaptureFixture[str]) -> None:
    """A provider nobody has configured, and a switch that does nothing when switched off: a note, no difference."""
    changes: dict[str, dict[str, Any]] = {
        PRIMARY_PROVIDER: {"variations": ["stripe", "adyen", "paypal"]},
        AUTO_FLIP_ENABLED: {"offVariation": 0},
    }
    with FakeLaunchDarkly(full(**changes)) as fake:
        configure(monkeypatch, fake)
        code, text = run(said)
        assert code == 0
        assert 'variation "paypal" would not be used: not one of stripe, adyen' in text
        assert "payments-auto-flip-enabled: switched off it serves true, not false" in text


def test_a_new_flag_is_on_even_where_the_environment_begins_with_off(
    launchdarkly: FakeLaunchDarkly, said: pytest.CaptureFixture[str]
) -> None:
    """This one is ours: nobody can have switched it off."""
    launchdarkly.creates_off = True
    assert run(said, "--apply")[0] == 0
    assert all(launchdarkly.flag(key)["on"] for key in TABLE)
    assert run(said)[0] == 0


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("API_TOKEN", "another", "is ROUTER_LAUNCHDARKLY_API_TOKEN right?"),
        ("API_TOKEN", "", "set ROUTER_LAUNCHDARKLY_API_TOKEN"),
        ("API_TOKEN", "two words", "not one word"),
        ("PROJECT", "", "and ROUTER_LAUNCHDARKLY_PROJECT first"),
        ("PROJECT", "other", "no project other with an environment production"),
        ("PROJECT", "a/b", "setting ROUTER_LAUNCHDARKLY_PROJECT: must be a key"),
        ("ENVIRONMENT", "staging", "no project payments with an environment staging"),
        ("API_URI", "http://127.0.0.1:1", "cannot be reached"),
    ],
)
def test_what_is_set_wrong_is_one_clear_line(
    launchdarkly: FakeLaunchDarkly,
    said: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    says: str,
) -> None:
    """It names the setting, and never shows the token; nothing is written, not even into another project."""
    monkeypatch.setenv(f"ROUTER_LAUNCHDARKLY_{name}", value)
    code = main(["flags", "bootstrap", "--apply"])
    error = said.readouterr().err
    assert code == 1
    assert says in error
    assert error.count("\n") == 1
    assert not (name == "API_TOKEN" and value and value in error)
    assert launchdarkly.audit == []


def test_a_rate_limit_is_waited_out(launchdarkly: FakeLaunchDarkly) -> None:
    """A dozen calls in a moment may be too many; a limit of minutes is the person's to wait for."""
    slept: list[float] = []
    api = LaunchDarklyApi("api-token", project="payments", api_uri=launchdarkly.rest_uri, connect_s=1, read_s=1)
    work = Bootstrap(api, "production", slept.append)
    launchdarkly.fail_next("get", status=429, retry_after_s=3, times=2)
    launchdarkly.fail_next("create", status=429, retry_after_s=4)
    [(flag, findings)] = work.check([TABLE[PRIMARY_PROVIDER]])
    work.mend(flag, findings, "c")
    assert (work.findings(flag), slept) == ([], [3, 3, 4])
    launchdarkly.fail_next("get", status=429, retry_after_s=300)
    with pytest.raises(FlagUnavailableError):
        work.findings(flag)
    launchdarkly.fail_next("get", status=503)
    with pytest.raises(FlagUnavailableError):
        work.findings(flag)
    api.close()


def test_a_run_that_broke_off_is_taken_up_by_the_next(
    launchdarkly: FakeLaunchDarkly, said: pytest.CaptureFixture[str]
) -> None:
    """A created flag whose answer was lost is there; the next run makes the rest."""
    launchdarkly.fail_next("create", how="cut", acts=True)
    code, text = run(said, "--apply")
    assert (code, "broke the connection" in text) == (1, True)
    assert run(said, "--apply")[0] == 0
    assert all(launchdarkly.has(key) for key in TABLE)
