"""What a commit costs on this server: the yardstick of everything durable."""

from __future__ import annotations

import statistics
import threading
import time

from bench.server import Database, Server
from bench.workloads import Figures

COUNT = 300


def measure(server: Server) -> Figures:
    """Insert rows one commit each, over one connection and over two at once."""
    with server.database("bench_floor") as database:
        with database.connect() as connection:
            connection.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, t text)")
        one, two = _times(database, 1), _times(database, 2)
    return {
        "commits, 1 connection": COUNT / sum(one),
        "commits, 2 connections": 2 * COUNT / (sum(two) / 2),
        "a commit": statistics.median(one) * 1000,
    }


def _times(database: Database, connections: int) -> list[float]:
    """Return the seconds that each of many bare commits took."""
    taken: list[list[float]] = [[] for _ in range(connections)]
    threads = [
        threading.Thread(target=_commit, args=(database, times)) for times in taken
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seconds for times in taken for seconds in times]


def _commit(database: Database, times: list[float]) -> None:
    with database.connect() as connection:
        connection.prepare_threshold = 0
        for _ in range(COUNT):
            began = time.monotonic()
            connection.execute("INSERT INTO bare (t) VALUES ('a step')")
            times.append(time.monotonic() - began)
