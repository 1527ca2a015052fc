"""The progress of a run in a few numbers, without its payloads."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db.models import Count, QuerySet

from durable_jobs.models import Step
from durable_jobs.queries import visibility
from durable_jobs.statuses import LIVE, STEP_ENDED, RunStatus, StepStatus
from durable_jobs.store import db

#: Kinds of steps that contain other steps or have no body.
AROUND = ("group", "map", "parallel", "patch")
#: Maximum of open steps that are named.
MOST = 3
_FAILED = frozenset({StepStatus.FAILED, StepStatus.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The number of ``done`` steps, of ``failed`` among these, and of open steps."""

    run_id: uuid.UUID
    status: RunStatus
    done: int
    failed: int
    going: int

    @property
    def ended(self) -> bool:
        """Return whether the progress is final."""
        return self.status not in LIVE

    @property
    def version(self) -> str:
        """Return a string that changes whenever the progress changes."""
        return f"{self.status.value}-{self.done}-{self.failed}-{self.going}"

    def open_steps(self) -> list[str]:
        """Return the names of the open steps, last started first."""
        if not self.going:
            return []
        rows = _steps(self.run_id).exclude(status__in=sorted(STEP_ENDED))
        names = rows.order_by("-position", "pk").values_list("name", flat=True)
        return list(names[:MOST])


def of_run(run_id: uuid.UUID) -> RunProgress | None:
    """Return the progress of a run, or None without such a run."""
    runs = visibility.runs().filter(pk=run_id)
    status = runs.values_list("status", flat=True).first()
    if status is None:
        return None
    rows = _steps(run_id).values_list("status").annotate(Count("pk"))
    counts = dict(rows.order_by())
    done = sum(counts.get(one, 0) for one in STEP_ENDED)
    return RunProgress(
        run_id=run_id,
        status=RunStatus(status),
        done=done,
        failed=sum(counts.get(one, 0) for one in _FAILED),
        going=sum(counts.values()) - done,
    )


def _steps(run_id: uuid.UUID) -> QuerySet[Step]:
    return db.rows(Step).filter(run_id=run_id).exclude(kind__in=AROUND)
