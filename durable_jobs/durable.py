"""The public API of durable_jobs.

This module can be imported before Django's app registry is ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from durable_jobs.definitions import callbacks, schedules, verify
from durable_jobs.definitions import decisions as approvals
from durable_jobs.definitions.completion import All, AtLeast, Done, First, Tolerate
from durable_jobs.definitions.context import AsyncContext, Context
from durable_jobs.definitions.events import NewEvent, ReceivedEvent
from durable_jobs.definitions.explanation import Explanation
from durable_jobs.definitions.flow_control import (
    Batch,
    BatchFailures,
    Concurrency,
    Debounce,
    RateLimit,
    Singleton,
    Throttle,
)
from durable_jobs.definitions.function import Function, function
from durable_jobs.definitions.runtime import runtime
from durable_jobs.definitions.steps import step
from durable_jobs.definitions.subject import Subject
from durable_jobs.definitions.triggers import (
    CancelOn,
    Cron,
    Event,
    ModelChange,
    Timeouts,
)
from durable_jobs.definitions.wait_alternatives import EventWait, ModelWait, SignalWait
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.exceptions import (
    ActionNotAllowed,
    ApprovalRejected,
    BranchCancelled,
    CallbackClosed,
    CallbackFailed,
    CallbackTimeout,
    ConditionTimeout,
    ConfigurationError,
    DuplicateKeyError,
    DurableError,
    ExpressionError,
    FilterError,
    InvalidForm,
    InvokeFailed,
    InvokeTimeout,
    LimitExceeded,
    NestedStepError,
    NonDeterminismError,
    NonRetriableError,
    ParallelError,
    PayloadError,
    RemoteFailed,
    RetryAfterError,
    RunCancelled,
    RunFailed,
    RunNotFinished,
    SignalReplaced,
    SignalTaken,
    StepFailed,
    StepInterrupted,
    StepTimeout,
    TransactionStateError,
    UnknownFunction,
)
from durable_jobs.retry import Backoff

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from durable_jobs.models import Run, RunQuerySet


def send(
    name: str,
    data: Any = None,
    *,
    id: str | None = None,
    ts: datetime | None = None,
    user: Any = None,
    v: str | None = None,
) -> str:
    """Send an event inside the caller's transaction. Return its id.

    After the commit, the event starts functions and wakes runs that wait for it. An
    event with the same ``id`` is ignored for 24 hours. With a future ``ts``, the event
    takes effect then. Raise ``PayloadError``, ``LimitExceeded`` or
    ``ConfigurationError`` before anything is stored.
    """
    event = NewEvent(name, data, id=id, ts=ts, user=user, v=v)
    return runtime().send([event])[0]


def send_many(events: Iterable[NewEvent]) -> list[str]:
    """Send many events at once, all or none. Return their ids in order."""
    return runtime().send(list(events))


async def asend(
    name: str,
    data: Any = None,
    *,
    id: str | None = None,
    ts: datetime | None = None,
    user: Any = None,
    v: str | None = None,
) -> str:
    """Send an event from async code. See ``send``."""
    event = NewEvent(name, data, id=id, ts=ts, user=user, v=v)
    return (await runtime().asend([event]))[0]


async def asend_many(events: Iterable[NewEvent]) -> list[str]:
    """Send many events from async code. See ``send_many``."""
    return await runtime().asend(list(events))


def signal(name: str, data: Any = None) -> Run | None:
    """Wake the run that waits for this signal. Return the run, or None.

    The run receives ``data``. A signal is not stored: without a waiting run, it has no
    effect.
    """
    return runtime().signal(name, data)


def replay(
    function: Function,
    since: datetime | None = None,
    until: datetime | None = None,
    statuses: Iterable[str] | None = None,
) -> list[Run]:
    """Rerun the runs of a function that were queued in a time range.

    Return the new runs.
    """
    return runtime().replay(function, since, until, statuses)


def runs_for(instance: Model) -> RunQuerySet:
    """Return the runs that are about a model instance, newest first."""
    return runtime().runs_for(instance)


def track(queryset: QuerySet[Any]) -> Any:
    """Return the queryset with bulk writes that start ``ModelChange`` functions.

    ``durable.track(Order.objects.filter(…)).update(status="paid")``; likewise
    ``delete()``, ``bulk_create(objs)`` and ``bulk_update(objs, fields)``. The write and
    its events are one transaction.
    """
    return runtime().track(queryset)


def pause_queue(queue: str, reason: str = "") -> bool:
    """Pause a queue. Return whether this call did.

    Executing runs continue until they next suspend. Other runs stay queued.
    """
    return runtime().pause_queue(queue, reason)


def resume_queue(queue: str) -> bool:
    """Resume a paused queue. Return whether this call did."""
    return runtime().resume_queue(queue)


__all__ = [
    "ActionNotAllowed",
    "All",
    "ApprovalRejected",
    "AsyncContext",
    "AtLeast",
    "Backoff",
    "Batch",
    "BatchFailures",
    "BranchCancelled",
    "CallbackClosed",
    "CallbackFailed",
    "CallbackTimeout",
    "CancelOn",
    "Concurrency",
    "ConditionTimeout",
    "ConfigurationError",
    "Context",
    "Cron",
    "Debounce",
    "Done",
    "DuplicateKeyError",
    "DurableError",
    "Event",
    "EventWait",
    "Explanation",
    "ExpressionError",
    "FilterError",
    "First",
    "Function",
    "InvalidForm",
    "InvokeFailed",
    "InvokeTimeout",
    "LimitExceeded",
    "ModelChange",
    "ModelWait",
    "NestedStepError",
    "NewEvent",
    "NonDeterminismError",
    "NonRetriableError",
    "ParallelError",
    "PayloadError",
    "RateLimit",
    "ReceivedEvent",
    "RemoteFailed",
    "RetryAfterError",
    "RunCancelled",
    "RunFailed",
    "RunNotFinished",
    "SignalReplaced",
    "SignalTaken",
    "SignalWait",
    "Singleton",
    "StepFailed",
    "StepInterrupted",
    "StepTimeout",
    "Subject",
    "Throttle",
    "Timeouts",
    "Tolerate",
    "TransactionStateError",
    "UnknownFunction",
    "Webhook",
    "approvals",
    "asend",
    "asend_many",
    "callbacks",
    "function",
    "pause_queue",
    "replay",
    "resume_queue",
    "runs_for",
    "schedules",
    "send",
    "send_many",
    "signal",
    "step",
    "track",
    "verify",
]
