"""The execution that the calling code belongs to: its run, step and performer.

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
current_performer: ContextVar[Callable[[Operation], Any] | None] = ContextVar(
    "durable_performer", default=None
)
#: The executing run. None outside of a run. Untyped, since ``models`` imports this.
current_run: ContextVar[object | None] = ContextVar("durable_run", default=None)
#: The name of the step whose body is executing. None outside of a body.
current_body: ContextVar[str | None] = ContextVar("durable_body", default=None)


@contextmanager
def executing(run: object) -> Iterator[None]:
    """Set the executing run inside the block."""
    token = current_run.set(run)
    try:
        yield
    finally:
        current_run.reset(token)
