"""The context object that a function is called with."""

from __future__ import annotations

import copy
import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

from durable_jobs import clock, logs
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.operations import Operation
from durable_jobs.definitions.steps import Steps
from durable_jobs.engine import body_calls
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import StepCall
from durable_jobs.engine.scope import current_scope
from durable_jobs.engine.step_runner import StepRunner
from durable_jobs.engine.suspend import NewerVersionNeeded
from durable_jobs.lifecycle.event_windows import batch_of
from durable_jobs.lifecycle.run_event import event_of
from durable_jobs.lifecycle.schemas import typed
from durable_jobs.models import Run
from durable_jobs.serialization import UnknownTag, private_copy
from durable_jobs.statuses import StepStatus

PATCH = "patch"

logger = logging.getLogger("durable_jobs.run")


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs with the run's id. Logs nothing while the run replays recorded steps."""

    def __init__(self, state: AttemptState) -> None:
        self._state = state
        super().__init__(logger, logs.fields(state.run))

    def isEnabledFor(self, level: int) -> bool:  # the name is logging's
        in_body = body_calls.failure_count.get() is not None
        if self._state.history.replaying and not in_body:
            return False
        return super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Prefix the message with the run's id; add the run and step to the record."""
        here = logs.current_fields()
        known = here if here["run_id"] else self.extra or {}
        extra = {**known, **kwargs.get("extra", {})}
        return f"[run {extra['run_id']}] {msg}", {**kwargs, "extra": extra}


@dataclass(frozen=True, slots=True)
class PrefetchedContext:
    """Data that is read before an ``async def`` function, which cannot query."""

    events: list[ReceivedEvent]
    instance: Any

    @classmethod
    def of(cls, run: Run) -> PrefetchedContext:
        return cls(batch_of(run), instance_of(run))


def instance_of(run: Run) -> Any:
    """Return the current model instance of a run; None if it was deleted."""
    data = run.data if isinstance(run.data, dict) else {}
    if "model" not in data or "pk" not in data:
        return None
    try:
        model = apps.get_model(data["model"])
        return model._base_manager.filter(pk=data["pk"]).first()
    except (AttributeError, LookupError, TypeError, ValueError, ValidationError):
        return None  # your own "model" and "pk" keys, with another meaning


class RunContext:
    """The implementation of ``durable.Context``."""

    def __init__(
        self,
        state: AttemptState,
        runner: StepRunner,
        prefetched: PrefetchedContext | None = None,
    ) -> None:
        self._state = state
        self.runner = runner
        self._event: ReceivedEvent | None = None
        self._run: Run | None = None
        self._prefetched = prefetched
        self._events: list[ReceivedEvent] | None = None
        self.step = Steps(runner, runner.group)
        self.logger = RunLogger(state)

    @property
    def event(self) -> ReceivedEvent:
        """The event that started the run."""
        if self._event is None:
            self._event = self._typed(event_of(self._state.run).with_private_data())
        return self._event

    @property
    def events(self) -> list[ReceivedEvent]:
        """The batch of events that started the run, or its single event."""
        if self._events is None:
            prefetched = self._prefetched
            found = self._buffered_events() if prefetched is None else prefetched.events
            self._events = [self._typed(one) for one in found]
        return self._events or [self.event]

    def _buffered_events(self) -> list[ReceivedEvent]:
        try:
            return batch_of(self._state.run)
        except UnknownTag as unknown:
            needed = NewerVersionNeeded(f"one of its events: {unknown.message}")
            self._state.reraise_abort_error(
                needed
            )  # raises it, here and after the function
            raise

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self._state.run.pk)

    @property
    def run(self) -> Run:
        """A copy of the run as of the start of this attempt; you may change it."""
        if self._run is None:
            self._run = copy.copy(self._state.run)
            for name in ("data", "event_meta", "flow"):
                setattr(self._run, name, private_copy(getattr(self._run, name)))
        return self._run

    @property
    def attempt(self) -> int:
        """How many attempts have failed: of the current body, or of the function."""
        of_body = body_calls.failure_count.get()
        return self._state.run.attempt if of_body is None else of_body

    @property
    def instance(self) -> Any:
        """The current model instance that the run is about; None if it was deleted.

        Its change started the run, or a user started the run for it in the admin.
        """
        return (
            instance_of(self._state.run)
            if self._prefetched is None
            else self._prefetched.instance
        )

    def patched(self, id: str) -> bool:
        """Return whether the run reached this point with the code after the patch.

        The result is recorded with the next step; before that, nothing depends on it.
        """
        state = self._state
        scope = current_scope()
        key = scope.next_key(f"patch {id}")
        if state.history.replay(key, id, PATCH) is not None:
            return True
        if any(
            step_record.position > state.history.replay_position
            for step_record in state.history.unreplayed()
        ):
            return False
        step = StepCall(state, scope, Operation(id=id), key, None)
        now = clock.now()
        state.recorder.defer(
            step.new_record(PATCH, StepStatus.COMPLETED, started_at=now, ended_at=now)
        )
        return True

    def _typed(self, event: ReceivedEvent) -> ReceivedEvent:
        data = typed(self._state.function, event.name, event.data)
        return ReceivedEvent(event.id, event.name, data, event.ts, event.user, event.v)
