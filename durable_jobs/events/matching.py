"""Offering events to what waits for them, after they have committed.

A wait commits and then needs no look: the router looks for waits after the event's
commit, so of two that commit at the same moment, the router sees the wait. (Looking
before the commit loses wake-ups.) A crash between the commit and the look is repaired
by the tick,
for the event stays ``pending`` until its router's transaction has committed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from durable_jobs import dispatch
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import parse_duration
from durable_jobs.events import ending
from durable_jobs.events.reaching import view
from durable_jobs.events.starting import event_of
from durable_jobs.exceptions import DurableError
from durable_jobs.expressions import Expression, compile_expression
from durable_jobs.failpoints import hit
from durable_jobs.models import Event, Run, Wait, WaitKind
from durable_jobs.records import mapping_of
from durable_jobs.serialization.matching import comparable, leaf_keys
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, events, looking, waits
from durable_jobs.store.waits import Outcome

logger = logging.getLogger("durable_jobs")

BATCH = 200

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def route_pending() -> int:
    """Offer the events that nobody offered yet to the waits; return how many."""
    pending, _ = looking.look()
    return route() if pending else 0


def route() -> int:
    """Offer them, as it is known that there are some; return how many."""
    routed = 0
    while True:
        count = _route_batch()
        routed += count
        if count < BATCH:
            return routed


def _route_batch() -> int:
    """Pass those that nobody waits for in one statement, the others one by one."""
    with db.atomic():
        batch = events.pending(BATCH)
        hit("route.read")
        wanted = {
            name
            for name in {event.name for event in batch}
            if waits.exists((WaitKind.EVENT, WaitKind.CANCEL), name)
        }
        events.offered(event.pk for event in batch if event.name not in wanted)
    for event in batch:
        if event.name in wanted:
            _route_one(event)
    return len(batch)


def _route_one(event: Event) -> None:
    hit("route.event", event.name)
    # Each in its own transaction, for ending a run locks its parent first. Doing it
    # again after a crash finds the runs ended.
    for wait in _matching(WaitKind.CANCEL, event):
        _cancel(wait, event)
    with db.atomic():
        # Another may have offered it since it was read.
        rows = Event.objects.using(db.alias()).filter(pk=event.pk, pending=True)
        if db.lockable():
            rows = rows.select_for_update(skip_locked=True)
        if rows.values_list("pk").first() is not None:
            offer(event)
            events.offered([event.pk])
            hit("route.offered", event.name)
    hit("route.committed", event.name)


def offer(event: Event) -> None:
    """Give an event to all the waits that it matches, under their runs' locks."""
    candidates = _matching(WaitKind.EVENT, event)
    rows = waits.lock_runs({wait.run_id for wait in candidates}, whole=True)
    locked = {run.pk: run for run in rows}
    for wait in candidates:
        if wait.run_id in locked:
            _wake(wait, locked[wait.run_id], event)


def _matching(kind: WaitKind, event: Event) -> list[Wait]:
    """Return the waits whose keyed value, if they have one, is in the event."""
    keys = leaf_keys({"data": event.data})
    return waits.find(kind, event.name, None if keys is None else {"", *keys})


def _wake(wait: Wait, run: Run, event: Event) -> None:
    wanted = wait.condition or {}
    if run.event_id == event.pk:
        return  # the event that started a run is not one that it waits for
    if wanted.get("ask"):
        # Only the function itself can tell (a callable condition): it looks again.
        propose(wait, [event.pk])
        waits.wake([wait.run_id])
        dispatch.ring(run.queue)
    elif meets(run, received(event), wanted):
        _resolve(wait, event)


def _resolve(wait: Wait, event: Event) -> None:
    value: Any = received(event)
    output: Any = value.as_dict() | {"data": event.data, "ts": event.ts}
    if wait.branch:
        output = [wait.branch, output]
    outcome = Outcome(
        StepStatus.COMPLETED,
        output=output,
        detail={"event": event.pk, "branch": wait.branch},
    )
    run = waits.resolve(wait, outcome)
    if run is not None:
        dispatch.ring(run.queue)


def propose(wait: Wait, event_ids: Sequence[str]) -> None:
    """Put events before the function that waits; its run's lock is held."""
    rows = Wait.objects.using(db.alias()).filter(pk=wait.pk)
    # Read again under the lock: others may have proposed since the wait was read.
    condition = dict(rows.values_list("condition", flat=True).first() or {})
    known = condition.get("proposed", [])
    condition["proposed"] = [*known, *(id for id in event_ids if id not in known)]
    rows.update(condition=condition)


