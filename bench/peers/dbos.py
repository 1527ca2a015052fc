"""DBOS: workflows on a queue in PostgreSQL, executed by threads of two processes."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial
from typing import Any, ClassVar

from bench.adapters import Adapter, Peer, Sizes, run
from bench.marks import body, leave

PEER = Peer("dbos", "DBOS", ("dbos==3.4.0",), stated=("dbos", "psycopg"))

QUEUE = "bench"
#: DBOS's default is one second; below this value, polling itself costs throughput.
POLL = 0.02
CONCURRENCY = 16


def _config(database: str) -> dict[str, Any]:
    return {
        "name": "bench",
        "system_database_url": database,
        "application_version": "bench",
        "log_level": "ERROR",
        "console_log_level": "ERROR",
        "run_migrations": True,
    }


def _declare() -> None:
    """Declare the workflows. Call this only in the environment that has DBOS."""
    from dbos import DBOS

    @DBOS.step(name="body")
    def step(number: int, step: int) -> int:
        return body(number, step)

    @DBOS.step(name="nap")
    async def nap(number: int, step: int, ms: int) -> int:
        began = time.monotonic()
        await asyncio.sleep(ms / 1000)
        leave(number, step, began, time.monotonic())
        return step

    @DBOS.workflow(name="steps")
    def steps(number: int, sizes: Sizes) -> int:
        for index in range(sizes["steps"]):
            step(number, index)
        return sizes["steps"]

    @DBOS.workflow(name="sleep")
    def sleep(number: int, sizes: Sizes) -> None:
        step(number, 0)
        DBOS.sleep(sizes["seconds"])
        step(number, 1)

    @DBOS.step(name="abody")
    async def astep(number: int, step: int) -> int:
        return body(number, step)

    @DBOS.workflow(name="fan")
    async def fan(number: int, sizes: Sizes) -> None:
        await astep(number, 0)
        indexes = range(1, sizes["branches"] + 1)
        await asyncio.gather(*(nap(number, i, sizes["ms"]) for i in indexes))
        await astep(number, sizes["branches"] + 1)

    @DBOS.workflow(name="long")
    def long(number: int, sizes: Sizes) -> None:
        for index in range(sizes["steps"]):
            step(number, index)
        DBOS.sleep(sizes["seconds"])
        step(number, sizes["steps"])


class Dbos(Adapter):
    """Enqueue workflows through DBOS's client."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep", "fan", "long"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Launch once, which migrates and registers the queue."""
        from dbos import DBOS, DBOSClient

        DBOS(config=_config(self.database))
        DBOS.launch()
        DBOS.register_queue(
            QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLL
        )
        DBOS.destroy(destroy_registry=True)
        self._client = DBOSClient(system_database_url=self.database)

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Enqueue a workflow."""
        self._client.enqueue(self._options(shape), run, sizes)

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Enqueue all workflows in one transaction: DBOS has no bulk call."""
        with self._client._sys_db.engine.begin() as connection:
            for number in runs:
                self._client.enqueue_in_transaction(
                    connection, self._options(shape), number, sizes
                )

    def _options(self, shape: str) -> Any:
        return {
            "queue_name": QUEUE,
            "workflow_name": shape,
            "app_version": "bench",
        }

    def work(self) -> None:
        """Launch DBOS and let its threads work."""
        from dbos import DBOS

        DBOS(config=_config(self.database))
        _declare()
        DBOS.launch()
        threading.Event().wait()


if __name__ == "__main__":
    run(partial(Dbos))
