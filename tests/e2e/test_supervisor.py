"""The supervisor with real processes: what is killed comes back, what is orphaned ends, and a stop stops all."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
import urllib3

from router.clock import ManualClock, SystemClock
from router.processes import end_remembered, is_alive, remember
from router.supervisor import Child, Round, Supervisor, wait_until_ready

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
T = TypeVar("T")

# Like granian: a main that accepts nothing itself, and two workers that share its port. Unlike granian's, the
# port is bound exclusively, so that it works again only if no orphan holds it, and one worker leaves the group.
FORKING = """
import os, signal, socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
def work(leave):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if leave:
        os.setsid()
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(f"HTTP/1.0 200 OK\\r\\n\\r\\n{os.getpid()}".encode())
def start(leave):
    pid = os.fork()
    if pid == 0:
        work(leave)
    return pid
workers = [start(False), start(True)]
def stop(*_):
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
while True:
    time.sleep(60)
"""

STUBBORN = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("stubborn is ready", flush=True)
while True:
    time.sleep(60)
"""

DRAINING = """
import pathlib, signal, sys, time
def drain(*_):
    time.sleep(0.6)
    pathlib.Path(sys.argv[1]).write_text("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, drain)
print("draining is ready", flush=True)
while True:
    time.sleep(60)
"""

FAILING = """
import os, pathlib, sys, time
with pathlib.Path(sys.argv[1]).open("a") as log:
    log.write(f"{time.monotonic()} {os.environ['WHO']}\\n")
sys.exit(3)
"""

WSGI_APP = """
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

SUPERVISE = """
import json, sys
from pathlib import Path
from router.clock import SystemClock
from router.processes import AlreadyRunningError
from router.supervisor import Child, Supervisor
children, run_dir, grace_s = json.loads(sys.argv[1])
supervisor = Supervisor(
    [Child(role, argv, {"WHO": role}) for role, argv in children],
    run_dir=Path(run_dir), clock=SystemClock(), say=lambda line: print(line, flush=True), stop_grace_s=grace_s,
)
try:
    supervisor.run()
except AlreadyRunningError as error:
    sys.exit(str(error))
