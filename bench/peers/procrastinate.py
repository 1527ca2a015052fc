"""Procrastinate: a queue with LISTEN and NOTIFY; a run of five steps is five jobs."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from bench.adapters import Adapter, Peer, Sizes, run
from bench.marks import body

PEER = Peer(
    "procrastinate",
    "Procrastinate (a queue: a job a step)",
    ("procrastinate==3.10.0", "psycopg[binary,pool]"),
    stated=("procrastinate", "psycopg"),
)

CONCURRENCY = 4
#: For scheduled jobs, which have no notification; the default is 5 seconds.
POLL = 0.1


def _app(connector: Any) -> Any:
    import procrastinate

    app = procrastinate.App(connector=connector)

    @app.task(name="steps", queue="bench")
    async def steps(run: int, step: int, sizes: Sizes) -> None:
        body(run, step)
        if step + 1 < sizes["steps"]:
            await steps.defer_async(run=run, step=step + 1, sizes=sizes)

    @app.task(name="sleep", queue="bench")
    async def sleep(run: int, step: int, sizes: Sizes) -> None:
        body(run, step)
        if step == 0:
            later = sleep.configure(schedule_in={"seconds": sizes["seconds"]})
            await later.defer_async(run=run, step=1, sizes=sizes)

    return app


class Procrastinate(Adapter):
    """Defer the first job; each job defers the next one."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Apply the schema."""
        from procrastinate import SyncPsycopgConnector

        connector = SyncPsycopgConnector(conninfo=self.database)
        self._app = _app(connector)
        self._app.open()
        self._app.schema_manager.apply_schema()

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Defer the first job of a run."""
        self._app.tasks[shape].defer(run=run, step=0, sizes=sizes)

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Defer the first jobs of all runs at once."""
        jobs = [{"run": number, "step": 0, "sizes": sizes} for number in runs]
        self._app.tasks[shape].batch_defer(*jobs)

    def work(self) -> None:
        """Execute jobs until stopped."""
        from procrastinate import PsycopgConnector

        connector = PsycopgConnector(conninfo=self.database, max_size=CONCURRENCY + 2)
        _app(connector).run_worker(
            queues=["bench"],
            concurrency=CONCURRENCY,
            fetch_job_polling_interval=POLL,
        )

    def close(self) -> None:
        """Close the pool."""
        self._app.close()


if __name__ == "__main__":
    run(partial(Procrastinate))
