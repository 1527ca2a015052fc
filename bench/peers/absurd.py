"""Absurd: tasks, steps and sleeps as stored procedures of PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from bench.adapters import Adapter, Peer, Sizes, run
from bench.marks import body, leave

PEER = Peer(
    "absurd",
    "Absurd",
    ("absurd-sdk==0.5.1", "absurdctl==0.5.1", "psycopg[binary]"),
    stated=("absurd-sdk", "psycopg"),
)

QUEUE = "bench"
#: Absurd's default is 250 ms.
POLL = 0.02
BATCH = 16


def _declare(app: Any) -> None:
    @app.register_task("steps")
    def steps(params: Any, ctx: Any) -> int:
        for index in range(params["steps"]):
            ctx.step(f"step {index}", partial(body, params["run"], index))
        return int(params["steps"])

    @app.register_task("sleep")
    def sleep(params: Any, ctx: Any) -> None:
        ctx.step("before", partial(body, params["run"], 0))
        ctx.sleep_for("sleep", params["seconds"])
        ctx.step("after", partial(body, params["run"], 1))

    @app.register_task("long")
    def long(params: Any, ctx: Any) -> None:
        for index in range(params["steps"]):
            ctx.step(f"step {index}", partial(body, params["run"], index))
        ctx.sleep_for("sleep", params["seconds"])
        ctx.step("after", partial(body, params["run"], params["steps"]))


def _declare_async(app: Any) -> None:
    @app.register_task("fan")
    async def fan(params: Any, ctx: Any) -> None:
        async def nap(step: int) -> int:
            began = time.monotonic()
            await asyncio.sleep(params["ms"] / 1000)
            leave(params["run"], step, began, time.monotonic())
            return step

        async def only(step: int) -> int:
            return body(params["run"], step)

        last = params["branches"] + 1
        await ctx.step("before", partial(only, 0))
        await asyncio.gather(
            *(ctx.step(f"branch {i}", partial(nap, i)) for i in range(1, last))
        )
        await ctx.step("after", partial(only, last))


class Absurd(Adapter):
    """Spawn tasks over one connection, for synchronous workers, which are faster.

    Fan-out needs an asynchronous worker, so both processes have one for its queue.
    """

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep", "fan", "long"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Apply the schema, and create the queues."""
        import absurd_sdk

        tool = Path(sys.executable).with_name("absurdctl")
        environment = {**os.environ, "ABSURD_DATABASE_URL": self.database}
        subprocess.run([str(tool), "init"], env=environment, check=True)
        self._app = absurd_sdk.Absurd(self.database, queue_name=QUEUE)
        self._app.create_queue()
        self._app.create_queue("fan")

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Spawn one task."""
        queue = "fan" if shape == "fan" else QUEUE
        self._app.spawn(shape, {"run": run, **sizes}, queue=queue)

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Spawn all tasks in one transaction: Absurd has no bulk call."""
        with self._app._conn.transaction():
            for number in runs:
                self.start(shape, number, sizes)

    def work(self) -> None:
        """Execute tasks one at a time, with a thread for tasks that fan out."""
        import threading

        import absurd_sdk

        threading.Thread(target=self._work_async, daemon=True).start()
        app = absurd_sdk.Absurd(self.database, queue_name=QUEUE)
        _declare(app)
        app.start_worker(batch_size=BATCH, poll_interval=POLL)

    def _work_async(self) -> None:
        import absurd_sdk

        app = absurd_sdk.AsyncAbsurd(self.database, queue_name="fan")
        _declare_async(app)
        asyncio.run(app.start_worker(batch_size=BATCH, poll_interval=POLL))


if __name__ == "__main__":
    run(partial(Absurd))
