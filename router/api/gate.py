"""What every request passes before its view: who calls, a sound body, and no card number anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from flask import Flask, Request, g, request

from router.api.key_ring import KeyRing
from router.api.limiting import check_rate
from router.api.problems import ProblemError, invalid
from router.ledger.keys import Caller
from router.limits.guard import Guard, Refusal
from router.pan_written import holds_pan as contains_pan
from router.pan_written import json_holds_no_pan
from router.slow_bodies import WHOSE

MAXIMUM_BODY_BYTES = 64 * 1024
"""A payment's body is about one kilobyte."""
OPTIONAL_BODY = frozenset(
    {
        *(f"payments.{name}_payment" for name in ("capture", "cancel", "refund", "complete")),
        *(f"webhook_endpoints.{name}" for name in ("rotate_secret", "disable_endpoint", "enable_endpoint")),
        "dead_letters.redrive",
        *(f"api_keys.{name}" for name in ("rotate_key", "revoke_key")),
    }
)
SCOPES_BY_PATH = {
    "/v1/payments": ("payments",),
    "/v1/decisions": ("payments",),
    "/v1/providers": ("operate", "reports"),
    "/v1/webhook-endpoints": ("operate",),
    "/v1/api-keys": ("operate",),
    "/v1/settlements": ("operate", "reports"),
    "/v1/reports": ("reports",),
}
"""Any one of these is enough."""
OPERATORS = frozenset({"payments.resolve_payment", "circuits.order_breaker", "settlements.import_file"})
"""Views under those paths that are an operator's."""
READERS = frozenset({"payments.read_payment"})
"""Views under those paths that are an operator's too: who is to resolve a payment has to see it."""
OPEN_TO_ALL = frozenset({"status.read_status"})
"""Views under `/v1/` that need no key: a page that customers see asks them."""
LARGE_BODIES = {"payments.complete_payment": 256 * 1024}
"""What a 3-D Secure challenge brings back can be a hundred thousand characters by itself."""


RAW_BODIES = {"settlements.import_file": 256 * 1024 * 1024}
"""Files: read by their view, as a stream. A million lines of Adyen's are about 250 MB."""


class StrictRequest(Request):
    """A request whose JSON is parsed once, strictly: an object, no repeated names, no NaN."""

    strict_body: Any = None

    def get_json(self, *_args: Any, **_options: Any) -> Any:
        """The body that `admit` parsed; None when there was none."""
        return self.strict_body


TRIED = "pointsman.tried"
"""In the WSGI environment: the request's `Tried`, where its key's rate was counted in front of the views
(`router.api.quick`)."""


@dataclass(slots=True)
class Tried:
    """What became of it there. With neither a refusal nor an error: its key's rate is counted, and nothing more."""

    caller: Caller
    """By its key, which is not judged again: that could take the place of what making the payment raised."""
    refusal: Refusal | None = None
    """By its merchant's quota."""
    error: Exception | None = None
    """What making it raised: its view raises it."""


def install(app: Flask, keys: KeyRing, guard: Guard | None = None) -> None:
    """Put the gate before every view under `/v1/`; `guard` knows the callers' limits."""
    app.request_class = StrictRequest
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY_BYTES

    @app.before_request
    def admit() -> None:
        asked: StrictRequest = cast("Any", request)._get_current_object()  # once: each look through it costs 1 µs
        path, endpoint = asked.path, asked.endpoint
        if not path.startswith("/v1/") or endpoint in OPEN_TO_ALL:
            return
        tried: Tried | None = asked.environ.get(TRIED)
        g.caller = caller = _authenticate(keys, asked) if tried is None else tried.caller
        asked.environ[WHOSE] = caller.merchant
        if guard is not None and tried is None:
            check_rate(guard, caller)
        for prefix, scopes in SCOPES_BY_PATH.items():
            if path.startswith(prefix):
                # Before the body is looked at: what a key may not do, it learns nothing about.
                if endpoint in OPERATORS:
                    _require(caller, "operate")
                else:
                    _require(caller, *scopes, *(["operate"] if endpoint in READERS else []))
        if endpoint in LARGE_BODIES:
            asked.max_content_length = LARGE_BODIES[endpoint]
        if endpoint in RAW_BODIES:
            asked.max_content_length = RAW_BODIES[endpoint]
        if contains_pan(path):
            raise _pan_refused("path")
        if asked.query_string and any(contains_pan(part) for pair in asked.args.items(multi=True) for part in pair):
            raise _pan_refused("query")
        if asked.method in {"POST", "PUT", "PATCH"} and endpoint not in RAW_BODIES:
            asked.strict_body = parse(asked.get_data(cache=False), optional=endpoint in OPTIONAL_BODY)


