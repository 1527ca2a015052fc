"""The contexts that durable functions are called with."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from durable_jobs.definitions.async_steps import AsyncSteps
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.steps import Steps


class ContextBase(Protocol):
    """What the contexts of ``def`` and ``async def`` functions share."""

    @property
    def event(self) -> ReceivedEvent:
        """The event that started the run."""

    @property
    def events(self) -> list[ReceivedEvent]:
        """All events that started the run. Several only with a batch or debounce."""

    @property
    def run_id(self) -> str:
        """The id of the run, the same in every attempt: use it in idempotency keys."""

    @property
    def attempt(self) -> int:
        """How many times the function body has failed, from 0."""

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that is silent while the run replays recorded steps."""

    @property
    def run(self) -> Any:
        """The ``Run``, as it was when this attempt started."""

    @property
    def instance(self) -> Any:
        """The model instance whose change started the run, read again, or None."""

    def patched(self, id: str) -> bool:
        """Return whether the run reached this point with the current code.

        False for a run that passed this point before the call was added.
        """


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
