"""Durable functions: frozen declarations, checked when their module is imported."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from durable_jobs.definitions.admin_action import (
    admin_model_label,
    check_admin_action,
    check_schema,
)
from durable_jobs.definitions.events import check_mapping
from durable_jobs.definitions.flow_control import (
    PRIORITY_OR_ORDERING,
    Batch,
    Concurrency,
    Debounce,
    FlowControl,
    Key,
    RateLimit,
    Singleton,
    Throttle,
    compile_flow_control,
)
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.operations import check_retries
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.runtime import runtime
from durable_jobs.definitions.start_options import StartOptions
from durable_jobs.definitions.subject import Subject
from durable_jobs.definitions.triggers import (
    CancelOn,
    Cron,
    Event,
    ModelChange,
    Timeouts,
    Trigger,
)
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.retry import Backoff, BackoffLike, as_backoff

if TYPE_CHECKING:
    from django.db.models import Model

    from durable_jobs.definitions.context import AsyncContext, Context
    from durable_jobs.models import Run
    from durable_jobs.types import Data, Duration

Body = Callable[["Context"], Any] | Callable[["AsyncContext"], Any]

#: The default of ``key``: the whole function.
EVERY: Any = type("Every", (), {"__repr__": lambda self: "EVERY"})()

MAX_TRIGGERS = 10
MAX_CANCEL_ON = 5
MAX_SUBJECTS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Function:
    """A declared durable function. Created by ``@durable.function``."""

    id: str
    body: Body = field(repr=False)
    name: str = ""
    description: str = ""
    triggers: tuple[Trigger, ...] = ()
    retries: int = 4
    backoff: Backoff = field(default_factory=Backoff.exponential)
    cancel_on: tuple[CancelOn, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    on_failure: Function | None = None
    on_cancel: Function | None = None
    on_complete: Function | None = None
    queue: str = "default"
    version: str = ""
    flow_control: FlowControl = field(default_factory=FlowControl)
    input: type[Any] | None = None
    admin_action: str = ""
    subjects: tuple[Subject, ...] = ()
    options: StartOptions = field(default_factory=StartOptions)

    @property
    def is_async(self) -> bool:
        """Whether the body is an ``async def``."""
        return iscoroutinefunction(self.body)

    @property
    def handlers(self) -> list[Function]:
        """The functions that start when a run of this function ends."""
        ends = (self.on_failure, self.on_cancel, self.on_complete)
        return [handler for handler in ends if handler is not None]

    def __call__(self, ctx: Any) -> Any:
        """Call the body directly, without the engine."""
        return self.body(ctx)

    def using(
        self,
        *,
        key: str | None = None,
        run_after: Duration | datetime | None = None,
        priority: int = 0,
    ) -> Function:
        """Return a copy of the function with options for the next start.

        ``key``: a second start with the same key and data returns the existing run.
        ``run_after``: a delay or an aware datetime. ``priority``: from -600 to 600
        seconds by which the run moves ahead of others in its queue.
        """
        if priority and self.flow_control.ordering is not None:
            msg = f"Durable function {self.id!r}: {PRIORITY_OR_ORDERING}"
            raise ConfigurationError(msg)
        return replace(self, options=StartOptions(key, run_after, priority))

    def enqueue(self, data: Data = None) -> Run:
        """Start a run inside the caller's transaction. Return the run.

        Raise ``PayloadError`` if the data cannot be stored or does not match the
        function's ``input``. Raise ``DuplicateKeyError`` if the key was used with other
        data.
        """
        check_mapping(data, f"the data of {self.id!r}")
        return runtime().enqueue(self, data)

    async def aenqueue(self, data: Data = None) -> Run:
        """Start a run from async code. See ``enqueue``."""
        check_mapping(data, f"the data of {self.id!r}")
        return await runtime().aenqueue(self, data)

    def pause(self, *, skip: bool = False, key: Any = EVERY, reason: str = "") -> bool:
        """Stop starting runs of this function. Return whether this call paused it.

        New runs stay queued, or are recorded as skipped with ``skip``. Runs that have
        started continue. ``key``: pause only runs with this value as a key of the
        function's flow control.
        """
        return runtime().pause_function(self, key=key, skip=skip, reason=reason)

    def resume(self, *, key: Any = EVERY) -> bool:
        """Start runs again, queued runs first. Return whether this call resumed it."""
        return runtime().resume_function(self, key=key)


@overload
def function(fn: Body, /) -> Function: ...


@overload
def function(
    fn: None = None,
    /,
    *,
    id: str | None = None,
    name: str | None = None,
    description: str | None = None,
    on: Trigger | Iterable[Trigger] | None = None,
    retries: int = 4,
    backoff: BackoffLike | None = None,
    concurrency: int | Concurrency | Iterable[Concurrency] | None = None,
    throttle: Throttle | None = None,
    rate_limit: RateLimit | None = None,
    debounce: Debounce | None = None,
    batch: Batch | None = None,
    priority: Key | None = None,
    singleton: Singleton | None = None,
    ordering: Key | None = None,
    idempotency: Key | None = None,
    cancel_on: CancelOn | Iterable[CancelOn] | None = None,
    timeouts: Timeouts | None = None,
    on_failure: Body | Function | None = None,
    on_cancel: Body | Function | None = None,
    on_complete: Body | Function | None = None,
    queue: str = "default",
    version: str = "",
    input: type[Any] | None = None,
    admin_action: type[Model] | str | None = None,
    subject: Subject | Iterable[Subject] | None = None,
    **unknown: Any,
) -> Callable[[Body], Function]: ...


def function(
    fn: Body | None = None,
    /,
    *,
    id: str | None = None,
    name: str | None = None,
    description: str | None = None,
    on: Trigger | Iterable[Trigger] | None = None,
    retries: int = 4,
    backoff: BackoffLike | None = None,
    concurrency: int | Concurrency | Iterable[Concurrency] | None = None,
    throttle: Throttle | None = None,
    rate_limit: RateLimit | None = None,
    debounce: Debounce | None = None,
    batch: Batch | None = None,
    priority: Key | None = None,
    singleton: Singleton | None = None,
    ordering: Key | None = None,
    idempotency: Key | None = None,
    cancel_on: CancelOn | Iterable[CancelOn] | None = None,
    timeouts: Timeouts | None = None,
    on_failure: Body | Function | None = None,
    on_cancel: Body | Function | None = None,
    on_complete: Body | Function | None = None,
    queue: str = "default",
    version: str = "",
    input: type[Any] | None = None,
    admin_action: type[Model] | str | None = None,
    subject: Subject | Iterable[Subject] | None = None,
    **unknown: Any,
) -> Any:
    """Declare a durable function. The reference describes each parameter.

    Raise ``ConfigurationError`` with the function's id if the declaration is invalid.
    """
    if fn is not None:
        return function()(fn)

    def declare(body: Body) -> Function:
        made = _declare(body, id, unknown)
        try:
            made = replace(
                made,
                name=name or _title(body),
                description=description or inspect.getdoc(body) or "",
                triggers=_compiled(_several(on, Trigger, "on", MAX_TRIGGERS)),
                retries=check_retries(retries, "retries"),
                backoff=as_backoff(backoff or Backoff.exponential()),
                cancel_on=_compiled(
                    _several(cancel_on, CancelOn, "cancel_on", MAX_CANCEL_ON)
                ),
                timeouts=_one(timeouts or Timeouts(), Timeouts, "timeouts"),
                flow_control=compile_flow_control(
                    concurrency=concurrency,
                    throttle=throttle,
                    rate_limit=rate_limit,
                    debounce=debounce,
                    batch=batch,
                    singleton=singleton,
                    priority=priority,
                    ordering=ordering,
                    idempotency=idempotency,
                ),
                queue=check_name(queue, "a queue name"),
                version=check_name(version, "a version") if version else "",
                input=check_schema(input, "input"),
                admin_action=admin_model_label(admin_action),
                subjects=_compiled(_several(subject, Subject, "subject", MAX_SUBJECTS)),
            )
            ends = {"failure": on_failure, "cancel": on_cancel, "complete": on_complete}
            _check_buffering(made)
            buffering = made.flow_control.buffering is not None
            check_admin_action(made.admin_action, made.input, buffering=buffering)
            handlers = [
                _handler(handler, made, f"on_{end}") for end, handler in ends.items()
            ]
        except ConfigurationError as error:
            msg = f"Durable function {made.id!r}: {error.message}"
            raise ConfigurationError(msg) from None
        failure, cancel, complete = handlers
        made = replace(made, on_failure=failure, on_cancel=cancel, on_complete=complete)
        registry.add(made)
        return made

    return declare


def _declare(body: Body, id: str | None, unknown: dict[str, Any]) -> Function:
    if isinstance(body, Function) or not callable(body):
        msg = f"Expected a function under @durable.function, got {body!r:.80}."
        raise ConfigurationError(msg)
    function_id = (
        check_name(id, "a function id") if id is not None else default_id(body)
    )
    for parameter in unknown:
        msg = (
            f"Durable function {function_id!r}: {parameter} is not a parameter of "
            f"@durable.function.{_suggestion(parameter)}"
        )
        raise ConfigurationError(msg)
    if len(inspect.signature(body).parameters) != 1:
        msg = f"Durable function {function_id!r}: expected one parameter, the context."
        raise ConfigurationError(msg)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        msg = (
            f"Durable function {function_id!r}: expected def or async def without "
            f"yield."
        )
        raise ConfigurationError(msg)
    return Function(id=function_id, body=body)


def default_id(body: Body) -> str:
    """Return ``<app_label>.<function name>`` for a function in an app's module."""
    module, name = body.__module__, getattr(body, "__name__", "function")
    app = apps.get_containing_app_config(module) if apps.apps_ready else None
    if app is not None:
        return f"{app.label}.{name}"
    parts = module.split(".")
    # Outside of an app, shop.durable and shop.durable.orders give the label "shop".
    label = parts[parts.index("durable") - 1] if "durable" in parts[1:] else parts[-1]
    return f"{label}.{name}"


