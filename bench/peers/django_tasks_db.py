"""django-tasks-db: Django's tasks in the database; a run of 5 steps is 5 tasks."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import ClassVar

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run

PEER = Peer(
    "django_tasks_db",
    "django-tasks-db (a queue: a task a step)",
    ("django-tasks-db==0.13.0", "Django>=6.0", "psycopg[binary]"),
    stated=("django-tasks-db", "Django", "psycopg"),
    oldest_python=(3, 12),
)

#: Its default is one second.
POLL = 0.02


class DjangoTasksDb(Adapter):
    """Enqueue the first task; each task enqueues the next one."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Migrate."""
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.hosts.django_tasks_db"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)

    def commands(self) -> list[list[str]]:
        """Return two workers: its own worker command."""
        admin = [sys.executable, "-m", "django", "db_worker", "--settings"]
        options = ["--interval", str(POLL), "--no-startup-delay", "--no-reload"]
        command = [*admin, "bench.hosts.django_tasks_db", *options]
        return [[*command, "--worker-id", f"w{n}"] for n in range(PROCESSES)]

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Enqueue the first task of a run."""
        from bench.hosts import django_tasks_db_tasks as tasks

        getattr(tasks, shape).enqueue(run, 0, sizes)

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Enqueue all tasks in one transaction: there is no bulk call."""
        from django.db import transaction

        with transaction.atomic():
            for number in runs:
                self.start(shape, number, sizes)


if __name__ == "__main__":
    run(partial(DjangoTasksDb))
