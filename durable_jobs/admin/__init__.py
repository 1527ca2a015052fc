"""Plain admin pages: what there is, read-only but for the limits of flow control.

Every page is bounded, however large its table is: lists are capped and never counted
whole, load no payload, and filter by what an index or a static list answers.
"""

from __future__ import annotations

from durable_jobs.admin.api_keys import ApiKeyAdmin
from durable_jobs.admin.events import EventAdmin
from durable_jobs.admin.hosts import DurableRunsMixin
from durable_jobs.admin.limits import GateAdmin, PauseAdmin
from durable_jobs.admin.runs import RunAdmin
from durable_jobs.admin.schedules import ScheduleAdmin
from durable_jobs.admin.steps import StepAdmin
from durable_jobs.admin.sweep_errors import SweepErrorAdmin
from durable_jobs.admin.workers import WorkerAdmin

__all__ = [
    "ApiKeyAdmin",
    "DurableRunsMixin",
    "EventAdmin",
    "GateAdmin",
    "PauseAdmin",
    "RunAdmin",
    "ScheduleAdmin",
    "StepAdmin",
    "SweepErrorAdmin",
    "WorkerAdmin",
]
