"""``wait_for_event``, ``_signal``, ``_model`` and ``_any``: one plan for all.

A wait's row holds what the router needs to match it. Only the function can evaluate a
callable condition or a ``Q``: the row requests that the run is woken to check.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError

from durable_jobs import clock
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.triggers import compile_match_and_condition
from durable_jobs.definitions.wait_alternatives import (
    AnyWait,
    EventWait,
    ModelWait,
    SignalWait,
)
from durable_jobs.engine.effects import Plan, StepCall
from durable_jobs.engine.effects import result_of as result_of
from durable_jobs.engine.suspend import Suspend
from durable_jobs.events import model_waits, send_signal, wait_matches
from durable_jobs.events.model_changes import concrete
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import condition_keys
from durable_jobs.models import Event, Wait, WaitKind
from durable_jobs.serialization.match_keys import match_key
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, waits
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.steps import StepRecord
from durable_jobs.store.waits import NewWait

WaitOperation = ops.WaitForEvent | ops.WaitForSignal | ops.WaitForModel | ops.WaitForAny


@dataclass(frozen=True, slots=True)
class WaitMatch:
    """What ended a wait: the branch, its value, and the event's id."""

    branch: str
    value: Any
    event: str = ""


def wait(step: StepCall, operation: WaitOperation) -> Plan:
    """Check, suspend, and check again each time the run is woken."""
    state = step.state
    state.check_alive()
    alternatives = _alternatives(operation)
    if step.step_record is not None:
        found = state.recorder.write(lambda: _check_again(step, alternatives))
        if found is None:
            raise Suspend
        return _complete(step, operation, found)
    found = state.recorder.write(lambda: _check_models(alternatives))
    if found is not None:
        return _complete(step, operation, found)
    raise (yield from _suspend(step, operation, alternatives))


def _alternatives(operation: WaitOperation) -> Mapping[str, AnyWait]:
    if isinstance(operation, ops.WaitForAny):
        return operation.waits
    return {"": operation.wait}


# Suspending


def _suspend(
    step: StepCall, operation: WaitOperation, alternatives: Mapping[str, AnyWait]
) -> Plan:
    """Register the waits; return the exception to raise."""
    state = step.state
    step_record = step.record_as(StepStatus.WAITING, started_at=clock.now())
    rows = [_row(step, branch, awaited) for branch, awaited in alternatives.items()]
    if operation.limit is not None:
        output = [None, None] if isinstance(operation, ops.WaitForAny) else None
        rows.append(
            NewWait(
                kind=WaitKind.TIMEOUT,
                due_at=clock.now() + operation.limit,
                condition={"output": output},
            )
        )
        step_record.due_at = rows[-1].due_at
    item = SuspendedStep(step_record, rows)
    signals = [
        awaited for awaited in alternatives.values() if isinstance(awaited, SignalWait)
    ]
    if signals:
        return (yield from _suspend_for_signals(step, item, signals))
    check = _check_after_commit(step, alternatives)
    return state.recorder.suspend_step(item, at_once=step.scope.concurrent, check=check)


def _row(step: StepCall, branch: str, awaited: AnyWait) -> NewWait:
    if isinstance(awaited, SignalWait):
        return NewWait(kind=WaitKind.SIGNAL, name=awaited.name, branch=branch)
    if isinstance(awaited, ModelWait):
        return NewWait(
            kind=WaitKind.MODEL,
            name=concrete(type(awaited.instance))._meta.label_lower,
            match=str(awaited.instance.pk),
            branch=branch,
            due_at=clock.now() + model_waits.FIRST_CHECK,
        )
    return _event_row(step, branch, awaited)


def _event_row(step: StepCall, branch: str, awaited: EventWait) -> NewWait:
    condition: dict[str, Any] = {}
    match = ""
    if awaited.match is not None:
        match = match_key(awaited.match, {"data": step.state.run.data}) or ""
        condition["match"] = awaited.match
    if callable(awaited.if_):
        condition["checked_by_function"] = True
    elif awaited.if_ is not None:
        condition["if"] = awaited.if_
        if awaited.match is None:
            match = condition_keys.key_of(awaited.if_, step.state.run.data)
    return NewWait(
        kind=WaitKind.EVENT,
        name=awaited.event,
        match=match,
        branch=branch,
        condition=condition or None,
        # The search for earlier events resets this. After a crash before the search,
        # the timer wakes the run to search.
        due_at=clock.now() + model_waits.FIRST_CHECK if awaited.since else None,
    )


def _suspend_for_signals(
    step: StepCall, item: SuspendedStep, signals: list[SignalWait]
) -> Plan:
    """Write the waits at once: the unique row shows whether a name is free."""
    state = step.state
    for awaited in signals:
        if awaited.on_conflict == "replace":
            displace = functools.partial(
                send_signal.replace, awaited.name, state.run.pk
            )
            state.recorder.write(displace)
    try:
        return state.recorder.suspend_step(item, at_once=True)
    except IntegrityError:
        state.history.step_records.pop(item.record.key, None)
    names = ", ".join(repr(awaited.name) for awaited in signals)
    message = f"Another run already waits for the signal {names}."
    return (yield from step.fail_with("SignalTaken", message, item.record.started_at))


# Checking


