"""The admin pages: read-only, except limits of flow control.

Every page is bounded, however large its table is. Lists are capped, load no payloads,
and filter by indexed columns or by static choices.
"""

from __future__ import annotations

from durable_jobs.admin.api_keys import ApiKeyAdmin
from durable_jobs.admin.events.model_admin import EventAdmin
from durable_jobs.admin.project.mixins import DurableRunsMixin
from durable_jobs.admin.queues.limits import LimitAdmin, PauseAdmin
from durable_jobs.admin.runs.model_admin import RunAdmin
from durable_jobs.admin.runs.steps import StepAdmin
from durable_jobs.admin.schedules.model_admin import ScheduleAdmin
from durable_jobs.admin.sweep_errors import SweepErrorAdmin
from durable_jobs.admin.workers import WorkerAdmin

__all__ = [
    "ApiKeyAdmin",
    "DurableRunsMixin",
    "EventAdmin",
    "LimitAdmin",
    "PauseAdmin",
    "RunAdmin",
    "ScheduleAdmin",
    "StepAdmin",
    "SweepErrorAdmin",
    "WorkerAdmin",
]
