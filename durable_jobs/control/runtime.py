"""The runtime behind the public API. It delegates each call to its module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import Model, QuerySet

from durable_jobs.control import approvals, pauses, schedules
from durable_jobs.control import runs as run_control
from durable_jobs.control.approvals import Approval
from durable_jobs.definitions.events import NewEvent
from durable_jobs.definitions.explanation import Explanation
from durable_jobs.definitions.flow_control import Throttle
from durable_jobs.definitions.function import Function
from durable_jobs.events import send_event, send_signal
from durable_jobs.events.tracked_querysets import Tracked
from durable_jobs.lifecycle import callbacks, start
from durable_jobs.lifecycle.run_subjects import label_of
from durable_jobs.models import Run, RunQuerySet, Schedule, ScheduleQuerySet, Subject
from durable_jobs.queries import explain as explain_query
from durable_jobs.store import db
from durable_jobs.types import Data


class EngineRuntime:
    """The implementation of the public API in this process."""

    def send(self, events: list[NewEvent]) -> list[str]:
        """Send events and return their ids."""
        return send_event.send(events)

    async def asend(self, events: list[NewEvent]) -> list[str]:
        """Send events from async code."""
        return await sync_to_async(send_event.send)(events)

    def enqueue(self, function: Function, data: Data) -> Run:
        """Start a run and return it as if loaded from the database."""
        return start.enqueue(function, data)

    async def aenqueue(self, function: Function, data: Data) -> Run:
        """Start a run from async code."""
        return await sync_to_async(start.enqueue)(function, data)

    def signal(self, name: str, data: Any) -> Run | None:
        """Wake the run that waits for a signal."""
        return send_signal.signal(name, data)

    def answer_callback(
        self, token: str, *, data: Any, error: dict[str, Any] | None
    ) -> None:
        """Answer a callback."""
        callbacks.complete(token, data=data, error=error)

    def callback_heartbeat(self, token: str) -> None:
        """Extend the heartbeat timeout of a callback."""
        callbacks.heartbeat(token)

    def cancel(self, run: Run, reason: str) -> bool:
        """Cancel a run."""
        return run_control.cancel(run, reason)

    def pause(self, run: Run, reason: str) -> bool:
        """Pause a run."""
        return run_control.pause(run, reason)

    def resume(self, run: Run) -> bool:
        """Resume a run."""
        return run_control.resume(run)

    def rerun(self, run: Run, from_step: str | None, data: Data) -> Run:
        """Start a run again."""
        return run_control.rerun(run, from_step, data)

    def redrive(self, run: Run) -> bool:
        """Continue an ended run."""
        return run_control.redrive(run)

    def redrive_all(self, runs: Iterable[Run], rate: Throttle | None) -> int:
        """Continue ended runs at a rate."""
        return run_control.redrive_all(runs, rate)

    def wait(self, run: Run, timeout: float | None) -> None:
        """Wait for the end of a run."""
        run_control.wait(run, timeout)

    def replay(
        self,
        function: Function,
        since: datetime | None,
        until: datetime | None,
        statuses: Iterable[str] | None,
    ) -> list[Run]:
        """Rerun the runs that were queued in a time range."""
        return run_control.replay(function, since, until, statuses)

    def pause_function(
        self, function: Function, *, key: Any, skip: bool, reason: str
    ) -> bool:
        """Pause a function, or one key of it."""
        return pauses.pause_function(function, key=key, skip=skip, reason=reason)

    def resume_function(self, function: Function, *, key: Any) -> bool:
        """Resume a function, or one key of it."""
        return pauses.resume_function(function, key=key)

    def pause_queue(self, queue: str, reason: str) -> bool:
        """Pause a queue."""
        return pauses.pause_queue(queue, reason)

    def resume_queue(self, queue: str) -> bool:
        """Resume a queue."""
        return pauses.resume_queue(queue)

    def explain(self, run: Run) -> Explanation:
        """Explain why a run waits."""
        return explain_query.explain(run)

    def runs_for(self, instance: Model) -> RunQuerySet:
        """Return the runs about an instance, newest first."""
        subjects = db.rows(Subject).filter(
            model=label_of(type(instance)), object_pk=str(instance.pk)
        )
        runs = Run.objects.using(db.alias()).filter(pk__in=subjects.values("run_id"))
        return runs.order_by("-pk")

    def create_schedule(
        self, function: Function | str, values: Mapping[str, Any]
    ) -> Schedule:
        """Create a schedule."""
        return schedules.create(function, values)

    def schedules(self, **conditions: Any) -> ScheduleQuerySet:
        """Return schedules."""
        return schedules.find(**conditions)

    def change_schedule(self, schedule: Schedule, changes: Mapping[str, Any]) -> None:
        """Change a schedule."""
        schedules.change(schedule, changes)

    def pause_schedule(self, schedule: Schedule, reason: str) -> bool:
        """Pause a schedule."""
        return schedules.pause(schedule, reason)

    def resume_schedule(self, schedule: Schedule) -> bool:
        """Resume a schedule."""
        return schedules.resume(schedule)

    def run_schedule(self, schedule: Schedule) -> Run | None:
        """Start a run of a schedule at once."""
        return schedules.run_now(schedule)

    def pending_approvals(self, who: Any, limit: int) -> list[Approval]:
        """Return the waiting approvals."""
        return approvals.pending(who, limit)

    def find_approval(self, run: Run, step: str) -> Approval | None:
        """Return the approval of a step."""
        return approvals.find(run, step)

    def decide_approval(
        self,
        approval: Approval,
        decision: str,
        data: Mapping[str, Any] | None,
        *,
        by: Any,
        note: str,
        check: bool,
    ) -> bool:
        """Decide an approval."""
        return approvals.decide(approval, decision, data, by=by, note=note, check=check)

    def track(self, queryset: QuerySet[Any]) -> Tracked:
        """Return a queryset whose bulk writes send events."""
        return Tracked(queryset)


runtime = EngineRuntime()
