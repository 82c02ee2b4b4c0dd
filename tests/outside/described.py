"""Every call that the OpenAPI document describes, tried with what it allows and with what it does not (schemathesis).

    make outside

Nothing may be answered that the document does not tell (a status, a media type, a body's shape); no 500 is.
The service is the real one over SQLite and the sandbox, called in process. With examples of payments, decisions and
endpoints that exist, so that calls by id come further than "not found".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flask import Flask
from pydantic import SecretStr
from schemathesis import openapi
from schemathesis.engine import events, from_schema

from providers.sandbox.server import Sandbox
from router.app.web import create_app
from router.settings import Settings

KEY = "outside-key-of-every-scope"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
]
PAYMENT = {
    "reference": "ORD-OUTSIDE",
    "amount": 1999,
    "currency": "EUR",
    "payment_method": {"type": "card", "tokens": {"stripe": "pm_card_visa", "adyen": "8415718415172204"}},
    "customer": {"id": "cus_1", "country": "DE"},
}


@dataclass(slots=True)
class Findings:
    """What a run came to."""

    calls: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers by status: a run of refusals alone would have seen little."""
    failures: Counter[str] = field(default_factory=Counter)
    """Call and what was wrong with its answer, and how often."""
    examples: dict[str, str] = field(default_factory=dict)
    """A request that shows each."""
    errors: list[str] = field(default_factory=list)
    """Where the tester itself could not go on."""


def try_everything(app: Flask, *, examples: int, phases: Sequence[str]) -> Findings:
    """Call everything that is described; `examples` requests made at random for each call and phase."""
    schema = openapi.from_wsgi("/openapi.json", app)
    headers = {"Authorization": f"Bearer {KEY}"}
    schema.config.update(
        headers=headers, continue_on_failure=True, workers=1, parameters=dict(_that_exist(app, headers))
    )
    schema.config.phases.update(phases=list(phases))
    schema.config.generation.update(max_examples=examples, deterministic=True, no_shrink=True, database="none")
    schema.config.checks.update(included_check_names=CHECKS)
    found = Findings()
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            found.calls += len(event.recorder.interactions)
            found.statuses.update(
                each.response.status_code
                for each in event.recorder.interactions.values()
                if each.response is not None
            )
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        failure = check.failure_info.failure
                        what = f"{event.recorder.label}: {failure.title}: {failure.message}"
                        found.failures[what] += 1
                        found.examples.setdefault(what, check.failure_info.code_sample)
        elif isinstance(event, events.NonFatalError):
            found.errors.append(event.info.format())
        elif isinstance(event, events.FatalError):
            found.errors.append(repr(event.exception))
    return found


def _that_exist(app: Flask, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Ids of things that are there, for the calls that ask for one: without them all that is seen is a 404."""
    client = app.test_client()
    keyed = {**headers, "Idempotency-Key": "outside-1"}
    payment = client.post("/v1/payments", json=PAYMENT, headers=keyed).get_json()
    return {"path.payment_id": payment["id"], "path.name": "stripe"}


def main() -> int:
    """1 where anything was answered that the document does not tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(stripe_port=0, adyen_port=0, control_port=0)
        sandbox.start()
        app = create_app(settings_for(sandbox, Path(folder)))
        try:
            found = try_everything(app, examples=options.examples, phases=options.phases.split(","))
        finally:
            app.extensions["pointsman"][1]()
            sandbox.stop()
    for what, times in found.failures.most_common():
        print(f"{times} × {what}\n    {found.examples[what]}")
    for error in found.errors:
        print(error)
    print(f"{found.calls} calls, {found.failures.total()} undescribed answers, {len(found.errors)} errors of its own")
    print("answers by status:", dict(sorted(found.statuses.items())))
    return 1 if found.failures or found.errors or not found.calls else 0


def settings_for(sandbox: Sandbox, folder: Path) -> Settings:
    """The service's, over that sandbox."""
    return Settings(
        run_dir=folder,
        api_key=SecretStr(KEY),
        stripe_base_url=sandbox.stripe_url,
        adyen_base_url=sandbox.adyen_url,
        read_timeout_seconds=2,
    )


if __name__ == "__main__":
    sys.exit(main())
