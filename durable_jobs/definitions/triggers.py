"""Triggers of functions: events, crons, model changes and webhooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from durable_jobs.definitions.admin_action import check_schema
from durable_jobs.definitions.cron import CronExpression
from durable_jobs.definitions.names import check_event_pattern
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions import Expression, compile_expression

if TYPE_CHECKING:
    from django.db.models import Q

    from durable_jobs.types import Duration


CatchUp = Literal["skip", "one", "all"]
Overlap = Literal["allow", "skip", "queue"]
CATCH_UP = get_args(CatchUp)
OVERLAP = get_args(Overlap)
LONGEST_JITTER = timedelta(days=1)


@dataclass(frozen=True)
class Event:
    """Start a run for each event of this name.

    ``name`` may end in ``/*`` or ``.*``. ``if_`` is a condition over ``event``.
    ``schema`` is a pydantic model. It validates ``data`` when the event is sent, and is
    the type of ``ctx.event.data``.
    """

    name: str
    if_: str | Callable[..., Any] | None = None
    schema: type[Any] | None = None

    @functools.cached_property
    def condition(self) -> Expression | None:
        """The compiled ``if_``."""
        if self.if_ is None:
            return None
        where = f"Event({self.name!r:.80}) if_"
        return compile_expression(self.if_, where=where, condition=True)

    def __post_init__(self) -> None:
        where = f"Event({self.name!r:.80})"
        check_event_pattern(self.name, where)
        check_schema(self.schema, f"the schema of {where}")


@dataclass(frozen=True)
class Cron:
    """Start a run at each time of a cron expression.

    ``text`` has five fields or is a name such as ``@hourly``. ``tz`` is an IANA zone.
    ``jitter`` delays each start at random by up to this duration, but never past the
    next time. ``catch_up`` decides which missed times start a run: none (``"skip"``),
    the last one (``"one"``) or ``"all"``. ``overlap`` decides what happens if an
    earlier run is still live: start a run (``"allow"``), record a skipped run
    (``"skip"``), or start a run afterwards (``"queue"``).
    """

    text: str
    tz: str = "UTC"
    jitter: Duration | None = None
    catch_up: CatchUp = "skip"
    overlap: Overlap = "allow"
    expression: CronExpression = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", CronExpression(self.text, self.tz))
        object.__setattr__(self, "tz", self.expression.tz)
        check_cron_options(self.jitter, self.catch_up, self.overlap)

    @property
    def spread(self) -> timedelta | None:
        """``jitter`` as a timedelta."""
        return None if self.jitter is None else parse_duration(self.jitter)


def check_cron_options(jitter: Any, catch_up: Any, overlap: Any) -> timedelta | None:
    """Return ``jitter`` as a timedelta. Raise if an option is invalid."""
    if catch_up not in CATCH_UP:
        msg = f"Expected catch_up 'skip', 'one' or 'all', got {catch_up!r:.80}."
        raise ConfigurationError(msg)
    if overlap not in OVERLAP:
        msg = f"Expected overlap 'allow', 'skip' or 'queue', got {overlap!r:.80}."
        raise ConfigurationError(msg)
    if jitter is None:
        return None
    spread = parse_duration(jitter, what="jitter")
    if not timedelta() < spread <= LONGEST_JITTER:
        msg = f"Expected a jitter above 0 and up to a day, got {jitter!r:.80}."
        raise ConfigurationError(msg)
    return spread


@dataclass(frozen=True)
class ModelChange:
    """Start a run when an instance of a model is created, updated or deleted.

    The event is written in the same transaction as the change. ``fields``: only updates
    of these fields count. ``when``: a ``Q``, or a callable that takes the instance.
    ``include``: fields that the event contains even if they did not change.
    """

    model: str
    created: bool = False
    updated: bool = False
    deleted: bool = False
    fields: Iterable[str] | None = None
    when: Q | Callable[[Any], bool] | None = None
    include: Iterable[str] = ()

    def __post_init__(self) -> None:
        where = f"ModelChange({self.model!r:.80})"
        if isinstance(self.include, str):
            msg = f"{where}: expected include to be a list of names, got a string."
            raise ConfigurationError(msg)
        object.__setattr__(self, "include", tuple(self.include))
        if not isinstance(self.model, str) or self.model.count(".") != 1:
            msg = f"{where}: expected 'app_label.ModelName'."
            raise ConfigurationError(msg)
        if not (self.created or self.updated or self.deleted):
            msg = f"{where}: expected one of created, updated or deleted to be True."
            raise ConfigurationError(msg)
        if self.fields is not None:
            if isinstance(self.fields, str):
                msg = f"{where}: expected fields to be a list of names, got a string."
                raise ConfigurationError(msg)
            names = tuple(self.fields)
            if not names or not self.updated:
                msg = f"{where}: expected names in fields, together with updated=True."
                raise ConfigurationError(msg)
            object.__setattr__(self, "fields", names)
        if self.when is not None and not callable(self.when):
            from django.db.models import Q

            if not isinstance(self.when, Q):
                msg = (
                    f"{where}: expected when to be a Q or a callable, got "
                    f"{self.when!r:.80}."
                )
                raise ConfigurationError(msg)


Trigger = Event | Cron | ModelChange | Webhook


@dataclass(frozen=True)
class CancelOn:
    """Cancel live runs when an event arrives.

    ``match="data.x"`` requires the same value as in the run's own event. ``if_`` is a
    condition over ``event`` (the run's event) and ``async`` (the new event). With
    ``timeout``, only events within that time after the start of the run count.
    """

    event: str
    match: str | None = None
    if_: str | Callable[..., Any] | None = None
    timeout: Duration | None = None

    @functools.cached_property
    def condition(self) -> Expression | None:
        """The compiled ``if_``."""
        where = f"CancelOn({self.event!r:.80})"
        return compile_match_and_condition(self.match, self.if_, where)

    def __post_init__(self) -> None:
        where = f"CancelOn({self.event!r:.80})"
        check_event_pattern(self.event, where)
        if self.event.endswith("*"):
            msg = f"{where}: expected the name of one event, without a wildcard."
            raise ConfigurationError(msg)
        compile_match_and_condition(self.match, None, where)
        if self.timeout is not None:
            parse_duration(self.timeout, what=f"{where} timeout")


@dataclass(frozen=True)
class Timeouts:
    """Cancel a run that waits longer than ``start`` or lives longer than ``finish``."""

    start: Duration | None = None
    finish: Duration | None = None

    def __post_init__(self) -> None:
        for name in ("start", "finish"):
            value = getattr(self, name)
            if value is not None and parse_duration(value, what=name) <= timedelta():
                msg = f"Expected Timeouts {name} to be longer than zero, got {value!r}."
                raise ConfigurationError(msg)


def compile_match_and_condition(
    match: str | None, if_: str | Callable[..., Any] | None, where: str
) -> Expression | None:
    """Check ``match``, and compile ``if_`` over ``event`` and ``async``."""
    from durable_jobs.serialization.match_keys import check_match_path

    if match is not None:
        check_match_path(match, where)
    if if_ is None:
        return None
    return compile_expression(
        if_, variables=("event", "async"), where=f"{where} if_", condition=True
    )
