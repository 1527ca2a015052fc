"""PgQueuer: a queue with LISTEN and NOTIFY; a run of five steps is five jobs."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from bench.adapters import Adapter, Peer, Sizes, run
from bench.marks import body

PEER = Peer(
    "pgqueuer",
    "PgQueuer (a queue: a job a step)",
    ("pgqueuer[asyncpg]==1.6.0", "uvloop"),
    stated=("pgqueuer", "asyncpg"),
)

BATCH = 20


def _payload(run: int, step: int, sizes: Sizes) -> bytes:
    return json.dumps({"run": run, "step": step, **sizes}).encode()


class PgQueuer(Adapter):
    """Enqueue the first job; each job enqueues the next one."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Install the tables and keep one connection."""
        from pgqueuer.queries import Queries

        self._loop = asyncio.Runner()

        async def connect() -> Any:
            import asyncpg
            from pgqueuer.db import AsyncpgDriver

            queries = Queries(AsyncpgDriver(await asyncpg.connect(self.database)))
            await queries.install()
            return queries

        self._queries = self._loop.run(connect())

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Enqueue the first job of a run."""
        self._loop.run(self._queries.enqueue(shape, _payload(run, 0, sizes)))

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Enqueue the first jobs of all runs at once."""
        payloads: list[bytes | None] = [_payload(n, 0, sizes) for n in runs]
        enqueued = self._queries.enqueue([shape] * len(runs), payloads, [0] * len(runs))
        self._loop.run(enqueued)

    def work(self) -> None:
        """Execute jobs until stopped."""
        import uvloop

        uvloop.run(self._work())

    async def _work(self) -> None:
        import asyncpg
        from pgqueuer import PgQueuer as App
        from pgqueuer.models import Job
        from pgqueuer.queries import Queries

        pool = await asyncpg.create_pool(self.database, min_size=2, max_size=6)
        app = App.from_asyncpg_pool(pool)
        queries = Queries(app.connection)

        @app.entrypoint("steps")
        async def steps(job: Job) -> None:
            assert job.payload is not None
            data = json.loads(job.payload)
            number, step = data.pop("run"), data.pop("step")
            body(number, step)
            if step + 1 < data["steps"]:
                await queries.enqueue("steps", _payload(number, step + 1, data))

        @app.entrypoint("sleep")
        async def sleep(job: Job) -> None:
            assert job.payload is not None
            data = json.loads(job.payload)
            number, step = data.pop("run"), data.pop("step")
            body(number, step)
            if step == 0:
                await queries.enqueue(
                    "sleep",
                    _payload(number, 1, data),
                    execute_after=timedelta(seconds=data["seconds"]),
                )

        await app.run(batch_size=BATCH)


if __name__ == "__main__":
    run(partial(PgQueuer))
