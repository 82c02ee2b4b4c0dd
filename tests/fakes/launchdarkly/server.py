"""The stand-in itself: what tests ask of it. Stream, events sink and REST share one port."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import queue
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.launchdarkly import project
from tests.fakes.launchdarkly.handler import Connections, handler_of
from tests.fakes.launchdarkly.project import Flag, RefusedError

PERSON = "person"
TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the audit log: whose change of a flag, and what its default rule serves since."""

    key: str
    who: str
    """`token`, or `person`."""
    comment: str | None
    version: int
    serves: Any


@dataclass(slots=True)
class Patch:
    """One PATCH that arrived, whatever became of it."""

    key: str
    comment: str | None
    instructions: list[dict[str, Any]]
    at: float
    """On the monotonic clock."""
    status: int | None = None
    """What was answered; None where nothing was."""


@dataclass(slots=True)
class Approval:
    """A filed approval request. `status` is `pending`, `completed`, `declined` or `withdrawn`."""

    id: str
    key: str
    description: str
    instructions: list[dict[str, Any]]
    notify: list[str] = field(default_factory=list)
    status: str = "pending"


@dataclass(slots=True)
class Fault:
    """What becomes of one REST call."""

    call: str
    status: int | None
    how: str | None
    acts: bool
    reset_in_s: float | None
    retry_after_s: float | None