def _check_buffering(made: Function) -> None:
    if made.flow_control.buffering is None:
        return
    if all(isinstance(trigger, Cron) for trigger in made.triggers):
        msg = (
            "Expected a trigger with events, such as durable.Event, with a debounce or "
            "a batch: calls and crons are not buffered."
        )
        raise ConfigurationError(msg)


def _suggestion(parameter: str) -> str:
    known = set(inspect.signature(function).parameters) - {"fn", "unknown"}
    close = difflib.get_close_matches(parameter, sorted(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _title(body: Body) -> str:
    return str(getattr(body, "__name__", "function")).replace("_", " ").capitalize()


def _several(value: Any, kind: Any, what: str, most: int) -> tuple[Any, ...]:
    if value is None:
        return ()
    items = (value,) if isinstance(value, kind) else value
    if not isinstance(items, Iterable) or isinstance(items, str):
        items = (items,)
    found = tuple(_one(item, kind, what) for item in items)
    if len(found) > most:
        msg = f"Expected at most {most} in {what}, got {len(found)}."
        raise ConfigurationError(msg)
    return found


def _compiled(found: tuple[Any, ...]) -> tuple[Any, ...]:
    """Compile the expressions now, so that an error names the function."""
    for one in found:
        if isinstance(one, Event | CancelOn):
            _ = one.condition
        elif isinstance(one, Subject):
            _ = one.expression
    return found


def _one(value: Any, kind: Any, what: str) -> Any:
    if isinstance(value, kind):
        return value
    names = " or ".join(k.__name__ for k in getattr(kind, "__args__", (kind,)))
    msg = f"Expected {names} in {what}, got {value!r:.80}."
    raise ConfigurationError(msg)


def _handler(handler: Any, made: Function, end: str) -> Function | None:
    if handler is None or isinstance(handler, Function):
        return handler
    declared = _declare(handler, f"{made.id}:{end}", {})
    declared = replace(
        declared,
        name=_title(handler),
        description=inspect.getdoc(handler) or "",
        retries=made.retries,
        backoff=made.backoff,
        queue=made.queue,
        version=made.version,
    )
    registry.add(declared)
    return declared


__all__ = [
    "CancelOn",
    "Cron",
    "Event",
    "Function",
    "ModelChange",
    "StartOptions",
    "Timeouts",
    "Webhook",
    "function",
]
