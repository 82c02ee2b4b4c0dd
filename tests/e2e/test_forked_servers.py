"""Every worker follows a toggle, under gunicorn with --preload and without, and under granian; on both databases."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from flags.contract import PRIMARY_PROVIDER, provider_enabled_key
from flags.definitions import definitions
from flags.document import new_document
from flags.filewriter import FileFlagWriter
from router.settings import PROVIDER_NAMES
from tests.e2e.house import eventually, free_port
from tests.fakes.launchdarkly import FakeLaunchDarkly
from tests.integration.ledgers import BACKENDS, ledger_on
from tests.integration.postgres import Databases, databases
from tests.integration.shop import ENCRYPTION_KEY

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
KEY = "the-key-of-this-test"
FOLLOW_WITHIN_S = 1.0
"""From the toggle until every worker serves it (issue 4)."""

TELLING = """
import os
from wsgi import app as inner

IMPORTED_BY = os.getpid()

def app(environ, start_response):
    def start(status, headers, exc_info=None):
        mine = [("X-Pid", str(os.getpid())), ("X-Imported-By", str(IMPORTED_BY))]
        return start_response(status, [*headers, *mine], exc_info)
    return inner(environ, start)
"""

SERVERS = {
    "gunicorn --preload": ["gunicorn", "--preload", "--threads", "4", "--workers", str(WORKERS)],
    "gunicorn": ["gunicorn", "--threads", "4", "--workers", str(WORKERS)],
    "granian": ["granian", "--interface", "wsgi", "--workers", str(WORKERS), "--log-level", "error"],
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Databases]:
    with databases() as found:
        yield found


@pytest.fixture(params=BACKENDS)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ledger_on(request.param, request, tmp_path, prepare=None) as url:
        yield url


class Served:
    """The router behind a server of several processes; each answer says which of them gave it."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.process = process
        self.log = log

    def ask(self, path: str) -> tuple[int, int, Any]:
        """Who answered, who had imported the application, and the answer; on a connection of its own."""
        headers = {"Authorization": f"Bearer {KEY}", "Connection": "close"}
        answer = urllib3.request("GET", self.url + path, headers=headers, retries=False, timeout=10)
        assert answer.status == 200, answer.data
        return int(answer.headers["X-Pid"]), int(answer.headers["X-Imported-By"]), answer.json()

    def is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            self.ask("/readyz")
            return True
        return False

    def by_worker(self, path: str, of: Callable[[Any], Any]) -> dict[int, Any]:
        """What each worker answers, as soon as each has; the latest of each."""
        found: dict[int, Any] = {}
        end = time.monotonic() + 30
        while len(found) < WORKERS:
            assert time.monotonic() < end, f"only {found} answered: {self.log.read_text()}"
            pid, _, body = self.ask(path)
            found[pid] = of(body)
        return found

    def follows(self, expected: bool) -> float:
        """Seconds until every worker says that of adyen's kill switch."""
        begun = time.monotonic()
        while set(self.by_worker("/v1/providers", adyen_is_enabled).values()) != {expected}:
            assert time.monotonic() - begun < 10, self.log.read_text()
        return time.monotonic() - begun


def adyen_is_enabled(body: Any) -> bool:
    return next(bool(each["enabled"]) for each in body["providers"] if each["name"] == "adyen")


@contextlib.contextmanager
def served(server: str, folder: Path, ledger_url: str, **settings: str) -> Iterator[Served]:
    """The server over a run directory in the folder."""
    (folder / "telling.py").write_text(TELLING)
    port = free_port()
    bind = ["--bind", f"127.0.0.1:{port}"] if "gunicorn" in server else ["--port", str(port)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_")}
    env = inherited | {
        "PYTHONPATH": f"{ROOT}:{folder}",
        "ROUTER_RUN_DIR": str(folder / "run"),
        "ROUTER_DATABASE_URL": ledger_url,
        "ROUTER_API_KEY": KEY,
        "ROUTER_ENCRYPTION_KEYS": ENCRYPTION_KEY,
        **settings,
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[server], *bind, "telling:app"],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    found = Served(f"http://127.0.0.1:{port}", process, log)
    try:
        eventually(found.is_up, 30)
        yield found
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


@pytest.mark.processes
@pytest.mark.either_database
@pytest.mark.parametrize("server", ["gunicorn --preload", "granian"])
def test_every_worker_follows_launchdarkly_and_its_own_connections(
    server: str, tmp_path: Path, ledger_url: str
) -> None:
    """Toggled ten times; each change is in the audit once, and every worker reads the ledger undisturbed."""
    flags = new_document(definitions(PROVIDER_NAMES).values())["flags"]
    with FakeLaunchDarkly(flags) as fake:
        uris = {f"ROUTER_LAUNCHDARKLY_{name}_URI": fake.uri for name in ("BASE", "STREAM", "EVENTS")}
        with served(server, tmp_path, ledger_url, ROUTER_LAUNCHDARKLY_SDK_KEY="sdk-key", **uris) as router:
            workers = router.by_worker("/readyz", lambda body: body["flags"]["state"])
            assert len(workers) == WORKERS
            assert set(workers.values()) == {"valid"}
            pid, imported_by, _ = router.ask("/readyz")
            assert (imported_by == router.process.pid) == ("--preload" in server)
            assert pid != imported_by or "--preload" not in server
            took = []
            for number in range(10):
                fake.update(provider_enabled_key("adyen"), on=bool(number % 2))
                took.append(router.follows(bool(number % 2)))
            assert sorted(took)[len(took) // 2] < FOLLOW_WITHIN_S
            key = provider_enabled_key("adyen")
            eventually(lambda: len(router.ask(f"/v1/flags/changes?key={key}")[2]["changes"]) >= 11, 5)
            listed = router.ask(f"/v1/flags/changes?key={key}")[2]["changes"]
            assert [each["version"] for each in listed] == list(range(11, 0, -1))
            assert "Traceback" not in router.log.read_text()


@pytest.mark.processes
def test_preloaded_workers_follow_the_flags_file(tmp_path: Path) -> None:
    """With no account: the main process has built nothing, and each worker watches the file itself."""
    with served("gunicorn --preload", tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}") as router:
        assert len(router.by_worker("/readyz", lambda body: body["flags"]["serves"])) == WORKERS
        writer = FileFlagWriter(tmp_path / "run" / "flags.json", PROVIDER_NAMES)
        for enabled in (False, True, False):
            writer.set(provider_enabled_key("adyen"), enabled, expected=None, comment="a test")
            assert router.follows(enabled) < 5
        writer.set(PRIMARY_PROVIDER, "adyen", expected=None, comment="a test")
        changes = eventually(
            lambda: [each for each in router.ask("/v1/flags/changes")[2]["changes"] if each["old"] is not None][:4], 5
        )
        assert changes[0]["key"] in (PRIMARY_PROVIDER, provider_enabled_key("adyen"))
