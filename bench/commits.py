"""What a commit costs on this server: the yardstick of everything durable."""

from __future__ import annotations

import threading
import time

from bench.server import Server

COUNT = 300


def measure(server: Server, connections: int, count: int = COUNT) -> list[float]:
    """Return the seconds that each of many bare commits took."""
    with server.connect() as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS bench_commit (id bigserial PRIMARY KEY, t text)"
        )
    taken: list[list[float]] = [[] for _ in range(connections)]
    threads = [
        threading.Thread(target=_commit, args=(server, times, count)) for times in taken
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seconds for times in taken for seconds in times]


def _commit(server: Server, times: list[float], count: int) -> None:
    with server.connect() as connection:
        for _ in range(count):
            began = time.monotonic()
            connection.execute("INSERT INTO bench_commit (t) VALUES ('a step')")
            times.append(time.monotonic() - began)
