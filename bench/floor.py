"""The baseline: the cost of a bare commit on this server."""

from __future__ import annotations

import random
import statistics
import threading
import time

from bench.server import Database, Server
from bench.workloads import Figures

COUNT = 300
#: The number of pauses, and of commits in a row after each pause.
LONE, IN_A_ROW = 40, 4


def measure(server: Server) -> Figures:
    """Insert rows with one commit each, on one connection and on two in parallel."""
    with server.database("bench_floor") as database:
        with database.connect() as connection:
            connection.execute("CREATE TABLE bare (id bigserial PRIMARY KEY, t text)")
        one, two = _times(database, 1), _times(database, 2)
        alone = _after_pauses(database)
    return {
        "commits, 1 connection": COUNT / sum(one),
        "commits, 2 connections": 2 * COUNT / (sum(two) / 2),
        "a commit": statistics.median(one) * 1000,
        "a commit after a pause": statistics.median(alone) * 1000,
    }


def _times(database: Database, connections: int) -> list[float]:
    """Return the seconds of each bare commit."""
    taken: list[list[float]] = [[] for _ in range(connections)]
    threads = [
        threading.Thread(target=_commit, args=(database, times)) for times in taken
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seconds for times in taken for seconds in times]


def _after_pauses(database: Database) -> list[float]:
    """Return the seconds of commits with the timing of a single run's steps.

    A few commits follow each pause, when the caches are cold. Compare these times with
    the time between the steps of W3.
    """
    times = []
    pauses = random.Random(7)  # noqa: S311  # the same pauses as in the workload
    with database.connect() as connection:
        connection.prepare_threshold = 0
        for _ in range(LONE):
            time.sleep(0.05 + 0.2 * pauses.random())
            for _ in range(IN_A_ROW):
                began = time.monotonic()
                connection.execute("INSERT INTO bare (t) VALUES ('a step')")
                times.append(time.monotonic() - began)
    return times


def _commit(database: Database, times: list[float]) -> None:
    with database.connect() as connection:
        connection.prepare_threshold = 0
        for _ in range(COUNT):
            began = time.monotonic()
            connection.execute("INSERT INTO bare (t) VALUES ('a step')")
            times.append(time.monotonic() - began)
