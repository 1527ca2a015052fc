"""How a function is left in the middle, to be called again later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InterfaceError, InternalError, OperationalError

from durable_jobs.control_flow import EngineControl, is_failure, leaves


class Suspend(EngineControl):
    """The run cannot go on now: it is left here and called again when it can.

    If you see this, a bare ``except:`` or ``except BaseException:`` in a durable
    function has caught it. Catch ``Exception`` instead, or raise it again.
    """


class BranchDiscarded(EngineControl):
    """The other branches have decided the result: this one ends here."""


class DatabaseFailed(EngineControl):
    """The database failed in a write of the engine's own: what was recorded stands."""


@contextmanager
def own_writes() -> Iterator[None]:
    """Take a database that fails inside the block for no error of the function's."""
    try:
        yield
    except (OperationalError, InterfaceError, InternalError) as error:
        raise DatabaseFailed from error


class SimulatedCrash(EngineControl):
    """The worker died here: raised by tests, caught by no one but their executor."""


def is_over(error: BaseException | None) -> bool:
    """Tell whether an error ends the whole attempt, whatever the function makes of it.

    The worker has died, the run was taken, the database failed: no step may follow,
    not in a ``finally`` either.
    """
    if error is None or is_failure(error):
        return False
    return any(
        not is_failure(leaf) and not issubclass(type(leaf), (Suspend, BranchDiscarded))
        for leaf in leaves(error)
    )


def is_suspension(error: BaseException) -> bool:
    """Return whether an error is a suspension, or a group that has one in it.

    What else is in the group does not count: the code is left here and called again.
    """
    found = [leaf for leaf in leaves(error) if not is_failure(leaf)]
    return bool(found) and all(issubclass(type(leaf), Suspend) for leaf in found)
