"""The types of ``ctx.step`` in an ``async def`` function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from durable_jobs.definitions.completion import Completion
from durable_jobs.definitions.events import NewEvent, ReceivedEvent
from durable_jobs.definitions.wait_alternatives import AnyWait
from durable_jobs.retry import BackoffLike

if TYPE_CHECKING:
    from django.db.models import Model, Q
    from django.forms import BaseForm

    from durable_jobs.definitions.function import Function
    from durable_jobs.types import Data, Duration

T = TypeVar("T")
M = TypeVar("M", bound="Model")


class AsyncSteps(Protocol):
    """The methods of ``Steps``, each with an awaitable result."""

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
