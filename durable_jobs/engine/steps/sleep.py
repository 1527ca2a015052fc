"""``sleep`` and ``sleep_until``: one row with a due time."""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.definitions import operations as ops
from durable_jobs.engine.effects import Plan, StepCall
from durable_jobs.engine.suspend import Suspend
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.waits import NewWait


def sleep(step: StepCall, operation: ops.Sleep) -> Plan:
    """Suspend until the time has come; complete at once if it is past."""
    if step.step_record is not None:
        raise Suspend
    step.state.check_alive()
    now = clock.now()
    due = operation.until if operation.length is None else now + operation.length
    assert due is not None, "an operation has a length or an end"
    if due - now > ops.LONGEST:
        msg = f"Expected step {operation.id!r} to end in 366 days at most, not {due}."
        raise ConfigurationError(msg)
    if due <= now:
        yield from step.complete(None, now)
        step.state.suspend_if_always()
        return None
    step_record = step.record_as(StepStatus.SLEEPING, due_at=due, started_at=now)
    item = SuspendedStep(step_record, [NewWait(kind=WaitKind.SLEEP, due_at=due)])
    raise step.state.recorder.suspend_step(item, at_once=step.scope.concurrent)
