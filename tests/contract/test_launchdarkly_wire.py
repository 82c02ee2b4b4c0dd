"""The stand-in LaunchDarkly's REST answers, and what our writer sends, against LaunchDarkly's own OpenAPI file."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from jsonschema import Draft202012Validator

from flags.contract import PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document
from flags.restapi import API_VERSION, SEMANTIC_PATCH
from tests.fakes.launchdarkly import FakeLaunchDarkly

FOLDER = Path(os.environ.get("ROUTER_VENDOR_CONTRACTS") or Path(__file__).parents[3] / "shared" / "contracts")
OPENAPI = FOLDER / "launchdarkly-rest.openapi.json"
pytestmark = [
    pytest.mark.vendor_contract,
    pytest.mark.skipif(not OPENAPI.exists(), reason=f"the vendor's contract is absent: {OPENAPI}"),
]

FLAGS = "/api/v2/flags/{projectKey}"
FLAG = "/api/v2/flags/{projectKey}/{featureFlagKey}"
APPROVALS = "/api/v2/projects/{projectKey}/flags/{featureFlagKey}/environments/{environmentKey}/approval-requests"
ENVIRONMENT = "/api/v2/projects/{projectKey}/environments/{environmentKey}"
NAMES = {"projectKey": "payments", "featureFlagKey": PRIMARY_PROVIDER, "environmentKey": "production"}
MOVE = "updateFallthroughVariationOrRollout"


@functools.cache
def contract() -> Any:
    """The OpenAPI document, made strict: an object that names its properties has no others."""
    document = json.loads(OPENAPI.read_text())

    def tighten(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("properties"), dict):
                node.setdefault("additionalProperties", False)
            for below in node.values():
                tighten(below)
        elif isinstance(node, list):
            for below in node:
                tighten(below)

    tighten(document["components"]["schemas"])
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("ErrorRep"):  # every error has an id besides, says the text of the file
            schema["properties"]["id"] = {"type": "string"}
    return document


def faults(schema: Any, instance: Any) -> list[str]:
    """What is wrong with it, each with its place."""
    validator = Draft202012Validator({**schema, "components": contract()["components"]})
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(instance)
    ]


class Api:
    """Calls the stand-in, and checks its answers against the file."""

    def __init__(self, fake: FakeLaunchDarkly) -> None:
        self.fake = fake
        self.pool = urllib3.PoolManager(retries=False)

    def call(
        self, method: str, template: str, body: Any = None, *, status: int, token: str = "api-token", **names: str
    ) -> Any:
        """The checked answer."""
        path = template.format(**{**NAMES, **names})
        kind = SEMANTIC_PATCH if method == "PATCH" else "application/json"
        headers = {"Authorization": token, "LD-API-Version": API_VERSION, "Content-Type": kind}
        content = None if body is None else json.dumps(body)
        answer = self.pool.request(method, self.fake.rest_uri + path, body=content, headers=headers)
        assert answer.status == status
        responses = contract()["paths"][template][method.lower()]["responses"]
        assert str(status) in responses, f"{method} {template} does not answer {status}"
        if status == 204:
            return None
        schema = responses[str(status)]["content"]["application/json"]["schema"]
        assert faults(schema, answer.json()) == []
        return answer.json()

    def patch(self, *instructions: Any, status: int = 200, **options: Any) -> Any:
        body = {"environmentKey": "production", "comment": "c", "instructions": list(instructions)}
        return self.call("PATCH", FLAG, body, status=status, **options)


@pytest.fixture
def api() -> Iterator[Api]:
    """The stand-in under check."""
    with FakeLaunchDarkly(new_document(definitions(("stripe", "adyen")).values())["flags"]) as fake:
        yield Api(fake)


def targeted(api: Api) -> None:
    clause = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": ["JPY"]}
    api.fake.update(
        PRIMARY_PROVIDER,
        rules=[{"id": "r-1", "variation": 1, "clauses": [clause], "description": "Japan"}],
        contextTargets=[{"contextKind": "merchant", "variation": 1, "values": ["m"]}],
        prerequisites=[{"key": "other", "variation": 0}],
    )


def test_the_check_finds_what_it_must(api: Api) -> None:
    """An unknown field, a wrong type and a missing field are faults."""
    good = api.call("GET", FLAG, status=200)
    schema = contract()["paths"][FLAG]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert faults(schema, good) == []
    for bad in ({**good, "colour": "red"}, {**good, "_version": "1"}, {"key": PRIMARY_PROVIDER}):
        assert faults(schema, bad)


def test_every_flag_is_shown_as_the_file_says(api: Api) -> None:
    """Booleans, strings and JSON; with rules, targets, prerequisites and a rollout."""
    targeted(api)
    api.fake.person_sets_rollout(PRIMARY_PROVIDER, {"stripe": 60_000, "adyen": 40_000}, bucket_by="country")
    for key in definitions(("stripe", "adyen")):
        api.call("GET", FLAG, status=200, featureFlagKey=key)


def test_every_change_is_answered_as_the_file_says(api: Api) -> None:
    """The instructions that the writer and the bootstrap send, one by one."""
    targeted(api)
    stripe, adyen = [one["_id"] for one in api.call("GET", FLAG, status=200)["variations"]]
    weights = {stripe: 30_000, adyen: 70_000}
    for instruction in (
        {"kind": MOVE, "variationId": adyen},
        {"kind": MOVE, "rolloutWeights": weights, "rolloutContextKind": "customer", "rolloutBucketBy": "key"},
        {"kind": "updateRuleVariationOrRollout", "ruleId": "r-1", "variationId": stripe},
        {"kind": "removeTargets", "contextKind": "merchant", "variationId": adyen, "values": ["m"]},
        {"kind": "addTargets", "contextKind": "merchant", "variationId": stripe, "values": ["m"]},
        {"kind": "turnFlagOff"},
        {"kind": "turnFlagOn"},
        {"kind": "updateOffVariation", "variationId": adyen},
        {"kind": "addVariation", "value": "worldline"},
    ):
        api.patch(instruction)


def test_every_instruction_is_one_that_the_file_describes() -> None:
    """The kinds that `flags` sends, against the headings of the file's text."""
    described = set(re.findall(r"^#### (\w+)", contract()["paths"][FLAG]["patch"]["description"], re.MULTILINE))
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "flags").glob("*.py"))
    sent = set(re.findall(r'"((?:update|add|remove|turn)[A-Z]\w+)"', source))
    assert sent <= described
    assert {MOVE, "updateRuleVariationOrRollout", "removeTargets", "addTargets"} <= sent


