"""Which run, if any, the code that is executing belongs to.

Context variables, so that each branch thread and each asyncio task has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_jobs.definitions.operations import Operation

#: Performs an operation for the run that is executing; None outside runs.
performer: ContextVar[Callable[[Operation], Any] | None] = ContextVar(
    "durable_performer", default=None
)
#: The run that is executing; None outside runs. A model of ours, which is above.
run: ContextVar[object | None] = ContextVar("durable_run", default=None)
#: The name of the step whose body is executing; None outside bodies.
body: ContextVar[str | None] = ContextVar("durable_body", default=None)


@contextmanager
def executing(one: object) -> Iterator[None]:
    """Make a run the one that is executing, inside the block."""
    token = run.set(one)
    try:
        yield
    finally:
        run.reset(token)
