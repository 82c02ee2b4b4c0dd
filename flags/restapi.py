"""LaunchDarkly's REST API over one pool of connections: one call, once, and what its failure means.

The API is described at https://launchdarkly.com/docs/api. Messages name neither the token nor anything of a body.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

import urllib3

from flags.contract import ApprovalNeededError, FlagChangedError, FlagUnavailableError, FlagWriteError

API_VERSION = "20240415"
SEMANTIC_PATCH = "application/json; domain-model=launchdarkly.semanticpatch"
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""A flag is some kilobytes, with all its targets perhaps a few hundred."""
CHUNK_BYTES = 64 * 1024
LEAVE_ALONE_AT_MOST_S = 600.0
"""Longer is a clock that is wrong: the limits' windows are ten seconds, by IP minutes."""
CONFLICT = re.compile(r"conflict|pending|scheduled|approval", re.IGNORECASE)
"""What a 400 says when the change would break a scheduled change or an approval request; its code says nothing."""
TOKEN = re.compile(r"[!-~]+")
"""Anything else the HTTP client would refuse, with the token in its message."""

ADVICE = {
    400: "LaunchDarkly refused the request as wrong (HTTP 400)",
    401: "LaunchDarkly does not know the API token (HTTP 401): is ROUTER_LAUNCHDARKLY_API_TOKEN right?",
    403: "LaunchDarkly forbids it (HTTP 403): the API token needs the right to update flags in this environment",
    404: "LaunchDarkly has no such flag, project or environment (HTTP 404), or the API token may not see it: "
    "are ROUTER_LAUNCHDARKLY_PROJECT and _ENVIRONMENT right, and has `pointsman flags bootstrap --apply` run?",
    422: "LaunchDarkly cannot make this change (HTTP 422): does the flag have the variation?",
}


def system_now() -> dt.datetime:
    """The present instant; a test passes another."""
    return dt.datetime.now(dt.UTC)


