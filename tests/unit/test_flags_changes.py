"""What is watched, and the few words on a change: pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.changes import describe, needed
from flags.contract import PRIMARY_PROVIDER
from flags.definitions import definitions
from flags.document import new_document

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
FIELDS = ("on", "fallthrough", "variations", "rules", "targets", "contextTargets", "prerequisites", "offVariation")


def primary(**changed: Any) -> dict[str, Any]:
    """The primary flag as a new project has it, with these fields instead."""
    flag: dict[str, Any] = new_document(definitions(("stripe", "adyen")).values())["flags"][PRIMARY_PROVIDER]
    return flag | changed


def segment_rule(*segments: str) -> dict[str, Any]:
    """A rule for whoever is in one of these segments."""
    return {"clauses": [{"op": "segmentMatch", "attribute": "", "values": list(segments)}], "variation": 1}


def test_a_plain_flag_in_a_few_words() -> None:
    """On, what everyone gets, what is served when off, and nobody singled out."""
    expected = {"on": True, "serves": "stripe", "off": "stripe", "rules": 0, "targets": 0}
    assert describe("flag", primary()) == expected


def test_a_rollout_is_told_in_per_cent_and_targets_one_by_one() -> None:
    """Two buckets of one value are one share; a target in either list counts."""
    buckets = [
        {"variation": 0, "weight": 30_000},
        {"variation": 1, "weight": 60_000},
        {"variation": 0, "weight": 1e4},
    ]
    flag = primary(
        fallthrough={"rollout": {"variations": buckets}},
        rules=[segment_rule("a"), segment_rule("b")],
        targets=[{"variation": 1, "values": ["x", "y"]}],
        contextTargets=[{"contextKind": "merchant", "variation": 1, "values": ["z"]}, {"variation": 1, "values": []}],
    )
    told = describe("flag", flag)
    assert told is not None
    assert told["serves"] == {"per_cent": {"stripe": 40.0, "adyen": 60.0}}
    assert (told["rules"], told["targets"]) == (2, 3)


def test_rules_and_targets_are_told_by_what_they_serve() -> None:
    """A rule or target that serves another value is another flag, though there are as many as before."""

    def of_rules(variation: int, shops: list[str]) -> dict[str, Any]:
        clause = {"contextKind": "merchant", "attribute": "key", "op": "in", "values": shops, "negate": False}
        return primary(
            rules=[{"id": "r", "variation": variation, "clauses": [clause]}],
            contextTargets=[{"contextKind": "merchant", "variation": variation, "values": ["z"]}],
        )

    told, moved = describe("flag", of_rules(0, ["big-shop"])), describe("flag", of_rules(1, ["big-shop"]))
    assert told is not None
    assert moved is not None
    words = ['target: merchant "z"', 'rule 1: merchant key is "big-shop"']
    assert (told["pins"], moved["pins"]) == ({"stripe": words}, {"adyen": words})


def test_a_change_that_the_words_leave_out_is_seen_all_the_same() -> None:
    """The fourth key of a target is not named, nor what a rule with a title asks: their fingerprint differs."""

    def of(keys: list[str], currency: str) -> dict[str, Any]:
        clause = {"contextKind": "payment", "attribute": "currency", "op": "in", "values": [currency]}
        return primary(
            targets=[{"variation": 0, "values": keys}],
            rules=[{"id": "r", "description": "Japan", "variation": 1, "clauses": [clause]}],
        )

    told = describe("flag", of(["a", "b", "c", "d"], "JPY"))
    for other in (of(["a", "b", "c", "e"], "JPY"), of(["a", "b", "c", "d"], "KRW")):
        changed = describe("flag", other)
        assert told is not None
        assert changed is not None
        assert changed["pins"] == told["pins"]
        assert changed["fingerprint"] != told["fingerprint"]


def test_whom_a_rollout_goes_by_is_told() -> None:
    """The same shares by user, a kind that no payment has, are all of the first share."""

    def by(**kind: Any) -> Any:
        shares = [{"variation": 0, "weight": 60_000}, {"variation": 1, "weight": 40_000}]
        told = describe("flag", primary(fallthrough={"rollout": {"variations": shares, **kind}}))
        assert told is not None
        return told["rollout_by"]

    assert by(contextKind="customer") == "customer"
    assert by() == "user"
    assert by(contextKind="merchant", bucketBy="tier") == "merchant tier"


def test_a_segment_in_a_few_words() -> None:
    """How many are in it by name."""
    segment = {"included": ["a"], "includedContexts": [{"values": ["b", "c"]}], "excluded": ["d"], "rules": [{}]}
    told = describe("segment", segment)
    assert told is not None
    assert told | {"fingerprint": ""} == {"included": 3, "excluded": 1, "rules": 1, "fingerprint": ""}
    others = {**segment, "includedContexts": [{"values": ["b", "d"]}]}
    assert describe("segment", others) != told
    assert describe("segment", None) is None


def test_what_a_flag_depends_on_is_watched_with_it() -> None:
    """Prerequisites of prerequisites, segments in segments, in a ring or missing; nobody else's flags."""
    flags = {
        PRIMARY_PROVIDER: primary(
            prerequisites=[{"key": "first", "variation": 0}], rules=[segment_rule("s1", "gone")]
        ),
        "first": primary(prerequisites=[{"key": PRIMARY_PROVIDER, "variation": 0}]),
        "another-teams": primary(),
    }
    segments = {"s1": {"rules": [segment_rule("s2")]}, "s2": {"rules": [segment_rule("s1")]}, "s3": {}}
    assert needed([PRIMARY_PROVIDER], flags, segments) == {
        ("flag", PRIMARY_PROVIDER),
        ("flag", "first"),
        ("segment", "s1"),
        ("segment", "s2"),
        ("segment", "gone"),
    }


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_is_in_a_definition_it_is_described(fields: dict[str, Any]) -> None:
    """A file is written by hand."""
    json.dumps(describe("flag", fields))
    json.dumps(describe("segment", fields))
    assert ("flag", "k") in needed(["k"], {"k": fields}, {})


@pytest.mark.parametrize("index", [True, -1, 7, "0", None])
def test_an_index_that_names_no_variation_serves_nothing(index: Any) -> None:
    """As the SDK has it."""
    told = describe("flag", primary(offVariation=index))
    assert told is not None
    assert told["off"] is None