def test_refusals_are_answered_as_the_file_says(api: Api) -> None:
    """Each status that the writer tells apart."""
    adyen = api.call("GET", FLAG, status=200)["variations"][1]["_id"]
    move = {"kind": MOVE, "variationId": adyen}
    api.patch({"kind": "unknown"}, status=400)
    api.patch(move, status=401, token="wrong")
    api.call("PATCH", FLAG, {"instructions": [move]}, status=404, featureFlagKey="absent")
    api.fake.pending_change(PRIMARY_PROVIDER)
    api.patch(move, status=400)
    api.fake.pending_change(PRIMARY_PROVIDER, pending=False)
    api.fake.during_patch(lambda: api.fake.person_switches(PRIMARY_PROVIDER, on=False))
    api.patch(move, status=409)
    api.fake.fail_next("patch", status=429, reset_in_s=1)
    api.patch(move, status=429)
    api.fake.need_approval(PRIMARY_PROVIDER)
    api.patch(move, status=405)
    api.fake.fail_next("get", status=403)
    api.call("GET", FLAG, status=403)
    api.call("GET", ENVIRONMENT, status=404, environmentKey="staging")
    assert api.fake.serves(PRIMARY_PROVIDER) == "stripe"


def test_approvals_and_new_flags_are_answered_as_the_file_says(api: Api) -> None:
    """Filed, listed, withdrawn, and withdrawn again; created, and created again, in an environment that there is."""
    api.call("GET", ENVIRONMENT, status=200)
    adyen = api.call("GET", FLAG, status=200)["variations"][1]["_id"]
    wanted = {"description": "d", "instructions": [{"kind": MOVE, "variationId": adyen}], "notifyMemberIds": ["m"]}
    schema = contract()["components"]["schemas"]["createFlagConfigApprovalRequestRequest"]
    assert faults(schema, wanted) == []
    made = api.call("POST", APPROVALS, wanted, status=201)
    assert [each["_id"] for each in api.call("GET", APPROVALS, status=200)["items"]] == [made["_id"]]
    one = APPROVALS + "/{id}"
    assert api.call("GET", one, status=200, id=made["_id"])["reviewStatus"] == "pending"
    answered = [api.call("POST", APPROVALS, wanted, status=201)["_id"] for _ in range(2)]
    api.fake.decline(answered[0])
    api.fake.approve(answered[1])
    assert len(api.call("GET", APPROVALS, status=200)["items"]) == 3
    api.call("DELETE", one, status=204, id=made["_id"])
    api.call("DELETE", one, status=404, id=made["_id"])
    api.call("GET", one, status=404, id=made["_id"])
    flag = {"key": "new", "name": "new", "variations": [{"value": "a"}, {"value": "b"}], "isFlagOn": True}
    assert faults(contract()["components"]["schemas"]["FeatureFlagBody"], flag) == []
    api.call("POST", FLAGS, flag, status=201)
    api.call("POST", FLAGS, flag, status=409)
