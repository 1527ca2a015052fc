"""What people and programs begin: events, signals, runs, and schedules out of turn.

Each checks the actor's permission. Events and signals are their own record, by the
event's source and the step's result; what else is done leaves an entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Model

from durable_jobs import ids
from durable_jobs.control import auditing, schedules
from durable_jobs.control.acting import Actor
from durable_jobs.definitions.events import NewEvent
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import OWN
from durable_jobs.events import ingest, signalling
from durable_jobs.exceptions import Refused
from durable_jobs.models import Run, Schedule
from durable_jobs.store import db
from durable_jobs.types import Duration


@dataclass(frozen=True, slots=True)
class Started:
    """A run, and whether this call started it."""

    run: Run
    new: bool


def send(actor: Actor, events: Sequence[NewEvent], source: str) -> list[str]:
    """Send events, all or none, and return their ids, in order."""
    _need(actor, "durable_jobs.send_event")
    for event in events:
        if not actor.may_name(event.name):
            msg = f"The key may not send events called {event.name!r:.80}."
            raise PermissionDenied(msg)
    with db.atomic():
        return ingest.send(events, source)


def signal(actor: Actor, name: str, data: Any) -> Run | None:
    """Wake the run that waits for a signal and return it; None when nobody waits."""
    _need(actor, "durable_jobs.send_signal")
    with db.atomic():
        run = signalling.signal(name, data)
        if run is not None:
            auditing.record(actor, run, f"Signal {name} sent.")
    return run


def start(
    actor: Actor,
    function: Function,
    data: Any,
    *,
    key: str | None = None,
    run_after: Duration | datetime | None = None,
    priority: int = 0,
) -> Started:
    """Start a run, or find the one that has the key; write down a new one."""
    _need(actor, "durable_jobs.start_run")
    if function.id.startswith(OWN):
        # What they are given says who acts.
        msg = f"{function.id!r} is the app's own: it is begun by what it is for."
        raise Refused(msg)
    before = ids.new_id()
    with db.atomic():
        chosen = function.using(key=key, run_after=run_after, priority=priority)
        run = chosen.enqueue(data)
        new = run.pk > before  # one that a key has found is older
        if new:
            auditing.record(actor, run, "Started.")
    return Started(run, new)


def steer(actor: Actor, verb: str, schedule: Schedule, reason: str = "") -> Run | None:
    """Pause or resume a schedule, or run it now; return the run, if there is one.

    Raises ``Refused`` when it was paused, or going on, already.
    """
    _need(actor, f"durable_jobs.{PERMISSIONS[verb]}", schedule)
    run: Run | None = None
    with db.atomic():
        if verb == "run":
            run = schedules.run_now(schedule)
        elif verb == "pause":
            _done(schedules.pause(schedule, reason), schedule, "is paused already")
        else:
            _done(schedules.resume(schedule), schedule, "is not paused")
        what = {"run": "Run now", "pause": "Paused", "resume": "Resumed"}[verb]
        what += f" as {run.pk}" if run is not None else ""
        auditing.write(actor, schedule, f"{what}: {reason}" if reason else f"{what}.")
    return run


#: The verbs on schedules, and the permission that each needs.
PERMISSIONS = {
    "pause": "pause_schedule",
    "resume": "pause_schedule",
    "run": "run_schedule",
}


def _done(done: bool, schedule: Schedule, why: str) -> None:
    if not done:
        msg = f"Schedule {schedule.pk} {why}."
        raise Refused(msg)


def _need(actor: Actor, permission: str, about: Model | None = None) -> None:
    if not actor.may(permission, about):
        raise PermissionDenied
