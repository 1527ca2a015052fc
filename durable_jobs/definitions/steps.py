"""``ctx.step``: every kind of step as a method.

In an ``async def`` function, the same methods return awaitables. Annotate its context
as ``durable.AsyncContext`` for the types.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from durable_jobs.definitions import execution
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.approvals import Approve
from durable_jobs.definitions.completion import All, Completion
from durable_jobs.definitions.events import NewEvent, ReceivedEvent
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.wait_alternatives import (
    AnyWait,
    EventWait,
    ModelWait,
    SignalWait,
)
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.retry import BackoffLike

if TYPE_CHECKING:
    from django.db.models import Model, Q
    from django.forms import BaseForm

    from durable_jobs.definitions.function import Function
    from durable_jobs.types import Data, Duration

T = TypeVar("T")
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])
M = TypeVar("M", bound="Model")


class Steps:
    """The steps of a function. Each step has an id that must not change in the code."""

    def __init__(
        self,
        perform: Callable[[ops.Operation], Any],
        scope: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._perform = perform
        self._scope = scope

    def run(
        self,
        id: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        retries: int | None = None,
        backoff: BackoffLike | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        timeout: Duration | None = None,
        at_most_once: bool = False,
        queue: str | None = None,
        **kwargs: Any,
    ) -> T:
        """Call ``fn`` at least once, record its result exactly once, and return it.

        ``retries`` and ``backoff`` default to the function's. ``retry_on``: only these
        errors are retried. ``timeout``: a body that takes longer fails with
        ``StepTimeout``. ``at_most_once``: an interrupted body is never repeated and
        raises ``StepInterrupted``. ``queue``: the Celery queue that executes the step.

        Raise ``StepFailed`` when the retries are used up.
        """
        operation = ops.RunStep(
            id=id,
            fn=fn,
            args=args,
            kwargs=kwargs,
            retries=retries,
            backoff=backoff,
            retry_on=retry_on,
            timeout=timeout,
            at_most_once=at_most_once,
            queue=queue,
        )
        return self._perform(operation)

    def atomic(
        self,
        id: str,
        fn: Callable[..., T],
        /,
        *args: Any,
        using: str | None = None,
        **kwargs: Any,
    ) -> T:
        """Call ``fn`` and record its result in one transaction: exactly once.

        The transaction is on the database that holds the runs. ``using`` names another
        database for the body, which is then outside of the transaction.
        """
        operation = ops.Atomic(id=id, fn=fn, args=args, kwargs=kwargs, using=using)
        return self._perform(operation)

    def sleep(self, id: str, duration: Duration) -> None:
        """Continue after ``duration`` (up to 366 days) without occupying a worker."""
        return self._perform(ops.Sleep.lasting(id, duration))

    def sleep_until(self, id: str, moment: datetime) -> None:
        """Continue at ``moment``, an aware datetime. Continue at once if it is past."""
        return self._perform(ops.Sleep(id=id, until=moment))

    def wait_for_event(
        self,
        id: str,
        event: str,
        match: str | None = None,
        if_: str | Callable[..., Any] | None = None,
        timeout: Duration | None = None,
        since: str | None = None,
    ) -> ReceivedEvent | None:
        """Return the first matching event, or None after ``timeout``.

        ``match="data.x"`` requires the same value as in the run's own event. ``if_`` is
        a condition over ``event`` (the run's event) and ``async`` (the new event). With
        ``since="run"``, events since the start of the run count too.
        """
        wait = EventWait(event, match=match, if_=if_, since=since)
        return self._perform(ops.WaitForEvent(id=id, wait=wait, timeout=timeout))

    def wait_for_any(
        self,
        id: str,
        waits: Mapping[str, AnyWait],
        timeout: Duration | None = None,
    ) -> tuple[str | None, Any]:
        """Return the name and the value of the first wait that ends.

        The other waits are discarded. Return ``(None, None)`` after ``timeout``.
        """
        return self._perform(ops.WaitForAny(id=id, waits=waits, timeout=timeout))

    def wait_for_signal(
        self,
        id: str,
        name: str,
        timeout: Duration | None = None,
        on_conflict: str = "fail",
    ) -> Any:
        """Return the signal's data, or None after ``timeout``.

        Only one run can wait for a name. A second run raises ``SignalTaken``. With
        ``on_conflict="replace"``, the second run waits instead, and the first run
        raises ``SignalReplaced``.
        """
        wait = SignalWait(name, on_conflict=on_conflict)
        return self._perform(ops.WaitForSignal(id=id, wait=wait, timeout=timeout))

    def wait_for_model(
        self,
        id: str,
        instance: M,
        when: Q,
        timeout: Duration | None = None,
    ) -> M | None:
        """Return the instance, read again, when it meets ``when``, or None."""
        wait = ModelWait(instance, when)
        return self._perform(ops.WaitForModel(id=id, wait=wait, timeout=timeout))

    def wait_for_callback(
        self,
        id: str,
        submit: Callable[..., Any] | None = None,
        timeout: Duration | None = None,
        heartbeat: Duration | None = None,
    ) -> Any:
        """Call ``submit`` with a signed callback. Return the data of the answer.

        Raise ``CallbackFailed`` if the answer is a failure. Raise ``CallbackTimeout``
        after ``timeout``, or if no heartbeat arrives for ``heartbeat``.
        """
        return self._perform(
            ops.WaitForCallback(
                id=id, submit=submit, timeout=timeout, heartbeat=heartbeat
            )
        )

    def wait_for_condition(
        self,
        id: str,
        check: Callable[[Any], Any],
        every: Duration | None = None,
        backoff: BackoffLike | None = None,
        initial: Any = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Call ``check(state)`` until it returns ``Done(value)``. Return the value.

        Any other return value is the next state. Raise ``ConditionTimeout`` when the
        attempts or the time are used up.
        """
        return self._perform(
            ops.WaitForCondition(
                id=id,
                check=check,
                every=every,
                backoff=backoff,
                initial=initial,
                max_attempts=max_attempts,
                timeout=timeout,
            )
        )

    def approve(
        self,
        id: str,
        title: str,
        permission: str,
        form: type[BaseForm] | None = None,
        timeout: Duration | None = None,
    ) -> dict[str, Any] | None:
        """Ask users with ``permission`` to approve. Return the form's cleaned data.

        The inbox of the admin lists the approval by its ``title``. Return an empty dict
        without a ``form``, and None after ``timeout``. Raise ``ApprovalRejected`` if a
        user rejects.
        """
        return self._perform(
            Approve(
                id=id, title=title, permission=permission, form=form, timeout=timeout
            )
        )

    def invoke(
        self,
        id: str,
        function: Function | str,
        data: Data = None,
        timeout: Duration | None = None,
    ) -> Any:
        """Run another function and return its result.

        If this run is cancelled, the other run is cancelled too. Raise
        ``InvokeFailed``, or ``InvokeTimeout`` after ``timeout``.
        """
        return self._perform(
            ops.Invoke(id=id, function=function, data=data, timeout=timeout)
        )

    def start(self, id: str, function: Function | str, data: Data = None) -> str:
        """Start another function. Return the id of its run without waiting."""
        return self._perform(ops.StartRun(id=id, function=function, data=data))

    def send_event(self, id: str, events: NewEvent | Iterable[NewEvent]) -> list[str]:
        """Send one event or several, exactly once. Return their ids."""
        return self._perform(ops.SendEvent.of(id, events))

    def parallel(
        self,
        id: str,
        branches: Mapping[str, Callable[[], Any]] | Iterable[Callable[[], Any]],
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Run branches concurrently. Return their results in order.

        A dict of branches gives a dict of results. A branch is called without arguments
        and may contain any step. Raise ``ParallelError`` if ``completion`` cannot be
        met.
        """
        named = isinstance(branches, Mapping)
        if isinstance(branches, Mapping):
            pairs = tuple(branches.items())
            for name, _ in pairs:
                check_name(name, "the name of a branch")
        elif isinstance(branches, Iterable):
            pairs = tuple((str(i), branch) for i, branch in enumerate(branches))
        else:
            msg = (
                f"step {id!r}: expected a dict or a list of branches, "
                f"got {branches!r:.80}."
            )
            raise ConfigurationError(msg)
        return self._perform(
            ops.Parallel(
                id=id,
                branches=pairs,
                named=named,
                max_concurrency=max_concurrency,
                completion=All() if completion is None else completion,
                return_exceptions=return_exceptions,
            )
        )

    def map(
        self,
        id: str,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        max_concurrency: int | None = None,
        completion: Completion | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Call ``fn(item)`` for each item as a branch. Return the results in order."""
        ops.check_callable(fn, f"step {id!r}")
        if not isinstance(items, Iterable):
            msg = f"step {id!r}: expected an iterable of items, got {items!r:.80}."
            raise ConfigurationError(msg)
        pairs = tuple(
            (str(i), functools.partial(fn, item)) for i, item in enumerate(items)
        )
        return self._perform(
            ops.Map(
                id=id,
                branches=pairs,
                max_concurrency=max_concurrency,
                completion=All() if completion is None else completion,
                return_exceptions=return_exceptions,
            )
        )

    def group(self, id: str) -> AbstractContextManager[None]:
        """Prefix the ids of the steps inside the block with ``id``."""
        return self._scope(check_name(id, "a group id"))

    def __getattr__(self, name: str) -> Any:
        if name in COMING:
            msg = f"ctx.step.{name} is not in this version of durable_jobs."
            raise ConfigurationError(msg)
        msg = f"ctx.step has no method {name!r}."
        raise AttributeError(msg, name=name, obj=self)


COMING = frozenset({"fetch", "ai"})


def step(fn: F) -> F:
    """Make each call of ``fn`` inside a run a step with the name of the function.

    Outside of a run, ``fn`` is called directly.
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        perform = execution.current_performer.get()
        if perform is None:
            return fn(*args, **kwargs)
        return perform(ops.RunStep(id=fn.__name__, fn=fn, args=args, kwargs=kwargs))

    if iscoroutinefunction(fn):
        markcoroutinefunction(call)
    return call  # type: ignore[return-value]  # the wrapper keeps fn's signature
