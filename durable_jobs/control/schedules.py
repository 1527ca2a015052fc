"""Create, find, change, pause, resume and run schedules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Model

from durable_jobs import clock
from durable_jobs.definitions.cron import CronExpression, expression
from durable_jobs.definitions.events import CALLED, check_mapping
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import check_cron_options
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.lifecycle import keyed_starts
from durable_jobs.lifecycle import start as start_runs
from durable_jobs.lifecycle.schemas import validate_start
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Run, Schedule, ScheduleQuerySet
from durable_jobs.schedules import fire as fire_schedules
from durable_jobs.schedules import occurrences
from durable_jobs.schedules.occurrences import MAX_QUEUED, Occurrence
from durable_jobs.serialization.stored import EncodedJSON, decode_lenient
from durable_jobs.store import db, schedules

CHANGEABLE = (
    "cron", "tz", "data", "owner", "name", "jitter", "catch_up", "overlap"
)  # fmt: skip


def create(function: Function | str, values: Mapping[str, Any]) -> Schedule:
    """Create a schedule in the caller's transaction, after checks."""
    now = clock.now()
    found = registry.get(function.id if isinstance(function, Function) else function)
    schedule = Schedule(function=found.id, created_at=now)
    _apply(schedule, values, now)
    with db.join_atomic():
        db.insert(schedule)
        if schedule.jitter:
            _write(
                schedule, due_at=occurrences.due_at(schedule, schedule.next_occurrence)
            )
    return _as_read(schedule)


def find(**conditions: Any) -> ScheduleQuerySet:
    """Return schedules filtered by function, owner, pause and lookups."""
    rows = Schedule.objects.using(db.alias()).order_by("pk")
    if isinstance(function := conditions.get("function"), Function):
        conditions["function"] = function.id
    if "owner" in conditions:
        conditions.update(_owner(conditions.pop("owner")))
    if "paused" in conditions:
        conditions["paused_at__isnull"] = not conditions.pop("paused")
    return rows.filter(**conditions)


def change(schedule: Schedule, changes: Mapping[str, Any]) -> None:
    """Change a schedule; an invalid value changes nothing."""
    if schedule.declared:
        msg = (
            f"The schedule {schedule.cron!r} of {schedule.function!r} is declared in "
            f"the code: change it there."
        )
        raise ConfigurationError(msg)
    if unknown := sorted(set(changes) - set(CHANGEABLE)):
        msg = f"Expected changes of {', '.join(CHANGEABLE)}, got {', '.join(unknown)}."
        raise ConfigurationError(msg)
    with db.atomic():
        row = _locked(schedule)
        _apply(row, changes, clock.now())
        names = [name for name in _COLUMNS if {*_COLUMNS[name]} & {*changes}]
        written = {name: getattr(row, name) for name in names}
        if row.paused_at is None and row.missing_at is None:
            written["due_at"] = occurrences.next_check(row, clock.now())
        _write(row, **written)
    schedule.refresh_from_db()


#: The columns that each change sets.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "cron": ("cron",),
    "tz": ("tz",),
    "next_occurrence": ("cron", "tz"),
    "data": ("data",),
    "owner_model": ("owner",),
    "owner_pk": ("owner",),
    "name": ("name",),
    "jitter": ("jitter",),
    "catch_up": ("catch_up",),
    "overlap": ("overlap",),
}


def pause(schedule: Schedule, reason: str) -> bool:
    """Pause a schedule; return whether this call did it."""
    rows = db.rows(Schedule).filter(pk=schedule.pk, paused_at__isnull=True)
    done = rows.update(paused_at=clock.now(), reason=reason, due_at=None)
    schedule.refresh_from_db()
    return bool(done)


def resume(schedule: Schedule) -> bool:
    """Resume a schedule from now on; return whether this call did it."""
    with db.atomic():
        row, now = _locked(schedule), clock.now()
        if done := row.paused_at is not None:
            if row.next_occurrence <= now:
                row.next_occurrence = expression(row.cron, row.tz).next_after(now)
            due_at = now if row.queued_occurrences else occurrences.next_check(row, now)
            _write(
                row,
                paused_at=None,
                reason="",
                next_occurrence=row.next_occurrence,
                due_at=None if row.missing_at else due_at,
            )
    schedule.refresh_from_db()
    return done


