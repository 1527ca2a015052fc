"""Runs, steps and events as Django models.

Read them with the ORM. They are written by the store alone: the methods of ``Run`` and
of its queryset are the public way to change them.
"""

from __future__ import annotations

from durable_jobs.models.api_keys import ApiKey
from durable_jobs.models.events import Event, IdempotencyKey
from durable_jobs.models.flow import (
    Admission,
    Gate,
    Gathered,
    Lane,
    Pause,
    Slot,
    Window,
)
from durable_jobs.models.installation import (
    Installation,
    MissingFunction,
    SweepError,
    Tally,
    Worker,
)
from durable_jobs.models.runs import Entry, Run, RunQuerySet, Subject
from durable_jobs.models.saved_views import SavedView
from durable_jobs.models.schedules import Schedule, ScheduleQuerySet
from durable_jobs.models.steps import (
    EVENT_WAITS,
    STEP_PAYLOADS,
    Attempt,
    EventOf,
    Step,
)
from durable_jobs.models.waits import Wait, WaitKind

__all__ = [
    "EVENT_WAITS",
    "STEP_PAYLOADS",
    "Admission",
    "ApiKey",
    "Attempt",
    "Entry",
    "Event",
    "EventOf",
    "Gate",
    "Gathered",
    "IdempotencyKey",
    "Installation",
    "Lane",
    "MissingFunction",
    "Pause",
    "Run",
    "RunQuerySet",
    "SavedView",
    "Schedule",
    "ScheduleQuerySet",
    "Slot",
    "Step",
    "Subject",
    "SweepError",
    "Tally",
    "Wait",
    "WaitKind",
    "Window",
    "Worker",
]
