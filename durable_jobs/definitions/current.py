"""The run that the current code belongs to.

These are context variables, so each branch thread and each asyncio task has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_jobs.definitions.operations import Operation

#: Performs an operation of the executing run. None outside of a run.
performer: ContextVar[Callable[[Operation], Any] | None] = ContextVar(
    "durable_performer", default=None
)
#: The executing run. None outside of a run. Untyped, since ``models`` imports this.
run: ContextVar[object | None] = ContextVar("durable_run", default=None)
#: The name of the step whose body is executing. None outside of a body.
body: ContextVar[str | None] = ContextVar("durable_body", default=None)


@contextmanager
def executing(current_run: object) -> Iterator[None]:
    """Set the executing run inside the block."""
    token = run.set(current_run)
    try:
        yield
    finally:
        run.reset(token)
