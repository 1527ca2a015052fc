"""The alternatives of ``ctx.step.wait_for_any``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_jobs.definitions.names import check_event_name, check_name
from durable_jobs.definitions.triggers import compile_match_and_condition
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django.db.models import Model, Q


@dataclass(frozen=True)
class EventWait:
    """An event, as an alternative of ``wait_for_any``."""

    event: str
    match: str | None = None
    if_: str | Callable[..., Any] | None = None
    since: str | None = None

    def __post_init__(self) -> None:
        where = f"a wait for {self.event!r:.80}"
        check_event_name(self.event, allow_reserved=True)
        compile_match_and_condition(self.match, self.if_, where)
        if self.since not in (None, "run"):
            msg = f"{where}: expected since to be None or 'run', got {self.since!r}."
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class SignalWait:
    """A signal, as an alternative of ``wait_for_any``."""

    name: str
    on_conflict: str = "fail"

    def __post_init__(self) -> None:
        check_name(self.name, "a signal name")
        if self.on_conflict not in ("fail", "replace"):
            msg = (
                f"Expected on_conflict to be 'fail' or 'replace', "
                f"got {self.on_conflict!r}."
            )
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class ModelWait:
    """A model instance that meets ``when`` (a ``Q``), as an alternative."""

    instance: Model
    when: Q

    def __post_init__(self) -> None:
        from django.db.models import Model, Q

        if not isinstance(self.instance, Model) or self.instance.pk is None:
            msg = f"Expected a saved model instance, got {self.instance!r:.80}."
            raise ConfigurationError(msg)
        if not isinstance(self.when, Q):
            msg = f"Expected when to be a Q, got {self.when!r:.80}."
            raise ConfigurationError(msg)


AnyWait = EventWait | SignalWait | ModelWait
