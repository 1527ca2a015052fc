"""Decide whether an event ends a wait, and apply the result."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from durable_jobs import notifier
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import parse_duration
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import DurableError
from durable_jobs.expressions import Expression, compile_expression
from durable_jobs.lifecycle.run_event import event_of
from durable_jobs.lifecycle.trigger import expression_value
from durable_jobs.models import Event, Run, Wait, WaitKind
from durable_jobs.models.fields import payload
from durable_jobs.records import mapping_of
from durable_jobs.serialization.match_keys import comparable, leaf_keys
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, events, waits
from durable_jobs.store.connection_state import restored
from durable_jobs.store.waits import WaitOutcome

logger = logging.getLogger("durable_jobs")

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_expensive(wait: Wait) -> bool:
    """Return whether matching this wait evaluates an expression."""
    condition = wait.condition or {}
    return "if" in condition or wait.kind == WaitKind.CANCEL


def action_of(wait: Wait, run: Run, event: Event) -> Callable[[], object] | None:
    """Return the action for a wait that an event may end, or None.

    The action runs under the run's lock: the run may have been woken in the meantime.
    """
    wanted = wait.condition or {}
    if run.event_id == event.pk:
        return None  # the run does not wait for the event that started it
    if wanted.get("checked_by_function"):
        # The function evaluates its callable condition itself.
        return functools.partial(_propose_to_function, wait, run, event)
    if meets(run, received(event), wanted):
        return functools.partial(_resolve, wait, event)
    return None


def _propose_to_function(wait: Wait, run: Run, event: Event) -> None:
    if waits.timed_out([wait], events.happened_at(event)):
        return
    propose(wait, [event.pk])
    waits.wake([wait.run_id])
    notifier.notify(run.queue)


def _resolve(wait: Wait, event: Event) -> None:
    value: Any = received(event)
    output: Any = value.as_dict() | {"data": value.data, "ts": event.ts}
    if wait.branch:
        output = [wait.branch, output]
    outcome = WaitOutcome(
        StepStatus.COMPLETED,
        output=output,
        detail={"event": event.pk, "branch": wait.branch},
    )
    run = waits.resolve(wait, outcome, happened_at=events.happened_at(event))
    if run is not None:
        notifier.notify(run.queue)


def propose(wait: Wait, event_ids: Sequence[str]) -> None:
    """Add events that the function has to check; the caller holds the run's lock."""
    rows = db.rows(Wait).filter(pk=wait.pk)
    # Read again under the lock: the row may have changed.
    condition = dict(rows.values_list("condition", flat=True).first() or {})
    known = condition.get("proposed", [])
    condition["proposed"] = [*known, *(id for id in event_ids if id not in known)]
    rows.update(condition=condition)


def dismiss(wait: Wait, event_ids: Sequence[str]) -> None:
    """Remove events that the function rejected; the caller holds the run's lock."""
    rows = db.rows(Wait).filter(pk=wait.pk)
    condition = dict(rows.values_list("condition", flat=True).first() or {})
    known = condition.get("proposed", [])
    condition["proposed"] = [id for id in known if id not in event_ids]
    rows.update(condition=condition)


def proposed(wait: Wait) -> list[Event]:
    """Return the events that the function has to check, the earliest first."""
    chosen = (wait.condition or {}).get("proposed", [])
    rows = db.rows(Event).filter(pk__in=chosen)
    return sorted(rows, key=lambda event: chosen.index(event.pk))


def earlier_matches(run: Run, wait: Wait, consumed: Sequence[str]) -> list[Event]:
    """Return earlier events that a wait with ``since="run"`` may take."""
    found = []
    # The event that started the run may have the same time.
    taken = [*consumed, *([run.event_id] if run.event_id else [])]
    for event in events.received(wait.name, run.queued_at, taken):
        keys = leaf_keys({"data": _lenient_data(event)})
        if not wait.match or keys is None or wait.match in keys:
            found.append(event)
    return found


def _lenient_data(event: Event) -> Any:
    """Return the data of an earlier event; as stored if it cannot be decoded."""
    try:
        return payload(event, "data")
    except Exception as error:
        if db.is_outage(error):
            raise
        return event.data


def find_earlier_event(
    run: Run, step: str, wait: Wait, consumed: Sequence[str]
) -> bool:
    """End a wait with ``since="run"`` by an earlier event; return whether it ended."""
    wanted = wait.condition or {}
    for event in earlier_matches(run, wait, consumed):
        try:
            if not meets(run, received(event), wanted):
                continue
        except Exception as error:
            if db.is_outage(error):
                raise
            logger.warning(
                "Event %s cannot be decoded: %s", event.pk, summary_of(error)
            )
            continue
        with db.atomic():
            _resolve(wait, event)
        return True
    return False


def meets(run: Run, event: ReceivedEvent, wanted: dict[str, Any]) -> bool:
    """Return whether an event meets the stored condition of a wait."""
    run_event = event_of(run)
    path = wanted.get("match")
    if path is not None and _value(run_event.data, path) != _value(event.data, path):
        return False
    source = wanted.get("if")
    if source is None:
        return True
    return evaluate(_condition(source), run, event)


@functools.lru_cache(maxsize=256)
def _condition(source: str) -> Expression:
    """Return a compiled condition; all waits with the same condition share it."""
    return compile_expression(
        source, variables=("event", "async"), where="a wait", condition=True
    )


def evaluate(condition: Expression, run: Run, event: ReceivedEvent) -> bool:
    """Evaluate a condition over a run's event and another event.

    A condition that fails does not match; the error is logged with the run.
    """
    run_event = event_of(run)
    try:
        values = {
            "event": expression_value(condition, run_event),
            "async": expression_value(condition, event),
        }
        if condition.wants_mapping:
            return condition.test(values)
        with restored(f"The condition {condition.source}"):
            return condition.test(values)
    except DurableError as error:
        logger.warning("A condition of run %s failed: %s", run.pk, error.message)
        return False


def _value(data: Any, path: str) -> str:
    """Return the value at ``data.x.y`` as a comparable string; missing is null."""
    value = data
    for part in path.split(".")[1:]:
        value = (mapping_of(value) or {}).get(part)
    return comparable(value)


def cancels(wait: Wait, run: Run, event: Event) -> bool | None:
    """Return whether an event cancels a run, by the ``cancel_on`` rule of a wait."""
    function = registry.find(run.function)
    index = (wait.condition or {}).get("cancel_on", 0)
    if function is None or index >= len(function.cancel_on):
        return None
    rule = function.cancel_on[index]
    if rule.event != event.name:
        return None
    if run.event_id == event.pk or _is_earlier(event, run):
        return False
    if rule.timeout is not None and event.ts > run.queued_at + _length(rule.timeout):
        return False
    if rule.match is not None and not meets(
        run, received(event), {"match": rule.match}
    ):
        return False
    return not rule.condition or evaluate(rule.condition, run, received(event))


def _is_earlier(event: Event, run: Run) -> bool:
    """Return whether an event arrived before a run was queued.

    If both have the same time, as with a test clock, compare their ids.
    """
    if event.received_at != run.queued_at:
        return event.received_at < run.queued_at
    return _UUID7.fullmatch(event.pk) is not None and event.pk < str(run.pk)


def _length(value: Any) -> timedelta:
    return parse_duration(value)


def received(event: Event) -> ReceivedEvent:
    """Return a stored event as functions and conditions see it.

    Raise an error if its payload cannot be decoded.
    """
    data, user = payload(event, "data"), payload(event, "user")
    return ReceivedEvent(event.pk, event.name, data, event.ts, user, event.v or None)
