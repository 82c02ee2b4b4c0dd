"""A connection to each web process: over any other, who of them answers is left to chance, or to one alone."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3

from tests.e2e.house import House

TRIES = 60
"""The kernel deals connections out: that sixty all go to one of two has a chance of 2 in a quintillion."""


def line_to_each(house: House) -> dict[int, House]:
    """By process id, the house as it is seen over one connection that this process has accepted."""
    workers = set(house.pids()["web"][1:])
    found: dict[int, House] = {}
    for _ in range(TRIES):
        line = copy.copy(house)
        line._http = urllib3.PoolManager(retries=False, timeout=30, maxsize=1)
        line.call("GET", "/healthz")
        found.setdefault(who_answers(line, workers), line)
        if found.keys() == workers:
            return found
    raise AssertionError(f"connections to {sorted(found)} alone of {sorted(workers)}")


def who_answers(line: House, processes: set[int]) -> int:
    """The process that holds the other end of the line's one connection."""
    pool = line._http.connection_from_url(line.url)
    connection: Any = pool._get_conn()  # urllib3 tells nobody which socket it uses
    mine = connection.sock.getsockname()[1]
    pool._put_conn(connection)
    port = urlsplit(line.url).port
    for text in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = text.split()
        if (int(words[1][-4:], 16), int(words[2][-4:], 16)) == (port, mine):
            return _holder(f"socket:[{words[9]}]", processes)
    raise AssertionError("the connection is closed")


def _holder(socket: str, processes: set[int]) -> int:
    for pid in processes:
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{name}") == socket:
                    return pid
            except FileNotFoundError:
                continue
    raise AssertionError(f"none of {sorted(processes)} holds {socket}")
