"""What a durable function is called with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from durable_jobs.definitions.events import NewEvent, ReceivedEvent
from durable_jobs.definitions.policies import AnyWait, Completion
from durable_jobs.definitions.steps import Steps
from durable_jobs.retry import BackoffLike

if TYPE_CHECKING:
    from django.db.models import Model, Q
    from django.forms import BaseForm

    from durable_jobs.definitions.function import Function
    from durable_jobs.types import Data, Duration

T = TypeVar("T")
M = TypeVar("M", bound="Model")


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


class AsyncSteps(Protocol):
    """The types of ``Steps`` where each call is awaited; see there for the meanings."""

    def run(
        self,
        id: str,
        fn: Callable[..., Awaitable[T] | T],
        /,
        *args: Any,
        retries: int | None = None,
        backoff: BackoffLike | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        queue: str | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    def atomic(
        self,
        id: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        using: str | None = None,
        **kwargs: Any,
    ) -> Awaitable[T]: ...

    def sleep(self, id: str, duration: Duration) -> Awaitable[None]: ...

    def sleep_until(self, id: str, moment: datetime) -> Awaitable[None]: ...

    def wait_for_event(
        self,
        id: str,
        event: str,
        match: str | None = None,
        if_: str | Callable[..., Any] | None = None,
        timeout: Duration | None = None,
        since: str | None = None,
    ) -> Awaitable[ReceivedEvent | None]: ...

    def wait_for_any(
        self,
        id: str,
        waits: Mapping[str, AnyWait],
        timeout: Duration | None = None,
    ) -> Awaitable[tuple[str | None, Any]]: ...

    def wait_for_signal(
        self,
        id: str,
        name: str,
        timeout: Duration | None = None,
        on_conflict: str = "fail",
    ) -> Awaitable[Any]: ...

    def wait_for_model(
        self,
        id: str,
        instance: M,
        when: Q,
        timeout: Duration | None = None,
    ) -> Awaitable[M | None]: ...

    def wait_for_callback(
        self,
        id: str,
        submit: Callable[..., Any] | None = None,
        timeout: Duration | None = None,
        heartbeat: Duration | None = None,
    ) -> Awaitable[Any]: ...

    def wait_for_condition(
        self,
        id: str,
        check: Callable[[Any], Any],
        every: Duration | None = None,
        backoff: BackoffLike | None = None,
        initial: Any = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
    ) -> Awaitable[Any]: ...

    def approve(
        self,
        id: str,
        title: str,
        permission: str,
        form: type[BaseForm] | None = None,
        timeout: Duration | None = None,
    ) -> Awaitable[dict[str, Any] | None]: ...

    def invoke(
        self,
        id: str,
        function: Function | str,
        data: Data = None,
        timeout: Duration | None = None,
    ) -> Awaitable[Any]: ...

    def start(
        self, id: str, function: Function | str, data: Data = None
    ) -> Awaitable[str]: ...

    def send_event(
        self, id: str, events: NewEvent | Iterable[NewEvent]
    ) -> Awaitable[list[str]]: ...

    def parallel(
        self,
        id: str,
        branches: Mapping[str, Callable[[], Any]] | Iterable[Callable[[], Any]],
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        return_exceptions: bool = False,
    ) -> Awaitable[Any]: ...

    def map(
        self,
        id: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        return_exceptions: bool = False,
    ) -> Awaitable[Any]: ...

    def group(self, id: str) -> AbstractContextManager[None]: ...
