"""The contexts that durable functions are called with."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from durable_jobs.definitions.async_steps import AsyncSteps
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.steps import Steps


class ContextBase(Protocol):
    """What every context has, whatever its function's colour."""

    @property
    def event(self) -> ReceivedEvent:
        """The event that started the run."""

    @property
    def events(self) -> list[ReceivedEvent]:
        """All the events that started the run: one, unless the function batches."""

    @property
    def run_id(self) -> str:
        """The run's id: stable over attempts, so fit for idempotency keys."""

    @property
    def attempt(self) -> int:
        """How often the function body failed before, from 0."""

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while the run replays what it did before."""

    @property
    def run(self) -> Any:
        """The ``Run``, as it was when this attempt began."""

    @property
    def instance(self) -> Any:
        """The model instance whose change started the run, fresh; None when gone."""

    def patched(self, id: str) -> bool:
        """Tell runs that got here with this code (True) from older ones (False)."""


class Context(ContextBase, Protocol):
    """The context of a ``def`` function."""

    @property
    def step(self) -> Steps:
        """The steps."""


class AsyncContext(ContextBase, Protocol):
    """The context of an ``async def`` function: the same steps, awaited."""

    @property
    def step(self) -> AsyncSteps:
        """The steps."""