def run_now(schedule: Schedule, event_id: str | None = None) -> Run | None:
    """Start a run of a schedule by its ``overlap``; return None if it must wait.

    If another run has its idempotency key, return that run.
    """
    with db.atomic():
        row, now = _locked(schedule), clock.now()
        registry.get(row.function)
        busy = row.queued_occurrences or schedules.live_runs([row.last_run])
        occurrence = Occurrence(
            now, occurrences.STILL_RUNNING if busy and row.overlap == "skip" else ""
        )
        run = None
        if busy and row.overlap == "queue":
            _queue_occurrence(row, now)
        else:
            made = fire_schedules.new_run(
                row, occurrence, now, event_id or fire_schedules.new_event_id()
            )
            started = fire_schedules.start_runs([made], now)
            run = started[0] if started else _holder(made)
            if started:
                run.data = decode_lenient(made.data)
            if started and not occurrence.skip_reason:
                _write(row, last_fired_at=now, last_run=run.pk)
    schedule.refresh_from_db()
    return run


def _holder(start: NewRun) -> Run:
    """Return the run that has the idempotency key of a start."""
    taken = keyed_starts.claim_keys(start_runs.claims_of(start, None))
    assert taken is not None, "another run holds the key"
    return keyed_starts.holder(taken)


def _queue_occurrence(row: Schedule, now: datetime) -> None:
    if len(row.queued_occurrences) >= MAX_QUEUED:
        msg = f"Schedule {row.pk} already has {MAX_QUEUED} queued occurrences."
        raise ConfigurationError(msg)
    _write(row, queued_occurrences=[*row.queued_occurrences, now.isoformat()])


def _apply(row: Schedule, values: Mapping[str, Any], now: datetime) -> None:
    """Check values and set them on the row without saving it."""
    if {"cron", "tz"} & {*values}:
        cron = CronExpression(values.get("cron", row.cron), values.get("tz", row.tz))
        row.cron, row.tz = cron.text, cron.tz
        row.next_occurrence = cron.next_after(max(now, row.last_fired_at or now))
        row.due_at = row.next_occurrence
    options = {n: values.get(n, getattr(row, n)) for n in _OPTIONS}
    row.jitter = check_cron_options(**options)
    row.catch_up, row.overlap = options["catch_up"], options["overlap"]
    if "data" in values:
        row.data = _data(row, values["data"])
    if "owner" in values:
        for name, value in _owner(values["owner"]).items():
            setattr(row, name, value)
    if "name" in values:
        name = values["name"]
        row.name = check_name(name, "the name of a schedule") if name else ""


_OPTIONS = ("jitter", "catch_up", "overlap")


def _data(row: Schedule, data: Any) -> EncodedJSON | None:
    what = f"the data of a schedule of {row.function!r}"
    check_mapping(data, what)
    if data is None:
        return None
    function = registry.find(row.function)
    if function is not None:
        validate_start(function, CALLED, data)
    return EncodedJSON(start_runs.encode_data(data, what))


def _owner(owner: Any) -> dict[str, str]:
    if owner is None:
        return {"owner_model": "", "owner_pk": ""}
    if not isinstance(owner, Model) or owner.pk is None:
        msg = f"Expected the owner to be a saved model instance, got {owner!r:.80}."
        raise ConfigurationError(msg)
    model = owner._meta.concrete_model or type(owner)
    return {"owner_model": model._meta.label_lower, "owner_pk": str(owner.pk)}


def _locked(schedule: Schedule) -> Schedule:
    return schedules.locked(schedules.rows()).get(pk=schedule.pk)


def _write(row: Schedule, **values: Any) -> None:
    db.rows(Schedule).filter(pk=row.pk).update(**values)
    for name, value in values.items():
        setattr(row, name, value)


def _as_read(schedule: Schedule) -> Schedule:
    """Return a schedule as if it came from the database."""
    if schedule.data is not None:
        schedule.data = decode_lenient(schedule.data)
    return schedule
