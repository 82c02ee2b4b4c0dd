"""`pointsman flags`: the flags file from the command line, and a LaunchDarkly project set up or checked."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from router.cli_commands import Add, CommandError
from router.settings import PROVIDER_NAMES, Settings

SIGNS = {"missing": "+", "variations": "~", "wrong": "!", "off": "!", "note": " "}
CONNECT_S, READ_S = 5.0, 15.0
"""A person waits for it, not a payment."""


def add_commands(add: Add) -> None:
    """Put `flags` and what it can do beside the other commands."""
    flags = add("flags", _show, "show the flags of the flags file, or set one; set up a LaunchDarkly project")
    actions = flags.add_subparsers(metavar="action")
    setting = actions.add_parser("set", help="serve another value from now on")
    setting.add_argument("key")
    setting.add_argument("value")
    setting.set_defaults(command=_set)
    about = "create or check every flag in the LaunchDarkly project; without --apply it changes nothing"
    setting_up = actions.add_parser("bootstrap", help=about, description=about)
    setting_up.add_argument("--apply", action="store_true", help="create what is missing, add variations")
    setting_up.set_defaults(command=_bootstrap)
    about = "every flag with its variations, as JSON: what deploy/terraform makes them from"
    actions.add_parser("definitions", help=about, description=about).set_defaults(command=_definitions)


def _show(_options: argparse.Namespace, settings: Settings) -> int | None:
    from flags.contract import FlagWriteError
    from flags.definitions import show
    from flags.filewriter import complete_file, describe

    path = _flags_file(settings)
    try:
        complete_file(path, PROVIDER_NAMES)
        rows = describe(path, PROVIDER_NAMES)
    except FlagWriteError as error:
        raise CommandError(str(error)) from None
    width = max(len(row.key) for row in rows)
    shown = [row.value if isinstance(row.value, str) else show(row.value) for row in rows]
    wide = max(14, *(len(value) for value in shown))
    print(f"{path}")
    for row, value in zip(rows, shown, strict=True):
        print(f"  {row.key:<{width}}  {value:<{wide}}  {row.description} ({row.allowed})")
        for note in row.notes:
            print(f"  {'':<{width}}  note: {note}")
    return 0


def _definitions(_options: argparse.Namespace, _settings: Settings) -> int | None:
    from flags.bootstrap import as_plain
    from flags.definitions import definitions

    print(json.dumps([as_plain(flag) for flag in definitions(PROVIDER_NAMES).values()], indent=2))
    return 0


def _set(options: argparse.Namespace, settings: Settings) -> int | None:
    from flags.contract import FlagWriteError
    from flags.definitions import definition
    from flags.filewriter import FileFlagWriter, complete_file

    path = _flags_file(settings)
    try:
        value = definition(options.key, PROVIDER_NAMES).parse(options.value)
        complete_file(path, PROVIDER_NAMES)
        FileFlagWriter(path, PROVIDER_NAMES).set(options.key, value, expected=None, comment="pointsman flags set")
    except FlagWriteError as error:
        raise CommandError(str(error)) from None
    print(f"{options.key} serves {json.dumps(value)} from now on")
    return 0


def _bootstrap(options: argparse.Namespace, settings: Settings) -> int | None:
    """1 where something differs and is not mended."""
    from flags.bootstrap import Bootstrap
    from flags.contract import FlagWriteError
    from flags.definitions import definitions
    from flags.restapi import LaunchDarklyApi
    from router.clock import SystemClock

    if settings.launchdarkly_api_token is None or settings.launchdarkly_project is None:
        raise CommandError("set ROUTER_LAUNCHDARKLY_API_TOKEN and ROUTER_LAUNCHDARKLY_PROJECT first")
    clock = SystemClock()
    try:
        api = LaunchDarklyApi(
            settings.launchdarkly_api_token.get_secret_value(),
            project=settings.launchdarkly_project,
            api_uri=settings.launchdarkly_api_uri,
            connect_s=CONNECT_S,
            read_s=READ_S,
            now=clock.now,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    work = Bootstrap(api, settings.launchdarkly_environment, clock.sleep)
    changes = different = 0
    print(f"LaunchDarkly project {settings.launchdarkly_project}, environment {settings.launchdarkly_environment}")
    try:
        for flag, found in work.check(list(definitions(PROVIDER_NAMES).values())):
            findings = found
            if options.apply and any(finding.can_be_mended for finding in found):
                work.mend(flag, found, "pointsman flags bootstrap")
                findings = work.findings(flag)
                changes += 1
                for finding in found:
                    if finding not in findings:
                        print(f"{SIGNS[finding.what]} {flag.key}: {finding.text}: done")
            for finding in findings:
                print(f"{SIGNS[finding.what]} {flag.key}: {finding.text}")
            if not found:
                print(f"  {flag.key}: as it should be")
            different += any(finding.what != "note" for finding in findings)
    except FlagWriteError as error:
        raise CommandError(str(error)) from None
    finally:
        api.close()
    hint = (
        "" if options.apply or not different else "; nothing was changed: --apply creates flags and adds variations"
    )
    print(f"{changes} flags changed, {different} not as they should be{hint}")
    return 1 if different else 0


def _flags_file(settings: Settings) -> Path:
    if settings.launchdarkly_sdk_key is not None:
        raise CommandError("flags come from LaunchDarkly here: show and set them there")
    settings.flags_path.parent.mkdir(parents=True, exist_ok=True)
    return settings.flags_path
