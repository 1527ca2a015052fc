"""``invoke``, ``start`` and ``send_event``: steps that make other runs start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from durable_jobs import clock, ids, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.events import CALLED
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine.frames import Frame, Plan
from durable_jobs.engine.suspend import Suspend
from durable_jobs.events import ingest, starting
from durable_jobs.events.schemas import called_with
from durable_jobs.events.starting import Start
from durable_jobs.failpoints import hit
from durable_jobs.models import WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store.runs import INVOKE, START, Parked
from durable_jobs.store.steps import Memo
from durable_jobs.store.waits import NewWait


def invoke(frame: Frame, operation: ops.Invoke) -> Plan:
    """Start a child with the wait for its end, in one transaction."""
    if frame.memo is not None:
        raise Suspend
    frame.session.begin(operation.id)
    child = _child(frame, operation.function, operation.data, INVOKE)
    now = clock.now()
    waits = [NewWait(kind=WaitKind.CHILD, name=str(child.id))]
    if operation.limit is not None:
        message = f"Run {child.id} of {child.function.id} did not end in time."
        waits.append(timeout_wait(operation.limit, "InvokeTimeout", message))
    memo = frame.memo_as(
        StepStatus.INVOKING, started_at=now, detail={"child": str(child.id)}
    )

    def effect() -> None:
        starting.start([child])
        hit("step.body", operation.id)

    hit("step.before", operation.id)
    item = Parked(memo, waits, along=effect)
    raise frame.session.park(item, at_once=frame.scope.concurrent)
    yield  # a plan is a generator, also one that calls nothing


def start(frame: Frame, operation: ops.Start) -> Plan:
    """Start a run and record its id, in one transaction."""
    frame.session.begin(operation.id)
    child = _child(frame, operation.function, operation.data, START)
    now = clock.now()

    def effect() -> Memo:
        starting.start([child])
        hit("step.body", operation.id)
        return _completed(frame, str(child.id), now)

    return _recorded(frame, effect)
    yield  # a plan is a generator, also one that calls nothing


def send_event(frame: Frame, operation: ops.SendEvent) -> Plan:
    """Send events and record their ids, in one transaction."""
    frame.session.begin(operation.id)
    now = clock.now()

    def effect() -> Memo:
        sent = ingest.send(operation.events, ingest.STEP)
        hit("step.body", operation.id)
        return _completed(frame, sent, now)

    return _recorded(frame, effect)
    yield  # a plan is a generator, also one that calls nothing


def _recorded(frame: Frame, effect: Callable[[], Memo]) -> Any:
    """Do something with the record of it, and return what every replay will see."""
    hit("step.before", frame.name)
    memo = frame.session.record_with(effect)
    hit("step.after", frame.name)
    frame.session.go_on()
    return serialization.loads(memo.output or "null")


def _completed(frame: Frame, value: Any, started: Any) -> Memo:
    return frame.memo_as(
        StepStatus.COMPLETED,
        output=frame.session.encode(value, frame.name),
        started_at=started,
        ended_at=clock.now(),
    )


def _child(frame: Frame, function: Function | str, data: Any, relation: str) -> Start:
    target = registry.get(function) if isinstance(function, str) else function
    now = clock.now()
    called_with(target, data)
    text = serialization.dumps(
        {} if data is None else data,
        what=f"the data of step {frame.name!r}",
        limit=settings.MAX_EVENT_BYTES,
        limit_setting="MAX_EVENT_BYTES",
    )
    made = Start(
        function=target,
        data=text,
        origin=starting.origin(CALLED, now),
        due_at=target.options.due(now),
        parent=frame.session.run,
        parent_step=frame.key,
        relation=relation,
        subjects=starting.subjects_of_call(target, data),
    )
    return replace(made, id=ids.new_id())


def timeout_wait(limit: timedelta, kind: str, message: str) -> NewWait:
    """Return the wait that makes a step raise an error when its time is over."""
    return NewWait(
        kind=WaitKind.TIMEOUT,
        due_at=clock.now() + limit,
        condition={"error": {"type": kind, "message": message, "raise": kind}},
    )
