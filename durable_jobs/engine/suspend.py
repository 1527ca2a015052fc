"""How a function is left in the middle, to be called again later."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, InternalError, OperationalError


class Suspend(BaseException):
    """The run cannot go on now: it is left here and called again when it can.

    If you see this, a bare ``except:`` or ``except BaseException:`` in a durable
    function has caught it. Catch ``Exception`` instead, or raise it again.
    """


class BranchDropped(BaseException):
    """The other branches have decided the result: this one ends here."""


class StoreFailed(BaseException):
    """The database failed in a write of the engine's own: what was recorded stands.

    A ``BaseException``, so that a function does not take it for an error of its step.
    """


@contextmanager
def own_writes() -> Iterator[None]:
    """Take a database that fails inside the block for no error of the function's."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise StoreFailed from error


class SimulatedCrash(BaseException):
    """The worker died here: raised by tests, caught by no one but their executor."""


def is_over(error: BaseException | None) -> bool:
    """Tell whether an error ends the whole attempt, whatever the function makes of it.

    The worker has died, the run was taken, the database failed: no step may follow,
    not in a ``finally`` either.
    """
    passing = (Exception, Suspend, BranchDropped, asyncio.CancelledError, GeneratorExit)
    return error is not None and not isinstance(error, passing)


def is_suspension(error: BaseException) -> bool:
    """Tell whether an error is a suspension, also inside exception groups."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_suspension(one) for one in error.exceptions)
    return isinstance(error, Suspend)