def _check_after_commit(
    step: StepCall, alternatives: Mapping[str, AnyWait]
) -> Callable[[], None] | None:
    """Return the check that follows the commit of the waits, if one is needed.

    Events that commit later find the waits. The check covers earlier events, and a
    model that changed before the commit.
    """
    needed = [
        awaited
        for awaited in alternatives.values()
        if isinstance(awaited, ModelWait)
        or (isinstance(awaited, EventWait) and awaited.since)
    ]
    if not needed:
        return None
    run_id, key = step.state.run.pk, step.key

    def check() -> None:
        failpoint("find_earlier.begin", step.name)
        rows = db.rows(Wait).filter(run_id=run_id, step=key)
        for row in rows.order_by("pk"):
            awaited = alternatives.get(row.branch)
            if (
                isinstance(awaited, EventWait)
                and awaited.since
                and row.kind == WaitKind.EVENT
            ):
                if _find_earlier_event(step, row, awaited):
                    return
                waits.mark_checked(row)
            elif (
                isinstance(awaited, ModelWait)
                and row.kind == WaitKind.MODEL
                and _matching_instance(awaited) is not None
            ):
                waits.wake([run_id])
        failpoint("find_earlier.done", step.name)

    return check


def _find_earlier_event(step: StepCall, row: Wait, awaited: EventWait) -> bool:
    run = step.state.run
    consumed = _consumed(step)
    if not callable(awaited.if_):
        return wait_matches.find_earlier_event(run, step.key, row, consumed)
    events = wait_matches.earlier_matches(run, row, consumed)
    if events:
        with db.atomic():
            waits.lock_runs([run.pk])
            wait_matches.propose(row, [event.pk for event in events])
            waits.wake([run.pk])
    return False  # the function evaluates the condition


def _consumed(step: StepCall) -> list[str]:
    """Return the events that earlier waits of the run have taken."""
    details = (
        step_record.detail or {}
        for step_record in step.state.history.step_records.values()
    )
    return [str(detail["event"]) for detail in details if detail.get("event")]


def _check_models(alternatives: Mapping[str, AnyWait]) -> WaitMatch | None:
    for branch, awaited in alternatives.items():
        if isinstance(awaited, ModelWait):
            instance = _matching_instance(awaited)
            if instance is not None:
                return WaitMatch(branch, instance)
    return None


def _check_again(
    step: StepCall, alternatives: Mapping[str, AnyWait]
) -> WaitMatch | None:
    found = _check_models(alternatives)
    if found is not None:
        return found
    to_check = {
        branch: awaited
        for branch, awaited in alternatives.items()
        if isinstance(awaited, EventWait) and (callable(awaited.if_) or awaited.since)
    }
    if not to_check:
        return None
    rows = db.rows(Wait).filter(
        run_id=step.state.run.pk, step=step.key, kind=WaitKind.EVENT
    )
    for row in rows.order_by("pk"):
        awaited = to_check.get(row.branch)
        found = None if awaited is None else _check_events(step, row, awaited)
        if found is not None:
            return found
    return None


def _check_events(step: StepCall, row: Wait, awaited: EventWait) -> WaitMatch | None:
    """Check the events of a callable condition, and earlier events not searched yet."""
    unsearched = row.due_at is not None
    events = wait_matches.proposed(row)
    if unsearched:  # the attempt that registered the wait died before its search
        events += wait_matches.earlier_matches(step.state.run, row, _consumed(step))
    for event in events:
        if _matches(step, awaited, event):
            return WaitMatch(row.branch, as_output(event), event.pk)
    if unsearched:
        waits.mark_checked(row)
    if events:
        with db.atomic():
            waits.lock_runs([step.state.run.pk])
            wait_matches.dismiss(row, [event.pk for event in events])
    return None


def _matches(step: StepCall, awaited: EventWait, event: Event) -> bool:
    condition = compile_match_and_condition(awaited.match, awaited.if_, awaited.event)
    run = step.state.run
    events = wait_matches.received(event)
    if not wait_matches.meets(run, events, {"match": awaited.match}):
        return False
    return condition is None or wait_matches.evaluate(condition, run, events)


def _matching_instance(awaited: ModelWait) -> Any:
    rows = type(awaited.instance)._base_manager.using(awaited.instance._state.db)
    return rows.filter(pk=awaited.instance.pk).filter(awaited.when).first()


# Ending


def as_output(event: Event) -> dict[str, Any]:
    """Return an event as its wait records it."""
    return wait_matches.received(event).as_dict() | {"data": event.data, "ts": event.ts}


def _complete(step: StepCall, operation: WaitOperation, found: WaitMatch) -> Any:
    several = isinstance(operation, ops.WaitForAny)
    value = [found.branch, found.value] if several else found.value
    step_record = step.record_as(
        StepStatus.COMPLETED,
        output=step.state.history.encode(value, step.name, wrapped=True),
        due_at=None,
        ended_at=clock.now(),
        detail={"event": found.event, "branch": found.branch},
    )
    recorded = step.state.recorder.record_with(lambda: step_record, drop_waits=True)
    step.state.suspend_if_always()
    return wait_result(step, recorded)


def wait_result(step: StepCall, step_record: StepRecord) -> Any:
    """Return the result of a wait: events as events, ``wait_for_any`` as a pair."""
    value = result_of(step_record)
    operation = step.operation
    if isinstance(operation, ops.WaitForAny):
        branch, inner = value or (None, None)
        # The code may have changed since: the branch may not exist any more.
        if isinstance(operation.waits.get(branch or ""), EventWait):
            inner = _event(inner)
        return (branch, inner)
    if isinstance(operation, ops.WaitForEvent):
        return _event(value)
    return value


def _event(value: Any) -> ReceivedEvent | None:
    return None if value is None else ReceivedEvent(**value)