def require(*scopes: str) -> Caller:
    """The caller of this request. Raises a 403 problem unless its key has one of these scopes."""
    caller: Caller = g.caller
    return _require(caller, *scopes)


def _require(caller: Caller, *scopes: str) -> Caller:
    """Raises a 403 problem unless this caller's key has one of these scopes."""
    if caller.scopes.isdisjoint(scopes):
        raise ProblemError(403, "forbidden", f"This key lacks the scope {' or '.join(sorted(scopes))}.")
    return caller


def idempotency_key() -> str:
    """The request's Idempotency-Key, as `sound_key` has it."""
    return sound_key(request.headers.get("Idempotency-Key"))


def sound_key(key: str | None) -> str:
    """An Idempotency-Key: 1 to 255 visible ASCII characters. Raises a problem naming the header."""
    if key is None or not key:
        raise invalid("Idempotency-Key", "this header is required", status=400)
    if len(key) > 255 or not all("!" <= each <= "~" for each in key):
        raise invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters", status=400)
    if contains_pan(key):
        raise _pan_refused("Idempotency-Key")
    return key


def key_in(authorization: str) -> str:
    """The key that this header carries; "": none."""
    scheme, _, key = authorization.partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _authenticate(keys: KeyRing, asked: Request) -> Caller:
    key = key_in(asked.headers.get("Authorization", ""))
    caller = keys.caller(key) if key else None
    if caller is None:
        raise unauthenticated()
    return caller


def unauthenticated() -> ProblemError:
    """The 401 problem."""
    challenge = {"WWW-Authenticate": 'Bearer realm="pointsman"'}
    return ProblemError(401, "unauthenticated", "A valid API key is needed.", headers=challenge)


def parse(data: bytes, *, optional: bool = False) -> dict[str, Any]:
    """The body's object. Raises a problem where it is none, repeats a name or holds a card number."""
    if optional and not data.strip():
        return {}
    if not data.strip():
        raise invalid("body", "a JSON object is required", status=400)
    try:
        body = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise invalid("body", "is not valid JSON", status=400) from None
    # Looked for before anything is checked, so that no message about a field can be about a card number.
    if not json_holds_no_pan(data):
        place = next((name for name, value in _parts(body) if contains_pan(name) or contains_pan(value)), None)
        if place is not None:
            raise _pan_refused("body" if contains_pan(place) else place)
    if not isinstance(body, dict):
        raise invalid("body", "must be a JSON object", status=400)
    return body


def _parts(body: Any) -> list[tuple[str, Any]]:
    return list(body.items()) if isinstance(body, dict) else [("body", body)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two readers could each take another one of the two.
        msg = "a name is repeated"
        raise ValueError(msg)
    return found


def _no_constant(_name: str) -> Any:
    msg = "not a number"
    raise ValueError(msg)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""Made once: `json.loads` makes one for every call that says how to decode."""


def _pan_refused(place: str) -> ProblemError:
    detail = "A card number is not accepted here; send a provider's token."
    return ProblemError(422, "card-number-refused", detail, errors=[{"field": place, "detail": detail}])
