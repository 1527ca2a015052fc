"""Exceptions that end the call of a function early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, InternalError, OperationalError

from durable_jobs.control_flow import EngineControl, is_failure, leaves


class Suspend(EngineControl):
    """The run cannot continue now. The engine calls the function again when it can.

    If you see this, a bare ``except:`` or ``except BaseException:`` in a durable
    function has caught it. Catch ``Exception`` instead, or raise it again.
    """


class BranchDiscarded(EngineControl):
    """The parallel step was decided without this branch: the branch ends here."""


class DatabaseFailed(EngineControl):
    """A write of the engine failed. The run continues from its records."""


class NewerVersionNeeded(EngineControl):
    """The run has a step or a value that only a newer version can read."""


@contextmanager
def engine_writes() -> Iterator[None]:
    """Raise ``DatabaseFailed`` for database errors of the engine in the block."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise DatabaseFailed from error


class SimulatedCrash(EngineControl):
    """The worker dies here. Tests raise it; only their executor catches it."""


def ends_attempt(error: BaseException | None) -> bool:
    """Return whether an error ends the attempt, even if the function catches it.

    It does if the worker has died, the lease is lost or the database failed. No step
    may follow, not in a ``finally`` either.
    """
    if error is None or is_failure(error):
        return False
    return any(
        not is_failure(leaf) and not issubclass(type(leaf), (Suspend, BranchDiscarded))
        for leaf in leaves(error)
    )


def is_suspension(error: BaseException) -> bool:
    """Return whether an error is a suspension, or a group that contains one.

    Other errors in the group do not count: the function is called again.
    """
    found = [leaf for leaf in leaves(error) if not is_failure(leaf)]
    return bool(found) and all(issubclass(type(leaf), Suspend) for leaf in found)
