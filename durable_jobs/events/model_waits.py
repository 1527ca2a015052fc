"""Wake the runs that wait for a model instance when the instance is saved.

A save checks for waits after its commit. A wait checks the instance after its own
commit. Most saves concern models without waits: each process caches for two seconds
which models have waits. The cache, a crash before the check, or an ``update()`` without
a signal can miss a change. The wait's own checks find such a change: the first after
five seconds, each further one after twice as long.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Model

from durable_jobs import clock, notifier
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.store import db, waits

FIRST_CHECK = timedelta(seconds=5)
MAX_PAUSE = timedelta(days=30)
CACHE_SECONDS = 2.0


class _Watched:
    """A cache of the models that runs wait for."""

    def __init__(self) -> None:
        self._labels: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._there = False
        self._lock = threading.Lock()

    def includes(self, label: str) -> bool:
        """Return whether a run may wait for a model."""
        if clock.monotonic() - self._read_at > CACHE_SECONDS:
            with self._lock:
                self._read()
        return label in self._labels

    def forget(self) -> None:
        """Query the database again at the next save."""
        self._read_at = float("-inf")

    def _read(self) -> None:
        self._read_at = clock.monotonic()
        self._there = self._there or _table_exists()
        if not self._there:
            return  # saves may happen during migrations, before the table exists
        rows = db.rows(Wait).filter(kind=WaitKind.MODEL)
        labels = rows.exclude(name="").values_list("name", flat=True)
        self._labels = frozenset(labels.distinct())


def _table_exists() -> bool:
    with db.connection().cursor() as cursor:
        tables = db.connection().introspection.table_names(cursor)
    return Wait._meta.db_table in tables


watched = _Watched()


class ModelCheck:
    """Checks for waits after the commit of a save."""

    def __init__(self, label: str, pk: str) -> None:
        self.label, self.pk = label, pk
        # The name in Django's log message if the check fails.
        self.__qualname__ = f"the check for waits for {label}"
        self.done = False

    def __call__(self) -> None:
        """Wake the runs that wait for this instance."""
        self.done = True
        failpoint("save.committed", self.label)
        rows = waits.find(WaitKind.MODEL, self.label, [self.pk])
        for wait in rows:
            recheck(wait)


def saved(sender: type[Model], instance: Model, **kwargs: Any) -> None:
    """Receive ``post_save`` of any model."""
    label = (sender._meta.concrete_model or sender)._meta.label_lower
    if label.startswith("durable_jobs.") or not watched.includes(label):
        return
    check = ModelCheck(label, str(instance.pk))
    transaction.on_commit(check, using=instance._state.db, robust=True)


def recheck(wait: Wait) -> Run | None:
    """Wake a run, which checks its instance again."""
    with db.atomic():
        runs = waits.lock_runs([wait.run_id])
        if not runs:
            return None
        waits.wake([wait.run_id])
    notifier.notify(runs[0].queue)
    return runs[0]


def check_again(wait: Wait) -> Run | None:
    """Check an instance again, and schedule the next check after twice as long."""
    now = clock.now()
    pause = min(2 * max(now - wait.created_at, FIRST_CHECK), MAX_PAUSE)
    rows = db.rows(Wait).filter(pk=wait.pk, due_at=wait.due_at)
    if not rows.update(due_at=now + pause):
        return None
    return recheck(wait)
