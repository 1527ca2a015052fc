"""The database that holds the runs, and transactions on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db import InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model, QuerySet

from durable_jobs.conf import settings
from durable_jobs.logs import Outage

Row = TypeVar("Row", bound=Model)

#: Whether this process reaches the database.
outage = Outage("The database", "Runs wait until it is back.")


def alias() -> str:
    """Return the alias of the database that holds the runs."""
    return settings.DATABASE


def rows(model: type[Row]) -> QuerySet[Row]:
    """Return all rows of a model in the database that holds the runs."""
    return model._default_manager.using(alias())


def connection() -> BaseDatabaseWrapper:
    """Return this thread's connection to the database that holds the runs."""
    return connections[alias()]


def is_postgres() -> bool:
    """Return whether the database is PostgreSQL."""
    return connection().vendor == "postgresql"


def atomic() -> Any:
    """Return a transaction, or a savepoint inside an open transaction."""
    return transaction.atomic(using=alias())


def join_atomic() -> Any:
    """Return a transaction that joins the caller's open transaction, if there is one.

    It has no savepoint, so that calls inside your project's transactions send no extra
    statements.
    """
    return transaction.atomic(using=alias(), savepoint=False)


class AfterCommit:
    """A callback that runs after the caller's transaction has committed.

    The transaction of a test never commits, so the test kit runs the callback.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        # Django logs this name if the callback fails.
        self.__qualname__ = type(self).__qualname__
        self.done = False

    def __call__(self) -> None:
        """Call the work, only once."""
        if not self.done:
            self.done = True
            self._work()


def after_commit(work: Callable[[], object]) -> None:
    """Call ``work`` after the caller's transaction commits, or at once without one."""
    transaction.on_commit(AfterCommit(work), using=alias(), robust=True)


def insert(row: Model) -> None:
    """Insert a row without sending Django's save signals.

    An error in a receiver that your project connects to all models would undo the
    change. MySQL returns no key from a bulk insert, so there the signals are sent.
    """
    manager = type(row)._base_manager.using(alias())
    if connection().features.can_return_rows_from_bulk_insert:
        manager.bulk_create([row])
    else:
        row.save(using=alias(), force_insert=True)


class _CreatedRuns:
    """The ids of runs that the open transaction has created."""

    def __init__(self, keys: frozenset[Any]) -> None:
        self.keys = keys
        # Django logs this name if the callback fails.
        self.__qualname__ = type(self).__qualname__

    def __call__(self) -> None:
        """Do nothing after the commit."""


def record_created(keys: Iterable[Any]) -> None:
    """Record runs that other connections see only after this transaction commits."""
    if connection().in_atomic_block:
        transaction.on_commit(_CreatedRuns(frozenset(keys)), using=alias(), robust=True)


def created_here(key: Any) -> bool:
    """Return whether the open transaction of this thread has created a run.

    The transaction around a test does not count, because the test kit works inside it.
    """
    wrapper = connection()
    blocks = [
        b for b in wrapper.atomic_blocks if not getattr(b, "_from_testcase", False)
    ]
    return bool(blocks) and any(
        isinstance(work, _CreatedRuns) and key in work.keys
        for _, work, *_ in wrapper.run_on_commit
    )


def lockable() -> bool:
    """Return whether the database can lock rows and skip locked rows."""
    return connection().features.has_select_for_update_skip_locked


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error means that the database is unreachable; log the outage.

    Deadlocks, lock timeouts and full disks are no outage: the connection still works.
    """
    if not isinstance(error, OperationalError | InterfaceError) or _usable():
        return False
    outage.begin(error)
    return True


def _usable() -> bool:
    wrapper = connection()
    if wrapper.connection is None:
        return False
    if wrapper.in_atomic_block:
        return not wrapper.closed_in_transaction
    return wrapper.is_usable()
