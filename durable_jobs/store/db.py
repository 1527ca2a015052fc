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
    """Return this thread's connection to it."""
    return connections[alias()]


def is_postgres() -> bool:
    """Tell whether PostgreSQL's own statements may be used."""
    return connection().vendor == "postgresql"


def atomic() -> Any:
    """Return a transaction on it, a savepoint inside another one."""
    return transaction.atomic(using=alias())


def join_atomic() -> Any:
    """Return a transaction on it that becomes part of the caller's, if there is one.

    For what hosts call inside their own: no statement more than the work itself.
    """
    return transaction.atomic(using=alias(), savepoint=False)


class AfterCommit:
    """Something to be done once the caller's transaction has committed.

    In a test's transaction, which never does, the kit does it.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        # What Django says of one that fails.
        self.__qualname__ = type(self).__qualname__
        self.done = False

    def __call__(self) -> None:
        """Do it, once."""
        if not self.done:
            self.done = True
            self._work()


def after_commit(work: Callable[[], object]) -> None:
    """Do something when the caller's transaction commits, at once outside of one."""
    transaction.on_commit(AfterCommit(work), using=alias(), robust=True)


def insert(row: Model) -> None:
    """Insert a new row, for which Django's save signals are not sent.

    Receivers of all models of a project do not know ours, and an error in one of them
    would undo the change. MySQL gives no key back this way: there they are sent.
    """
    manager = type(row)._base_manager.using(alias())
    if connection().features.can_return_rows_from_bulk_insert:
        manager.bulk_create([row])
    else:
        row.save(using=alias(), force_insert=True)


class _Made:
    """Runs that the caller's transaction has made; kept in it until it ends."""

    def __init__(self, keys: frozenset[Any]) -> None:
        self.keys = keys
        # What Django says of one that fails.
        self.__qualname__ = type(self).__qualname__

    def __call__(self) -> None:
        """Do nothing: it has committed."""


def record_created(keys: Iterable[Any]) -> None:
    """Note runs that no worker sees before the caller's transaction commits."""
    if connection().in_atomic_block:
        transaction.on_commit(_Made(frozenset(keys)), using=alias(), robust=True)


def created_here(key: Any) -> bool:
    """Return whether the transaction that is open here has made a run.

    The transaction around a test does not count: the kit works inside it.
    """
    own = connection()
    blocks = [b for b in own.atomic_blocks if not getattr(b, "_from_testcase", False)]
    return bool(blocks) and any(
        isinstance(work, _Made) and key in work.keys
        for _, work, *_ in own.run_on_commit
    )


def lockable() -> bool:
    """Tell whether rows can be locked and locked ones skipped."""
    return connection().features.has_select_for_update_skip_locked


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error means that the database is unreachable; log the outage.

    Deadlocks, locks and full disks are no outage: the connection still works.
    """
    if not isinstance(error, OperationalError | InterfaceError) or _usable():
        return False
    outage.begin(error)
    return True


def _usable() -> bool:
    own = connection()
    if own.connection is None:
        return False
    if own.in_atomic_block:
        return not own.closed_in_transaction
    return own.is_usable()
