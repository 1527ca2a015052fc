"""The door's view of the rooms above it, filled in when the app is ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet

    from durable_jobs.control.approvals import Approval
    from durable_jobs.definitions.events import NewEvent
    from durable_jobs.definitions.explanation import Explanation
    from durable_jobs.definitions.flow_control import Throttle
    from durable_jobs.definitions.function import Function
    from durable_jobs.models import Run, RunQuerySet, Schedule, ScheduleQuerySet
    from durable_jobs.types import Data


class Runtime(Protocol):
    """What starts and steers runs: the engine, behind one narrow port."""

    def send(self, events: list[NewEvent]) -> list[str]: ...

    async def asend(self, events: list[NewEvent]) -> list[str]: ...

    def enqueue(self, function: Function, data: Data) -> Run: ...

    async def aenqueue(self, function: Function, data: Data) -> Run: ...

    def signal(self, name: str, data: Any) -> Run | None: ...

    def answer_callback(
        self, token: str, *, data: Any, error: dict[str, Any] | None
    ) -> None: ...

    def callback_heartbeat(self, token: str) -> None: ...

    def pending_approvals(self, who: Any, limit: int) -> list[Approval]: ...

    def find_approval(self, run: Run, step: str) -> Approval | None: ...

    def decide_approval(
        self,
        approval: Approval,
        decision: str,
        data: Mapping[str, Any] | None,
        *,
        by: Any,
        note: str,
        check: bool,
    ) -> bool: ...

    def cancel(self, run: Run, reason: str) -> bool: ...

    def pause(self, run: Run, reason: str) -> bool: ...

    def resume(self, run: Run) -> bool: ...

    def rerun(self, run: Run, from_step: str | None, data: Data) -> Run: ...

    def redrive(self, run: Run) -> bool: ...

    def redrive_all(self, runs: Iterable[Run], rate: Throttle | None) -> int: ...

    def wait(self, run: Run, timeout: float | None) -> None: ...

    def replay(
        self,
        function: Function,
        since: datetime | None,
        until: datetime | None,
        statuses: Iterable[str] | None,
    ) -> list[Run]: ...

    def pause_function(
        self, function: Function, *, key: Any, skip: bool, reason: str
    ) -> bool: ...

    def resume_function(self, function: Function, *, key: Any) -> bool: ...

    def pause_queue(self, queue: str, reason: str) -> bool: ...

    def resume_queue(self, queue: str) -> bool: ...

    def explain(self, run: Run) -> Explanation: ...

    def runs_for(self, instance: Model) -> RunQuerySet: ...

    def create_schedule(
        self, function: Function | str, values: Mapping[str, Any]
    ) -> Schedule: ...

    def schedules(self, **conditions: Any) -> ScheduleQuerySet: ...

    def change_schedule(
        self, schedule: Schedule, changes: Mapping[str, Any]
    ) -> None: ...

    def pause_schedule(self, schedule: Schedule, reason: str) -> bool: ...

    def resume_schedule(self, schedule: Schedule) -> bool: ...

    def run_schedule(self, schedule: Schedule) -> Run | None: ...

    def track(self, queryset: QuerySet[Any]) -> Any: ...


_installed: Runtime | None = None


def install(runtime: Runtime) -> None:
    """Make ``runtime`` the one that the door talks to."""
    global _installed
    _installed = runtime


def runtime() -> Runtime:
    """Return the runtime; raise when the app is not installed or not ready."""
    if _installed is None:
        msg = (
            "durable_jobs is not ready: add 'durable_jobs' to INSTALLED_APPS, and "
            "start work only after django.setup()."
        )
        raise ConfigurationError(msg)
    return _installed
