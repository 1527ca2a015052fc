"""The statuses of runs and steps, and all legal transitions.

::

    queued ──▶ running ──▶ completed | failed
      ▲  ▲        │
      │  └────────┤ (moved, retried, or its worker died)
      │           ▼
      └─────── waiting          any live state ──▶ paused ──▶ queued | running
                                any live state ──▶ cancelled
    paused ──▶ running                       (its attempt has not stopped yet)
    failed | cancelled ──▶ queued            (redrive)
    skipped                                  (never started; has a reason)
"""

from __future__ import annotations

from django.db.models import TextChoices


class RunStatus(TextChoices):
    """The status of a run."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class StepStatus(TextChoices):
    """The status of a step."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SLEEPING = "sleeping"
    WAITING = "waiting"
    INVOKING = "invoking"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


LIVE = frozenset(
    {RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING, RunStatus.PAUSED}
)
TERMINAL = frozenset(RunStatus) - LIVE
#: Statuses of few runs among many, by which runs are searched.
ATTENTION = frozenset(RunStatus) - {
    RunStatus.QUEUED,
    RunStatus.RUNNING,
    RunStatus.COMPLETED,
}
REDRIVABLE = frozenset({RunStatus.FAILED, RunStatus.CANCELLED})

STEP_ENDED = frozenset(
    {
        StepStatus.COMPLETED,
        StepStatus.FAILED,
        StepStatus.CANCELLED,
        StepStatus.TIMED_OUT,
    }
)

RUN_MOVES: dict[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.PAUSED,
            RunStatus.CANCELLED,
            RunStatus.FAILED,
            RunStatus.SKIPPED,
        }
    ),
    RunStatus.RUNNING: frozenset(
        {
            RunStatus.QUEUED,
            RunStatus.WAITING,
            RunStatus.PAUSED,
            RunStatus.COMPLETED,
            RunStatus.FAILED,
            RunStatus.CANCELLED,
        }
    ),
    RunStatus.WAITING: frozenset(
        {RunStatus.QUEUED, RunStatus.PAUSED, RunStatus.CANCELLED, RunStatus.FAILED}
    ),
    RunStatus.PAUSED: frozenset(
        {RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.FAILED}
    ),
    RunStatus.COMPLETED: frozenset(),
    RunStatus.FAILED: frozenset({RunStatus.QUEUED}),
    RunStatus.CANCELLED: frozenset({RunStatus.QUEUED}),
    RunStatus.SKIPPED: frozenset(),
}


def sources(target: RunStatus) -> list[str]:
    """Return the statuses from which a run may change to ``target``."""
    return sorted(s.value for s, targets in RUN_MOVES.items() if target in targets)