"""


def until(found: Callable[[], T], within_s: float = 5.0) -> T:
    """Wait until `found` finds something, and fail after `within_s` seconds."""
    end = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < end, f"nothing after {within_s} s"
        time.sleep(0.01)
    return value


def alive(pid: int) -> bool:
    """Whether such a process runs; a zombie does not."""
    return psutil.pid_exists(pid) and is_alive(psutil.Process(pid))


def all_gone(pids: Sequence[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def answering(port: int) -> int:
    """The id of the process that answers on the port, or 0."""
    try:
        url, one_use = f"http://127.0.0.1:{port}/", {"Connection": "close"}
        return int(urllib3.request("GET", url, headers=one_use, retries=False, timeout=0.5).data)
    except (urllib3.exceptions.HTTPError, ValueError):
        return 0


class House:
    """A run directory, programs to run in it, and the supervisors that were started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.output = folder / "output"
        self.supervisors: list[subprocess.Popen[bytes]] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def program(self, source: str, *arguments: object) -> list[str]:
        """The command that runs this Python source."""
        return [sys.executable, "-c", source, *map(str, arguments)]

    def supervise(self, *children: tuple[str, list[str]], grace_s: float = 0.4) -> subprocess.Popen[bytes]:
        """Start a supervisor of these children in a process of its own."""
        with self.output.open("ab") as output:
            supervisor = subprocess.Popen(
                [sys.executable, "-c", SUPERVISE, json.dumps([children, str(self.run_dir), grace_s])],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.supervisors.append(supervisor)
        return supervisor

    @property
    def pids(self) -> dict[str, list[int]]:
        """What pids.json says now; nothing if there is none."""
        try:
            found: dict[str, list[int]] = json.loads((self.run_dir / "pids.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    @property
    def said(self) -> list[str]:
        return self.output.read_text().splitlines()

    def running(self, role: str, count: int, without: Sequence[int] = ()) -> list[int]:
        """Wait until the role has `count` living processes, none of them in `without`."""

        def found() -> list[int]:
            pids = self.pids.get(role, [])
            well = len(pids) == count and not set(pids) & set(without) and all(alive(pid) for pid in pids)
            return pids if well else []

        return until(found)

    def clear(self) -> None:
        """Leave nothing running, whatever the test did."""
        for supervisor in self.supervisors:
            supervisor.kill()
            supervisor.wait()
        end_remembered(self.run_dir / "processes.json", SystemClock(), grace_s=0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house with nothing running in it, before and after."""
    built = House(tmp_path)
    yield built
    built.clear()


def test_children_run_apart_and_are_published_by_role(house: House) -> None:
    """pids.json has the main first, then its children; each child has its own session and an empty stdin."""
    house.supervise(("web", house.program(FORKING, house.port)), ("worker", house.program(STUBBORN)))
    web = house.running("web", 3)
    worker = house.running("worker", 1)
    assert house.pids == {"web": web, "worker": worker}
    assert {child.pid for child in psutil.Process(web[0]).children()} == set(web[1:])
    until(lambda: answering(house.port) in web[1:])
    for main in (web[0], worker[0]):
        assert os.getsid(main) == main
        assert Path(f"/proc/{main}/fd/0").readlink() == Path("/dev/null")


def test_a_killed_main_is_back_within_two_seconds_and_its_orphans_are_ended(house: House) -> None:
    """The port answers again, from new processes only, though a worker had left the process group."""
    house.supervise(("web", house.program(FORKING, house.port)), ("sandbox", house.program(STUBBORN)))
    sandbox = house.running("sandbox", 1)
    for _ in range(2):  # twice in a row: being killed is no reason to come back later
        old = house.running("web", 3)
        until(lambda: answering(house.port))
        os.kill(old[0], signal.SIGKILL)
        killed_at = time.monotonic()
        until(lambda: answering(house.port) not in [0, *old], within_s=2)  # noqa: B023 - called at once
        assert time.monotonic() - killed_at < 2
        assert all_gone(old)
        new = house.running("web", 3, without=old)
        assert house.pids == {"web": new, "sandbox": sandbox}
    assert any("was killed by SIGKILL, 2 orphans ended; starting it again" in line for line in house.said)


def test_a_stop_ends_everything_even_what_ignores_it(house: House) -> None:
    """SIGINT ends the tidy and the stubborn, removes pids.json and returns."""
    supervisor = house.supervise(("web", house.program(FORKING, house.port)), ("worker", house.program(STUBBORN)))
    pids = house.running("web", 3) + house.running("worker", 1)
    until(lambda: "stubborn is ready" in house.said)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(5) == 0
    assert all_gone(pids)
    assert house.pids == {}
    assert house.said[-3:] == ["stopping", "worker did not stop: killed", "stopped"]
    assert not (house.run_dir / "processes.json").exists()


def test_a_second_ctrl_c_ends_everything_at_once(house: House) -> None:
    """Whoever presses twice does not wait for the grace to pass."""
    supervisor = house.supervise(("worker", house.program(STUBBORN)), grace_s=30)
    pids = house.running("worker", 1)
    until(lambda: "stubborn is ready" in house.said)
    supervisor.send_signal(signal.SIGINT)
    until(lambda: "stopping" in house.said)
    time.sleep(0.4)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(1) == 0
    assert all_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_that_is_delivered_twice_still_lets_children_finish(house: House, number: int) -> None:
    """make and the terminal may each pass one Ctrl-C on; that is no impatience."""
    done = house.folder / "done"
    supervisor = house.supervise(("worker", house.program(DRAINING, done)), grace_s=4)
    house.running("worker", 1)
    until(lambda: "draining is ready" in house.said)
    supervisor.send_signal(number)
    supervisor.send_signal(number)
    time.sleep(0.1)
    supervisor.send_signal(number)
    assert supervisor.wait(2) == 0
    assert done.read_text() == "drained"


def test_children_do_not_outlive_a_killed_supervisor_and_the_next_start_works(house: House) -> None:
    """The system tells them that their parent died; the next supervisor starts as if nothing had been."""
    children = ("web", house.program(FORKING, house.port))
    supervisor = house.supervise(children)
    old = house.running("web", 3)
    until(lambda: answering(house.port))
    supervisor.kill()
    until(lambda: all_gone(old))
    assert house.pids == {"web": old}  # nobody was left to remove it
    house.supervise(children)
    new = house.running("web", 3, without=old)
    until(lambda: answering(house.port) in new)


def test_the_next_start_ends_what_a_killed_supervisor_could_not(house: House) -> None:
    """A child that ignores SIGTERM is found by the sidecar file and killed before anything is started."""
    supervisor = house.supervise(("worker", house.program(STUBBORN)))
    old = house.running("worker", 1)
    until(lambda: "stubborn is ready" in house.said)
    supervisor.kill()
    supervisor.wait()
    assert alive(old[0])
    house.supervise(("worker", house.program(STUBBORN)))
    house.running("worker", 1, without=old)
    assert all_gone(old)
    assert "ended 1 process that an earlier run had left behind" in house.said


def test_a_second_supervisor_is_refused_with_one_line(house: House) -> None:
    """It names the first one, which goes on undisturbed."""
    first = house.supervise(("worker", house.program(STUBBORN)))
    pids = house.running("worker", 1)
    before = house.said
    second = house.supervise(("worker", house.program(STUBBORN)))
    assert second.wait(5) == 1
    refusal = [line for line in house.said if line not in before and "stubborn" not in line]
    assert refusal == [f"already running (pid {first.pid}) in {house.run_dir}: stop that one first"]
    assert first.poll() is None
    assert house.running("worker", 1) == pids


def test_a_child_that_cannot_stay_up_is_tried_steadily_without_a_flood(house: House) -> None:
    """The pace slows, never below once in two seconds, and it is said in a few lines; the others are not held up."""
    log = house.folder / "log"
    missing = str(house.folder / "no-such-program")
    house.supervise(("web", house.program(FAILING, log)), ("sandbox", [missing]), ("worker", house.program(STUBBORN)))
    house.running("worker", 1)
    until(lambda: log.exists() and len(log.read_text().splitlines()) >= 5)
    starts = [line.split() for line in log.read_text().splitlines()]
    assert {who for _, who in starts} == {"web"}
    times = [float(at) for at, _ in starts]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[0] < 1
    assert max(gaps) < 2
    said = [line for line in house.said if line.startswith("web")]
    assert 3 <= len(said) <= 4
    assert "silent until it stays up" in said[-1]
    assert f"cannot start {missing}: No such file or directory" in house.said


def test_a_process_id_that_now_belongs_to_another_is_left_alone(house: House) -> None:
    """The sidecar file names a process by its creation as well; a file that makes no sense names none."""
    stranger = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.DEVNULL, start_new_session=True)
    births = house.folder / "processes.json"
    try:
        remember(births, [psutil.Process(stranger.pid)])
        [[pid, created, group]] = json.loads(births.read_text())
        for content in (json.dumps([[pid, created - 60, group]]), "[[1]]", "{", "[]", '{"pid": 1}'):
            births.write_text(content)
            assert end_remembered(births, SystemClock(), grace_s=0) == 0
            assert alive(stranger.pid)
        births.write_text(json.dumps([[pid, created, group]]))
        assert end_remembered(births, SystemClock(), grace_s=0) == 1
        assert stranger.wait(2) < 0
    finally:
        stranger.kill()
        stranger.wait()


def test_one_round_tells_what_it_did(house: House) -> None:
    """A round starts what is due, the next finds nothing to do, and a death is buried before the restart is due."""
    clock = ManualClock()
    said: list[str] = []
    supervisor = Supervisor(
        [Child("worker", house.program(STUBBORN), {})], run_dir=house.run_dir, clock=clock, say=said.append
    )
    try:
        assert supervisor.run_once() == Round(started=1, ended=0)
        assert supervisor.run_once() == Round(started=0, ended=0)
        [pid] = house.pids["worker"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid))
        assert supervisor.run_once() == Round(started=0, ended=1)
        assert house.pids == {"worker": []}
        clock.advance(0.25)
        assert supervisor.run_once() == Round(started=1, ended=0)
        assert said[1] == "worker was killed by SIGKILL; starting it again"
    finally:
        supervisor.stop()
    assert supervisor.stopping.is_set()
    assert house.pids == {}


def test_granian_survives_the_death_of_a_worker_and_of_its_main(house: House) -> None:
    """A killed worker is replaced by granian, a killed main by the supervisor, both within two seconds."""
    (house.folder / "little.py").write_text(WSGI_APP)
    granian = [sys.executable, "-m", "granian", "--interface", "wsgi", "--port", str(house.port), "--workers", "2"]
    options = ["--respawn-failed-workers", "--workers-kill-timeout", "3", "--log-level", "error", "little:app"]
    supervisor = house.supervise(("web", granian + options), grace_s=4)
    first = house.running("web", 3)
    until(lambda: answering(house.port) in first)

    os.kill(first[1], signal.SIGKILL)
    killed_at = time.monotonic()
    second = house.running("web", 3, without=[first[1]])
    assert time.monotonic() - killed_at < 2
    assert second[0] == first[0]

    os.kill(second[0], signal.SIGKILL)
    killed_at = time.monotonic()
    third = house.running("web", 3, without=second)
    until(lambda: answering(house.port) in third)
    assert time.monotonic() - killed_at < 2
    assert all_gone(second)  # granian's port is shared: an orphan would go on taking a part of the payments
    assert {answering(house.port) for _ in range(40)} <= set(third[1:])

    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(5) == 0
    assert all_gone(third)


def test_waiting_for_readiness_ends_with_an_answer_or_with_patience(house: House) -> None:
    """True once the address answers 2xx, False when the time is up."""
    url = f"http://127.0.0.1:{house.port}/"
    assert not wait_until_ready(url, ManualClock(), timeout_s=1)
    house.supervise(("web", house.program(FORKING, house.port)))
    assert wait_until_ready(url, SystemClock(), timeout_s=5)
