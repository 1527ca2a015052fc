"""``durable_jobs`` itself: two Celery workers of four threads each, and beat."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import ClassVar

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run

PEER = Peer(
    "ours",
    "durable_jobs",
    stated=("durable-jobs", "Django", "celery", "kombu", "redis", "psycopg"),
)


THREADS = 4


class Ours(Adapter):
    """Start the functions of ``bench.durable``."""

    shapes: ClassVar[frozenset[str]] = frozenset(
        {"steps", "sleep", "fan", "threads", "long", "wait", "other"}
    )
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Migrate the tables of a Django project with the functions."""
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.settings"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)

    def commands(self) -> list[list[str]]:
        """Return two workers of a process each, and beat.

        While one thread waits for the disk, another executes.
        """
        celery = [sys.executable, "-m", "celery", "-q", "-A", "bench.settings:app"]
        lean = ["env", "CELERY_SKIP_CHECKS=1"]
        pool = ["-P", "threads", "-c", str(THREADS), "-l", "ERROR"]
        names = [f"{number}@bench" for number in range(PROCESSES)]
        schedule = f"{self.directory}/schedule"
        return [
            *([*lean, *celery, "worker", "-n", name, *pool] for name in names),
            [*celery, "beat", "-l", "ERROR", "-s", schedule],
        ]

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Start a function by a direct call."""
        from bench.durable import FUNCTIONS

        FUNCTIONS[shape].enqueue({"run": run, **sizes})

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Send events in bulk, as many as one call may hold."""
        from durable_jobs import durable
        from durable_jobs.conf import settings

        events = [durable.NewEvent(f"bench/{shape}", {"run": n, **sizes}) for n in runs]
        for first in range(0, len(events), settings.MAX_EVENTS):
            durable.send_many(events[first : first + settings.MAX_EVENTS])

    def fill(self, what: str, count: int) -> None:
        """Insert rows as if runs had written them."""
        from bench.filling import FILLINGS

        FILLINGS[what](count)

    def fill_due(self, count: int) -> float:
        """Create timers that are due soon; return the time on this machine's clock."""
        from bench.filling import due

        return due(count)

    def send(self, name: str, data: dict[str, object]) -> None:
        """Send one event."""
        from durable_jobs import durable

        durable.send(name, data)


if __name__ == "__main__":
    run(partial(Ours))
