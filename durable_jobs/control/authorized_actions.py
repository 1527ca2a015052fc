"""Actions on functions, queues and schedules, with permission checks.

The transaction of an action also writes an entry to the admin's log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Model

from durable_jobs.control import audit, pauses, schedules
from durable_jobs.control.actor import Actor
from durable_jobs.control.send import Started, check_token
from durable_jobs.definitions.function import EVERY, Function
from durable_jobs.exceptions import ActionNotAllowed
from durable_jobs.flow_control import keys
from durable_jobs.models import Event, Pause, Run, Schedule
from durable_jobs.store import db
from durable_jobs.store import schedules as rows

PAUSE_FUNCTION = "durable_jobs.pause_function"
PAUSE_QUEUE = "durable_jobs.pause_queue"
PAUSE_SCHEDULE = "durable_jobs.pause_schedule"
RUN_SCHEDULE = "durable_jobs.run_schedule"


def permission(pause: Pause) -> str:
    """Return the permission to end a pause."""
    return PAUSE_QUEUE if pause.kind == Pause.QUEUE else PAUSE_FUNCTION


# Functions and queues


def pause_function(
    actor: Actor,
    function: Function,
    *,
    key: Any = EVERY,
    skip: bool = False,
    reason: str = "",
) -> bool:
    """Pause a function, or one key of it; return whether this call did it.

    If it was paused already, its reason and ``skip`` are updated.
    """
    _require(actor, PAUSE_FUNCTION)
    with db.atomic():
        done = pauses.pause_function(function, key=key, skip=skip, reason=reason)
        kind = Pause.FUNCTION if key is EVERY else Pause.KEY
        text = "" if key is EVERY else keys.key_text(keys.normalized(key))
        pause = _pause(kind, function.id, text)
        how = "new runs are skipped" if skip else "new runs stay queued"
        audit.write(actor, pause, _text(f"Paused, {how}", reason))
    return done


def pause_queue(actor: Actor, queue: str, reason: str = "") -> bool:
    """Pause a queue; return whether this call did it."""
    _require(actor, PAUSE_QUEUE)
    with db.atomic():
        done = pauses.pause_queue(queue, reason)
        pause = _pause(Pause.QUEUE, queue)
        audit.write(actor, pause, _text("Paused", reason))
    return done


def resume(actor: Actor, pause: Pause, reason: str = "") -> None:
    """End a pause of a function, a key or a queue.

    Raise ``ActionNotAllowed`` if it has ended already.
    """
    _require(actor, permission(pause))
    with db.atomic():
        if not pauses.resume_paused(pause):
            raise ActionNotAllowed(f"The {pause} was already resumed.")
        audit.write(actor, pause, _text("Resumed", reason))


def _pause(kind: str, name: str, key: str = "") -> Pause:
    return db.rows(Pause).get(kind=kind, name=name, key=key)


# Schedules


def pause_schedule(actor: Actor, schedule: Schedule, reason: str = "") -> None:
    """Pause a schedule; raise ``ActionNotAllowed`` if it is already paused."""
    _require(actor, PAUSE_SCHEDULE, schedule)
    with db.atomic():
        if not schedules.pause(schedule, reason):
            raise ActionNotAllowed(f"The schedule {schedule} is already paused.")
        audit.write(actor, schedule, _text("Paused", reason))


def resume_schedule(actor: Actor, schedule: Schedule, reason: str = "") -> None:
    """Resume a schedule; raise ``ActionNotAllowed`` if it is not paused."""
    _require(actor, PAUSE_SCHEDULE, schedule)
    with db.atomic():
        if not schedules.resume(schedule):
            raise ActionNotAllowed(f"The schedule {schedule} is not paused.")
        audit.write(actor, schedule, _text("Resumed", reason))


@dataclass(frozen=True, slots=True)
class RunForm:
    """The token of the form, and the number of queued occurrences that it showed."""

    token: str
    queued: int


def run_schedule(
    actor: Actor, schedule: Schedule, *, form: RunForm | None = None, reason: str = ""
) -> Started | None:
    """Start a run of a schedule at once, or return None if it must wait for another.

    The same ``form`` starts only one run. Raise ``ActionNotAllowed`` if the queued
    occurrences have changed since the form was shown.
    """
    _require(actor, RUN_SCHEDULE, schedule)
    with db.atomic():
        found = db.rows(Schedule).filter(pk=schedule.pk)
        locked = rows.locked(found).get()
        known = None if form is None else _started_by(form, locked)
        if known is not None:
            return Started(known, new=False)
        run = schedules.run_now(schedule, event_id=form.token if form else None)
        what = f"Run {run.pk} started" if run else "Queued to run"
        audit.write(actor, schedule, _text(what, reason))
        if run is not None:
            audit.record(actor, run, _text("Run started from its schedule", reason))
    return None if run is None else Started(run, new=True)


def _started_by(form: RunForm, schedule: Schedule) -> Run | None:
    """Return the run that a form has started, if any; raise if the form is stale."""
    check_token(form.token)
    if db.rows(Event).filter(pk=form.token).exists():
        started = db.rows(Run).filter(event_id=form.token).first()
        if started is not None:
            return started
    if len(schedule.queued_occurrences) != form.queued:
        msg = f"The queued occurrences of {schedule} have changed. Load the page again."
        raise ActionNotAllowed(msg)
    return None


def _require(actor: Actor, wanted: str, about: Model | None = None) -> None:
    if not actor.may(wanted, about):
        raise PermissionDenied


def _text(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else f"{what}."
