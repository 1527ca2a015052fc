"""Runs, steps and events as Django models.

Read the rows with the ORM. Only ``store`` writes them. To change a run, use the methods
of ``Run`` and of its queryset.
"""

from __future__ import annotations

from durable_jobs.models.api_keys import ApiKey
from durable_jobs.models.events import Event, IdempotencyKey
from durable_jobs.models.flow import (
    Backlog,
    BufferedEvent,
    EventWindow,
    Limit,
    Pause,
    RateLimitHit,
    Slot,
)
from durable_jobs.models.runs import AdmissionState, Run, RunQuerySet, Subject
from durable_jobs.models.saved_views import SavedView
from durable_jobs.models.schedules import Schedule, ScheduleQuerySet
from durable_jobs.models.stats import RunStats, SweepError
from durable_jobs.models.steps import (
    EVENT_WAITS,
    STEP_PAYLOADS,
    EventOf,
    FailedAttempt,
    Step,
)
from durable_jobs.models.waits import Wait, WaitKind
from durable_jobs.models.workers import Installation, MissingFunction, Worker

__all__ = [
    "EVENT_WAITS",
    "STEP_PAYLOADS",
    "AdmissionState",
    "ApiKey",
    "Backlog",
    "BufferedEvent",
    "Event",
    "EventOf",
    "EventWindow",
    "FailedAttempt",
    "IdempotencyKey",
    "Installation",
    "Limit",
    "MissingFunction",
    "Pause",
    "RateLimitHit",
    "Run",
    "RunQuerySet",
    "RunStats",
    "SavedView",
    "Schedule",
    "ScheduleQuerySet",
    "Slot",
    "Step",
    "Subject",
    "SweepError",
    "Wait",
    "WaitKind",
    "Worker",
]
