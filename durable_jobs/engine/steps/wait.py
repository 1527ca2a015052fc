"""``wait_for_event``, ``_signal``, ``_model`` and ``_any``: one plan for all of them.

What a wait needs to be recognised is in its row. Where only the function itself can
tell (a callable condition, a ``Q``), the row asks for it: the run is woken, and looks.
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
from durable_jobs.engine.effects import result_of as plain
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

Waiting = ops.WaitForEvent | ops.WaitForSignal | ops.WaitForModel | ops.WaitForAny


@dataclass(frozen=True, slots=True)
class WaitMatch:
    """What ended a wait: the alternative's name, its value, and the event's id."""

    branch: str
    value: Any
    event: str = ""


def wait(step: StepCall, operation: Waiting) -> Plan:
    """Look, park, and look again each time the run is woken."""
    state = step.state
    state.check_alive()
    named = _alternatives(operation)
    if step.memo is not None:
        found = state.recorder.write(lambda: _look_again(step, named))
        if found is None:
            raise Suspend
        return _complete(step, operation, found)
    found = state.recorder.write(lambda: _true_already(named))
    if found is not None:
        return _complete(step, operation, found)
    raise (yield from _park(step, operation, named))


def _alternatives(operation: Waiting) -> Mapping[str, AnyWait]:
    if isinstance(operation, ops.WaitForAny):
        return operation.waits
    return {"": operation.wait}


# Parking


def _park(step: StepCall, operation: Waiting, named: Mapping[str, AnyWait]) -> Plan:
    """Register what is waited for; return what to raise."""
    state = step.state
    memo = step.memo_as(StepStatus.WAITING, started_at=clock.now())
    rows = [_row(step, branch, one) for branch, one in named.items()]
    if operation.limit is not None:
        output = [None, None] if isinstance(operation, ops.WaitForAny) else None
        rows.append(
            NewWait(
                kind=WaitKind.TIMEOUT,
                due_at=clock.now() + operation.limit,
                condition={"output": output},
            )
        )
        memo.due_at = rows[-1].due_at
    item = SuspendedStep(memo, rows)
    signals = [one for one in named.values() if isinstance(one, SignalWait)]
    if signals:
        return (yield from _park_signals(step, item, signals))
    check = _check_after_commit(step, named)
    return state.recorder.suspend_step(item, at_once=step.scope.concurrent, check=check)


def _row(step: StepCall, branch: str, one: AnyWait) -> NewWait:
    if isinstance(one, SignalWait):
        return NewWait(kind=WaitKind.SIGNAL, name=one.name, branch=branch)
    if isinstance(one, ModelWait):
        return NewWait(
            kind=WaitKind.MODEL,
            name=concrete(type(one.instance))._meta.label_lower,
            match=str(one.instance.pk),
            branch=branch,
            due_at=clock.now() + model_waits.FIRST_LOOK,
        )
    return _event_row(step, branch, one)


def _event_row(step: StepCall, branch: str, one: EventWait) -> NewWait:
    condition: dict[str, Any] = {}
    match = ""
    if one.match is not None:
        match = match_key(one.match, {"data": step.state.run.data}) or ""
        condition["match"] = one.match
    if callable(one.if_):
        condition["ask"] = True
    elif one.if_ is not None:
        condition["if"] = one.if_
        if one.match is None:
            match = condition_keys.key_of(one.if_, step.state.run.data)
    return NewWait(
        kind=WaitKind.EVENT,
        name=one.event,
        match=match,
        branch=branch,
        condition=condition or None,
        # Until the look at what came before is made: who dies before it is outlived.
        due_at=clock.now() + model_waits.FIRST_LOOK if one.since else None,
    )


def _park_signals(
    step: StepCall, item: SuspendedStep, signals: list[SignalWait]
) -> Plan:
    """Register at once: whether a name is free is known by its row alone."""
    state = step.state
    for one in signals:
        if one.on_conflict == "replace":
            take = functools.partial(send_signal.replace, one.name, state.run.pk)
            state.recorder.write(take)
    try:
        return state.recorder.suspend_step(item, at_once=True)
    except IntegrityError:
        state.history.memos.pop(item.memo.key, None)
    names = ", ".join(repr(one.name) for one in signals)
    message = f"Another run waits for the signal {names} already."
    return (yield from step.fail_with("SignalTaken", message, item.memo.started_at))


# Looking


def _check_after_commit(
    step: StepCall, named: Mapping[str, AnyWait]
) -> Callable[[], None] | None:
    """Return the look that follows the commit of the waits, if one is needed.

    Events that commit later find the waits themselves; only those that came before, and
    a model that changed meanwhile, need the look.
    """
    needed = [
        one
        for one in named.values()
        if isinstance(one, ModelWait) or (isinstance(one, EventWait) and one.since)
    ]
    if not needed:
        return None
    run_id, key = step.state.run.pk, step.key

    def look() -> None:
        failpoint("find_earlier.begin", step.name)
        rows = db.rows(Wait).filter(run_id=run_id, step=key)
        for row in rows.order_by("pk"):
            one = named.get(row.branch)
            if isinstance(one, EventWait) and one.since and row.kind == WaitKind.EVENT:
                if _look_back(step, row, one):
                    return
                waits.mark_checked(row)
            elif (
                isinstance(one, ModelWait)
                and row.kind == WaitKind.MODEL
                and _fresh(one) is not None
            ):
                waits.wake([run_id])
        failpoint("find_earlier.done", step.name)

    return look


def _look_back(step: StepCall, row: Wait, one: EventWait) -> bool:
    run = step.state.run
    consumed = _consumed(step)
    if not callable(one.if_):
        return wait_matches.find_earlier_event(run, step.key, row, consumed)
    came = wait_matches.earlier_matches(run, row, consumed)
    if came:
        with db.atomic():
            waits.lock_runs([run.pk])
            wait_matches.propose(row, [event.pk for event in came])
            waits.wake([run.pk])
    return False  # the function itself decides


def _consumed(step: StepCall) -> list[str]:
    """Return the events that earlier waits of the run have taken."""
    details = (memo.detail or {} for memo in step.state.history.memos.values())
    return [str(detail["event"]) for detail in details if detail.get("event")]


def _true_already(named: Mapping[str, AnyWait]) -> WaitMatch | None:
    for branch, one in named.items():
        if isinstance(one, ModelWait):
            instance = _fresh(one)
            if instance is not None:
                return WaitMatch(branch, instance)
    return None


def _look_again(step: StepCall, named: Mapping[str, AnyWait]) -> WaitMatch | None:
    found = _true_already(named)
    if found is not None:
        return found
    asking = {
        branch: one
        for branch, one in named.items()
        if isinstance(one, EventWait) and (callable(one.if_) or one.since)
    }
    if not asking:
        return None
    rows = db.rows(Wait).filter(
        run_id=step.state.run.pk, step=step.key, kind=WaitKind.EVENT
    )
    for row in rows.order_by("pk"):
        one = asking.get(row.branch)
        found = None if one is None else _among_its_own(step, row, one)
        if found is not None:
            return found
    return None


def _among_its_own(step: StepCall, row: Wait, one: EventWait) -> WaitMatch | None:
    """Look among the events that only the function itself can tell, or has to find."""
    unlooked = row.due_at is not None
    events = wait_matches.proposed(row)
    if unlooked:  # the attempt that registered the wait has not lived to look back
        events += wait_matches.earlier_matches(step.state.run, row, _consumed(step))
    for event in events:
        if _holds(step, one, event):
            return WaitMatch(row.branch, as_output(event), event.pk)
    if unlooked:
        waits.mark_checked(row)
    if events:
        with db.atomic():
            waits.lock_runs([step.state.run.pk])
            wait_matches.dismiss(row, [event.pk for event in events])
    return None


def _holds(step: StepCall, one: EventWait, event: Event) -> bool:
    condition = compile_match_and_condition(one.match, one.if_, one.event)
    run = step.state.run
    came = wait_matches.received(event)
    if not wait_matches.meets(run, came, {"match": one.match}):
        return False
    return condition is None or wait_matches.evaluate(condition, run, came)


def _fresh(one: ModelWait) -> Any:
    rows = type(one.instance)._base_manager.using(one.instance._state.db)
    return rows.filter(pk=one.instance.pk).filter(one.when).first()


# Ending


def as_output(event: Event) -> dict[str, Any]:
    """Return an event as the step that waited for it records it."""
    return wait_matches.received(event).as_dict() | {"data": event.data, "ts": event.ts}


def _complete(step: StepCall, operation: Waiting, found: WaitMatch) -> Any:
    several = isinstance(operation, ops.WaitForAny)
    value = [found.branch, found.value] if several else found.value
    memo = step.memo_as(
        StepStatus.COMPLETED,
        output=step.state.history.encode(value, step.name, own=True),
        due_at=None,
        ended_at=clock.now(),
        detail={"event": found.event, "branch": found.branch},
    )
    recorded = step.state.recorder.record_with(lambda: memo, drop_waits=True)
    step.state.go_on()
    return answer(step, recorded)


def answer(step: StepCall, memo: StepRecord) -> Any:
    """Return events as events, and what ``wait_for_any`` found as a pair."""
    value = plain(memo)
    operation = step.operation
    if isinstance(operation, ops.WaitForAny):
        branch, inner = value or (None, None)
        # Recorded waits of code that has changed since are told by their value.
        if isinstance(operation.waits.get(branch or ""), EventWait):
            inner = _event(inner)
        return (branch, inner)
    if isinstance(operation, ops.WaitForEvent):
        return _event(value)
    return value


def _event(value: Any) -> ReceivedEvent | None:
    return None if value is None else ReceivedEvent(**value)