class FakeLaunchDarkly:
    """One project (`payments`) with one environment (`production`), on 127.0.0.1; each change goes to its streams.

    REST calls are named `get`, `patch`, `create`, `ask` (an approval), `withdraw` and `environment`; `any` is all.
    """

    def __init__(
        self, flags: dict[str, dict[str, Any]], segments: dict[str, dict[str, Any]] | None = None, port: int = 0
    ) -> None:
        self.project, self.environment, self.token = "payments", "production", "api-token"
        self._flags = {key: Flag(copy.deepcopy(sdk)) for key, sdk in flags.items()}
        self._segments = segments or {}
        self._lock = threading.RLock()
        self._streams: list[queue.Queue[bytes | None]] = []
        self._faults: list[Fault] = []
        self._hooks: list[tuple[str, int, Callable[[], object]]] = []
        self._need_approval: set[str] = set()
        self._pending: set[str] = set()
        self.closing = threading.Event()
        self.connections = Connections()
        self._server = self._listen(port)
        self._port = self._server.server_port
        self._reserved: socket.socket | None = None
        self.posts: list[str] = []
        """The paths that the SDK posted to: `/bulk` and `/diagnostic`."""
        self.authorization: str | None = None
        """The key of the last stream request."""
        self.refuse_with: int | None = None
        """When set, the stream is refused with this HTTP status."""
        self.stalled = False
        """While set, streams are accepted, stay open and say nothing."""
        self.calls: list[str] = []
        """Every REST call that arrived, by its name."""
        self.patches: list[Patch] = []
        """Every PATCH that arrived, refused ones too."""
        self.audit: list[Change] = []
        """Every change of a flag that was made."""
        self.approvals: dict[str, Approval] = {}
        self.creates_off = False
        """Whether this environment has new flags off, whatever was asked."""

    # ------------------------------------------------------------ its life

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def rest_uri(self) -> str:
        return self.uri

    @property
    def streams(self) -> int:
        """How many streams are open."""
        with self._lock:
            return len(self._streams)

    def __enter__(self) -> FakeLaunchDarkly:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        if self._reserved is None:
            self._end()
        else:
            self._reserved.close()

    def away(self) -> None:
        """Be gone: every connection is cut and new ones are refused, until `back`."""
        self._end()
        # Bound and not listening: refuses connections, and keeps the port from being given to anyone else.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", self._port))

    def back(self) -> None:
        """Be there again, at the same address."""
        assert self._reserved is not None, "it was not away"
        self._server = self._listen(self._port)
        self._reserved.close()
        self._reserved = None
        self._serve()

    def _listen(self, port: int) -> http.server.ThreadingHTTPServer:
        return _Server(("127.0.0.1", port), handler_of(self))

    def _serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def _end(self) -> None:
        self.drop_streams()
        self._server.shutdown()
        self._server.server_close()
        self.connections.cut()

    # ------------------------------------------------------------ streams

    def drop_streams(self) -> None:
        """End every open stream, as a restart of LaunchDarkly's edge does."""
        with self._lock:
            for stream in self._streams:
                stream.put(None)
            self._streams.clear()

    def stall(self) -> None:
        """Streams stay open, or are accepted, and say nothing more, not even heartbeats, until `flow`."""
        self.stalled = True

    def flow(self) -> None:
        """Streams say what they held back, and go on."""
        self.stalled = False

    def open_stream(self) -> queue.Queue[bytes | None]:
        stream: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            flags = {key: flag.sdk for key, flag in self._flags.items()}
            stream.put(_event("put", {"path": "/", "data": {"flags": flags, "segments": self._segments}}))
            self._streams.append(stream)
        return stream

    def left(self, stream: queue.Queue[bytes | None]) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._streams.remove(stream)

    # ------------------------------------------------------------ the flags, and people at the dashboard

    def serves(self, key: str) -> Any:
        """What the default rule serves: a value, or {value: weight} for a rollout."""
        with self._lock:
            return self._flags[key].serves()

    def flag(self, key: str) -> dict[str, Any]:
        """The flag as the SDK is sent it."""
        with self._lock:
            return copy.deepcopy(self._flags[key].sdk)

    def has(self, key: str) -> bool:
        """Whether there is such a flag."""
        with self._lock:
            return key in self._flags

    def update(self, key: str, **changes: Any) -> None:
        """A person changes fields of a flag, in the SDK's format."""
        with self._lock:
            flag = copy.deepcopy(self._flags[key])
            flag.sdk.update(copy.deepcopy(changes), version=flag.sdk["version"] + 1)
            if "variations" in changes:
                flag.version += 1
            self._save(flag, PERSON, None)

    def person_sets(self, key: str, value: Any) -> None:
        """A person makes the default rule serve this value."""
        with self._lock:
            self.update(key, fallthrough={"variation": self._flags[key].index(value)})

    def person_sets_rollout(
        self, key: str, weights: dict[Any, int], *, context_kind: str = "customer", bucket_by: str | None = None
    ) -> None:
        """A person makes the default rule a percentage rollout; weights in thousandths of a per cent."""
        with self._lock:
            flag = self._flags[key]
            shares = [{"variation": flag.index(value), "weight": weight} for value, weight in weights.items()]
            rollout: dict[str, Any] = {"variations": shares, "contextKind": context_kind}
            if bucket_by is not None:
                rollout["bucketBy"] = bucket_by
            self.update(key, fallthrough={"rollout": rollout})

    def person_switches(self, key: str, *, on: bool) -> None:
        """A person turns the flag on or off."""
        self.update(key, on=on)

    def _save(self, flag: Flag, who: str, comment: str | None) -> None:
        key = flag.sdk["key"]
        self._flags[key] = flag
        self.audit.append(Change(key, who, comment, flag.sdk["version"], flag.serves()))
        event = _event("patch", {"path": f"/flags/{key}", "data": flag.sdk})
        for stream in self._streams:
            stream.put(event)

    # ------------------------------------------------------------ governance

    def need_approval(self, key: str, *, needed: bool = True) -> None:
        """From now on the flag cannot be patched (405), only by an approval request."""
        (self._need_approval.add if needed else self._need_approval.discard)(key)

    def pending_change(self, key: str, *, pending: bool = True) -> None:
        """A scheduled change waits that a PATCH of the flag would break: 400."""
        (self._pending.add if pending else self._pending.discard)(key)

    def approve(self, id_: str) -> None:
        """A person approves the request, and it is applied."""
        with self._lock:
            approval = self.approvals[id_]
            assert approval.status == "pending"
            after = project.patched(self._flags[approval.key], approval.instructions)
            self._save(after, PERSON, approval.description)
            approval.status = "completed"

    def decline(self, id_: str) -> None:
        """A person declines it."""
        assert self.approvals[id_].status == "pending"
        self.approvals[id_].status = "declined"

    # ------------------------------------------------------------ faults and races

    def fail_next(
        self,
        call: str,
        *,
        status: int | None = None,
        how: str | None = None,
        times: int = 1,
        acts: bool = False,
        reset_in_s: float | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """The next calls of that name fail, `times` times: with `status`, or as `how` says.

        `how`: `hang` (never answered), `cut` (the connection ends with no answer), `garbage` (200 with HTML).
        `acts`: the call does its work first. `reset_in_s` and `retry_after_s` are a 429's headers.
        """
        assert (status is None) != (how is None)
        assert how in (None, "hang", "cut", "garbage")
        with self._lock:
            self._faults += [Fault(call, status, how, acts, reset_in_s, retry_after_s) for _ in range(times)]

    def before(self, call: str, do: Callable[[], object], *, skip: int = 0) -> None:
        """Run `do` once, when a call of that name has arrived and is not done yet; `skip` lets some by first."""
        with self._lock:
            self._hooks.append((call, skip, do))

    def before_patch(self, do: Callable[[], object]) -> None:
        """Run `do` once, between a writer's GET and its PATCH: the PATCH comes after it, and wins."""
        self.before("patch", do)

    def during_patch(self, do: Callable[[], object]) -> None:
        """Run `do` once, while LaunchDarkly applies the PATCH: if it changes the flag, the PATCH is refused (409)."""
        self.before("save", do)

    def run_hooks(self, call: str) -> None:
        with self._lock:
            due = [do for name, skip, do in self._hooks if name == call and skip == 0]
            self._hooks = [
                (name, skip - (name == call), do) for name, skip, do in self._hooks if name != call or skip > 0
            ]
        for do in due:
            do()

    def next_fault(self, call: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.call in (call, "any"):
                    self._faults.remove(fault)
                    return fault
        return None

    # ------------------------------------------------------------ REST, for the handler; each answers status and body

    def rest_environment(self, environment: str) -> tuple[int, dict[str, Any]]:
        if environment != self.environment:
            raise RefusedError(404, "not_found", "Invalid resource identifier")
        return 200, project.environment(environment)

    def rest_get(self, key: str, environment: str | None) -> tuple[int, dict[str, Any]]:
        with self._lock:
            found = self._found(key)
            wanted = environment in (None, self.environment)
            return 200, project.shown(found, self.project, self.environment, wanted)

    def rest_patch(self, key: str, body: Any, *, dry_run: bool, ignore_conflicts: bool) -> tuple[int, dict[str, Any]]:
        with self._lock:
            before = self._found(key)
        if not isinstance(body, dict) or body.get("environmentKey", self.environment) != self.environment:
            raise RefusedError(404, "not_found", "Unknown environment key")
        after = project.patched(before, body.get("instructions"))
        in_environment = any(one["kind"] != "addVariation" for one in body["instructions"])
        if in_environment and "environmentKey" not in body:
            raise project.invalid("environmentKey is required")
        if in_environment and key in self._need_approval:
            raise RefusedError(405, "method_not_allowed", "Approval is required to update this flag")
        if in_environment and key in self._pending and not ignore_conflicts:
            raise project.invalid("This update conflicts with a pending scheduled change")
        if not dry_run:
            self.run_hooks("save")
            with self._lock:
                if self._flags[key] is not before:
                    raise RefusedError(
                        409, "optimistic_locking_error", "Conflict. Optimistic lock error. Try again later."
                    )
                if (after.sdk, after.version) != (before.sdk, before.version):
                    self._save(after, TOKEN, body.get("comment"))
        return 200, project.shown(after, self.project, self.environment)

    def rest_create(self, body: Any) -> tuple[int, dict[str, Any]]:
        with self._lock:
            flag = project.created(body)
            if flag.sdk["key"] in self._flags:
                raise RefusedError(409, "conflict", "A feature with that key already exists")
            if self.creates_off:
                flag.sdk["on"] = False
            self._save(flag, TOKEN, None)
            return 201, project.shown(flag, self.project, self.environment)

    def rest_ask(self, key: str, body: Any) -> tuple[int, dict[str, Any]]:
        with self._lock:
            project.patched(self._found(key), body.get("instructions"))
            if not body.get("description"):
                raise project.invalid("description is required")
            approval = Approval(
                uuid.uuid4().hex[:24], key, body["description"], body["instructions"], body.get("notifyMemberIds", [])
            )
            self.approvals[approval.id] = approval
            return 201, self._approval(approval)

    def rest_requests(self, key: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self._found(key)
            mine = [each for each in self.approvals.values() if each.key == key and each.status != "withdrawn"]
            return 200, {"items": [self._approval(each) for each in mine], "_links": {}}

    def rest_withdraw(self, key: str, id_: str) -> tuple[int, None]:
        with self._lock:
            approval = self.approvals.get(id_)
            if approval is None or approval.key != key or approval.status == "withdrawn":
                raise RefusedError(404, "not_found", "Invalid resource identifier")
            approval.status = "withdrawn"
            return 204, None

    def _approval(self, approval: Approval) -> dict[str, Any]:
        return {
            "_id": approval.id,
            "_version": 1,
            "creationDate": project.MADE_AT_MS,
            "serviceKind": "launchdarkly",
            "description": approval.description,
            "reviewStatus": {"completed": "approved"}.get(approval.status, approval.status),
            "allReviews": [],
            "notifyMemberIds": approval.notify,
            "status": "completed" if approval.status == "completed" else "pending",
            "instructions": approval.instructions,
            "conflicts": [],
            "_links": {},
        }

    def _found(self, key: str) -> Flag:
        if key not in self._flags:
            raise RefusedError(404, "not_found", "Invalid resource identifier")
        return self._flags[key]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that left."""


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