class LaunchDarklyApi:
    """Calls about the flags of one project. Thread-safe. Nothing is retried here, and redirects are not followed.

    A call takes at most `connect_s` for each address that does not answer, and about `read_s` for the answer.
    """

    def __init__(
        self,
        token: str,
        *,
        project: str,
        api_uri: str,
        connect_s: float,
        read_s: float,
        now: Callable[[], dt.datetime] = system_now,
    ) -> None:
        """Raises ValueError for an empty project, or a token that is empty or cannot be one."""
        if not project.strip() or not TOKEN.fullmatch(token.strip()):
            raise ValueError("the LaunchDarkly project is empty, or the API token is empty or not one word")
        self._token = token.strip()
        self._project = project.strip()
        self._api_uri = api_uri.rstrip("/")
        self._timeout = urllib3.Timeout(connect=connect_s, read=read_s)
        self._read_s = read_s
        self._now = now
        self._pool = urllib3.PoolManager(maxsize=2, retries=False, ssl_context=ssl.create_default_context())

    def flag(self, key: str, environment: str) -> dict[str, Any]:
        """The flag with this environment's targeting. Raises FlagUnavailableError, FlagWriteError."""
        return self._json("GET", self._flag_path(key), query={"env": environment})

    def find(self, key: str, environment: str) -> dict[str, Any] | None:
        """As `flag`; None where the project has no such flag."""
        status, headers, content = self._send("GET", self._flag_path(key), {"env": environment}, None, None)
        return None if status == 404 else self._read_as_json("GET", status, headers, content)

    def check_environment(self, environment: str) -> None:
        """Raise FlagWriteError, saying so, where there is no such project or environment."""
        path = f"/api/v2/projects/{_quoted(self._project)}/environments/{_quoted(environment)}"
        status, headers, content = self._send("GET", path, None, None, None)
        if status == 404:
            raise FlagWriteError(
                f"LaunchDarkly has no project {self._project} with an environment {environment}, or the API token "
                "may not see it: are ROUTER_LAUNCHDARKLY_PROJECT and _ENVIRONMENT right?"
            )
        self._read_as_json("GET", status, headers, content)

    def patch(self, key: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A semantic patch; the flag after it. Raises every error of the contract."""
        return self._json("PATCH", self._flag_path(key), body=body, content_type=SEMANTIC_PATCH)

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new flag. Raises as `patch`; FlagChangedError: there is one with this key."""
        return self._json("POST", f"/api/v2/flags/{_quoted(self._project)}", body=body)

    def ask_approval(self, key: str, environment: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A new approval request. Raises as `patch`."""
        return self._json("POST", self._approvals_path(key, environment), body=body)

    def approvals(self, key: str, environment: str) -> list[dict[str, Any]]:
        """The flag's approval requests. Raises FlagUnavailableError, FlagWriteError."""
        items = self._json("GET", self._approvals_path(key, environment)).get("items")
        return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []

    def withdraw(self, key: str, environment: str, request: str) -> None:
        """Delete an approval request, if it is still there. Raises FlagUnavailableError, FlagWriteError."""
        path = f"{self._approvals_path(key, environment)}/{_quoted(request)}"
        status, headers, content = self._send("DELETE", path, None, None, None)
        if status not in (200, 204, 404):
            self._refuse("DELETE", status, headers, content)

    def close(self) -> None:
        """Drop the pooled connections."""
        self._pool.clear()

    def _flag_path(self, key: str) -> str:
        return f"/api/v2/flags/{_quoted(self._project)}/{_quoted(key)}"

    def _approvals_path(self, key: str, environment: str) -> str:
        flag = f"/api/v2/projects/{_quoted(self._project)}/flags/{_quoted(key)}"
        return f"{flag}/environments/{_quoted(environment)}/approval-requests"

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        return self._read_as_json(method, *self._send(method, path, query, body, content_type))

    def _read_as_json(self, method: str, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        if status not in (200, 201):
            self._refuse(method, status, headers, content)
        answer = _object(content)
        if answer is None:
            raise FlagUnavailableError(
                "LaunchDarkly's API answered something that is not its own: is a proxy between?"
            )
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        content_type: str | None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"Authorization": self._token, "LD-API-Version": API_VERSION, "Accept": "application/json"}
        if body is not None and content_type is not None:
            headers["Content-Type"] = content_type
        url = f"{self._api_uri}{path}{'?' + urlencode(query) if query else ''}"
        try:
            response = self._pool.urlopen(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=self._timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                content = self._read(response)
            finally:
                if not response.closed:  # what is left of it must not meet the next request
                    response.close()
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, http.client.HTTPException) as error:
            # `from None`: the error's text names addresses; what matters of it is this.
            raise FlagUnavailableError(f"LaunchDarkly's API {_what_failed(error)}") from None
        return response.status, response.headers, content

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes:
        """The whole answer, within the read timeout however slowly it drips."""
        chunks, size, give_up_at = [], 0, time.monotonic() + self._read_s
        while chunk := response.read1(CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES or time.monotonic() > give_up_at:
                raise TimeoutError
        return b"".join(chunks)

    def _refuse(self, method: str, status: int, headers: Mapping[str, str], content: bytes) -> NoReturn:
        if status == 405 and method == "PATCH":
            raise ApprovalNeededError(
                "LaunchDarkly wants another person's approval for a change of this flag (HTTP 405)"
            )
        if status == 409:
            raise FlagChangedError(
                "someone else was changing this at the same moment (HTTP 409); nothing was written"
            )
        if status == 429:
            raise FlagUnavailableError(
                "LaunchDarkly's API limits our rate (HTTP 429)", retry_after_s=self._leave_alone_s(headers)
            )
        if status == 400 and CONFLICT.search(_words(content)):
            raise FlagUnavailableError(
                "the change conflicts with a scheduled change or an approval request that is pending on this flag "
                "(HTTP 400): apply or delete that in LaunchDarkly; nothing was written"
            )
        if status in ADVICE:
            raise FlagWriteError(ADVICE[status])
        if status == 408 or status >= 500:
            raise FlagUnavailableError(f"LaunchDarkly's API answered HTTP {status}")
        raise FlagWriteError(f"LaunchDarkly's API answered HTTP {status}: is ROUTER_LAUNCHDARKLY_API_URI right?")

    def _leave_alone_s(self, headers: Mapping[str, str]) -> float | None:
        """Until when the limit lasts: an instant in epoch milliseconds, or seconds where it is by our address."""
        reset_ms, after_s = _number(headers.get("X-Ratelimit-Reset")), _number(headers.get("Retry-After"))
        wanted = [] if after_s is None else [after_s]
        if reset_ms is not None:
            wanted.append(reset_ms / 1000 - self._now().timestamp())
        return min(max(0.0, *wanted), LEAVE_ALONE_AT_MOST_S) if wanted else None


def _what_failed(error: Exception) -> str:
    match error:
        case urllib3.exceptions.NameResolutionError():
            return "cannot be found (no such name): is ROUTER_LAUNCHDARKLY_API_URI right?"
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.ConnectTimeoutError():
            return "cannot be reached"
        case urllib3.exceptions.SSLError():
            return "cannot be trusted (TLS)"
        case urllib3.exceptions.ReadTimeoutError() | TimeoutError():
            return "did not answer in time"
        case _:
            return "broke the connection"


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _words(content: bytes) -> str:
    answer = _object(content) or {}
    return f"{answer.get('code')} {answer.get('message')}"


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _quoted(part: str) -> str:
    return quote(part, safe="")
