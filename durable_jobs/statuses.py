"""The states of runs and steps, and the only moves between them.

::

    queued ──▶ running ──▶ completed | failed
      ▲  ▲        │
      │  └────────┤ (more to do at once, or its worker died)
      │           ▼
      └─────── waiting          any live state ──▶ paused ──▶ queued | running
                                any live state ──▶ cancelled
    paused ──▶ running                       (an attempt is still under way)
    failed | cancelled ──▶ queued            (redrive, by a person)
    skipped                                  (never started, and says why)
"""

from __future__ import annotations

from django.db.models import TextChoices


class RunStatus(TextChoices):
    """Where a run stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class StepStatus(TextChoices):
    """Where a step stands."""

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
#: Few among many: runs in these are looked for by their status.
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
    """Return the statuses from which a run may move to ``target``."""
    return sorted(s.value for s, targets in RUN_MOVES.items() if target in targets)
