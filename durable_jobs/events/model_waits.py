"""Waking the runs that wait for a model instance, when it is saved.

A save looks for waits after its commit; a wait looks at the instance after its own.
Most saves concern models that nobody waits for: each process remembers for two seconds
which models anybody does. What that and a crash between commit and look can miss (and
what ``update()`` changes without a signal) is found by the wait's own looks: the first
after five seconds, each next one after twice as long.
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

FIRST_LOOK = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(days=30)
REMEMBERED_SECONDS = 2.0


class _Watched:
    """The models that runs wait for, as this process knows them."""

    def __init__(self) -> None:
        self._labels: frozenset[str] = frozenset()
        self._read_at = float("-inf")
        self._there = False
        self._lock = threading.Lock()

    def includes(self, label: str) -> bool:
        """Tell whether anybody may wait for a model."""
        if clock.monotonic() - self._read_at > REMEMBERED_SECONDS:
            with self._lock:
                self._read()
        return label in self._labels

    def forget(self) -> None:
        """Ask the database again at the next save."""
        self._read_at = float("-inf")

    def _read(self) -> None:
        self._read_at = clock.monotonic()
        self._there = self._there or _table_exists()
        if not self._there:
            return  # saves happen while the host migrates, before there is a table
        rows = db.rows(Wait).filter(kind=WaitKind.MODEL)
        labels = rows.exclude(name="").values_list("name", flat=True)
        self._labels = frozenset(labels.distinct())


def _table_exists() -> bool:
    with db.connection().cursor() as cursor:
        tables = db.connection().introspection.table_names(cursor)
    return Wait._meta.db_table in tables


watched = _Watched()


class ModelCheck:
    """The look for waits that follows a save's commit."""

    def __init__(self, label: str, pk: str) -> None:
        self.label, self.pk = label, pk
        # What Django calls it by, should it fail.
        self.__qualname__ = f"the look for waits for {label}"
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
    look = ModelCheck(label, str(instance.pk))
    transaction.on_commit(look, using=instance._state.db, robust=True)


def recheck(wait: Wait) -> Run | None:
    """Let a run look at its instance again."""
    with db.atomic():
        runs = waits.lock_runs([wait.run_id])
        if not runs:
            return None
        waits.wake([wait.run_id])
    notifier.notify(runs[0].queue)
    return runs[0]


def look_again(wait: Wait) -> Run | None:
    """Make the wait's own look, and put off the next one for twice as long."""
    now = clock.now()
    pause = min(2 * max(now - wait.created_at, FIRST_LOOK), LONGEST_PAUSE)
    rows = db.rows(Wait).filter(pk=wait.pk, due_at=wait.due_at)
    if not rows.update(due_at=now + pause):
        return None
    return recheck(wait)
