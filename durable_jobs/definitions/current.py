"""Which run, if any, the code that is executing belongs to.

Context variables, so that each branch thread and each asyncio task has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_jobs.definitions.operations import Operation

#: Performs an operation for the run that is executing; None outside runs.
performer: ContextVar[Callable[[Operation], Any] | None] = ContextVar(
    "durable_performer", default=None
)
#: The name of the step whose body is executing; None outside bodies.
body: ContextVar[str | None] = ContextVar("durable_body", default=None)
