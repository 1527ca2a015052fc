"""django-absurd: Absurd behind Django's tasks, inside a Django project."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import ClassVar

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run

PEER = Peer(
    "django_absurd",
    "django-absurd",
    ("django-absurd==1.0.1", "psycopg[binary]"),
    stated=("django-absurd", "absurd-sdk", "Django", "psycopg"),
    oldest_python=(3, 12),
)

#: Its default is 250 ms.
POLL = 0.02
BATCH = 16


class DjangoAbsurd(Adapter):
    """Enqueue Django tasks; each worker executes one task at a time."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep", "long"})
    bulk: ClassVar[bool] = True

    def prepare(self) -> None:
        """Migrate, which creates the schema and the queue."""
        os.environ["DJANGO_SETTINGS_MODULE"] = "bench.hosts.django_absurd"
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)

    def commands(self) -> list[list[str]]:
        """Return two workers: its own worker command."""
        admin = [sys.executable, "-m", "django", "absurd_worker", "--settings"]
        options = ["--poll-interval", str(POLL), "--batch-size", str(BATCH)]
        return [[*admin, "bench.hosts.django_absurd", *options]] * PROCESSES

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Enqueue one task."""
        from bench.hosts import django_absurd_tasks as tasks

        getattr(tasks, shape).enqueue(run, sizes)

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Enqueue all tasks in one transaction: there is no bulk call."""
        from django.db import transaction

        with transaction.atomic():
            for number in runs:
                self.start(shape, number, sizes)


if __name__ == "__main__":
    run(partial(DjangoAbsurd))