def dismiss(wait: Wait, event_ids: Sequence[str]) -> None:
    """Take back events that the function did not want; its run's lock is held."""
    rows = Wait.objects.using(db.alias()).filter(pk=wait.pk)
    condition = dict(rows.values_list("condition", flat=True).first() or {})
    known = condition.get("proposed", [])
    condition["proposed"] = [id for id in known if id not in event_ids]
    rows.update(condition=condition)


def proposed(wait: Wait) -> list[Event]:
    """Return the events that were put before the function, the earliest first."""
    chosen = (wait.condition or {}).get("proposed", [])
    rows = Event.objects.using(db.alias()).filter(pk__in=chosen)
    return sorted(rows, key=lambda event: chosen.index(event.pk))


def came_before(run: Run, wait: Wait, consumed: Sequence[str]) -> list[Event]:
    """Return the events that a wait with ``since="run"`` may take from the past."""
    found = []
    # The event that started the run may have come at the same moment.
    taken = [*consumed, *([run.event_id] if run.event_id else [])]
    for event in events.received(wait.name, run.queued_at, taken):
        keys = leaf_keys({"data": event.data})
        if not wait.match or keys is None or wait.match in keys:
            found.append(event)
    return found


def look_back(run: Run, step: str, wait: Wait, consumed: Sequence[str]) -> bool:
    """Give a wait with ``since="run"`` an event that came before it; tell whether."""
    wanted = wait.condition or {}
    for event in came_before(run, wait, consumed):
        if not meets(run, received(event), wanted):
            continue
        with db.atomic():
            _resolve(wait, event)
        return True
    return False


def meets(run: Run, event: ReceivedEvent, wanted: dict[str, Any]) -> bool:
    """Tell whether an event meets the condition of a wait, as it was stored."""
    own = event_of(run)
    path = wanted.get("match")
    if path is not None and _value(own.data, path) != _value(event.data, path):
        return False
    source = wanted.get("if")
    if source is None:
        return True
    condition = compile_expression(
        source,
        variables=("event", "async"),
        where=f"a wait of run {run.pk}",
        condition=True,
    )
    return evaluate(condition, run, event)


def evaluate(condition: Expression, run: Run, event: ReceivedEvent) -> bool:
    """Evaluate a condition over a run's event and the one that came.

    One that fails is no match; it is logged with the run.
    """
    own = event_of(run)
    try:
        return condition.test(
            {"event": view(condition, own), "async": view(condition, event)}
        )
    except DurableError as error:
        logger.warning("A condition of run %s failed: %s", run.pk, error.message)
        return False


def _value(data: Any, path: str) -> str:
    """Return what is at ``data.x.y`` as comparable text; missing is null."""
    value = data
    for part in path.split(".")[1:]:
        value = (mapping_of(value) or {}).get(part)
    return comparable(value)


def _cancel(wait: Wait, event: Event) -> None:
    run = _run(wait)
    function = registry.find(run.function) if run else None
    index = (wait.condition or {}).get("cancel_on", 0)
    if run is None or function is None or index >= len(function.cancel_on):
        return
    rule = function.cancel_on[index]
    if rule.event != event.name:
        return
    if run.event_id == event.pk or _came_before(event, run):
        return
    if rule.timeout is not None and event.ts > run.queued_at + _length(rule.timeout):
        return
    if rule.match is not None and not meets(
        run, received(event), {"match": rule.match}
    ):
        return
    if rule.condition and not evaluate(rule.condition, run, received(event)):
        return
    ending.cancel(run, f"the event {event.name} ({event.pk})")


def _came_before(event: Event, run: Run) -> bool:
    """Tell whether an event was there before a run was.

    Where a test's clock stands still, the ids tell: they are made in order.
    """
    if event.received_at != run.queued_at:
        return event.received_at < run.queued_at
    return _UUID7.fullmatch(event.pk) is not None and event.pk < str(run.pk)


def _length(value: Any) -> timedelta:
    return parse_duration(value)


def received(event: Event) -> ReceivedEvent:
    """Return a stored event as functions and conditions see it."""
    return ReceivedEvent(
        event.pk, event.name, event.data, event.ts, event.user, event.v or None
    )


def _run(wait: Wait) -> Run | None:
    return Run.objects.using(db.alias()).filter(pk=wait.run_id).first()
