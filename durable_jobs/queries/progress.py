"""How far a run is, in a few numbers: nothing of what it carries."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db.models import Count, QuerySet

from durable_jobs.models import Step
from durable_jobs.queries import visibility
from durable_jobs.statuses import LIVE, STEP_ENDED, RunStatus, StepStatus
from durable_jobs.store import db

#: Kinds of rows that hold other steps, or do nothing.
AROUND = ("group", "map", "parallel", "patch")
#: Steps that are named as going on.
MOST = 3
_FAILED = frozenset({StepStatus.FAILED, StepStatus.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of a run's steps are ``done``, ``failed`` of these, or ``going`` on."""

    run_id: uuid.UUID
    status: RunStatus
    done: int
    failed: int
    going: int

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will change."""
        return self.status not in LIVE

    @property
    def version(self) -> str:
        """Return a text that is another one whenever the progress is."""
        return f"{self.status.value}-{self.done}-{self.failed}-{self.going}"

    def current(self) -> list[str]:
        """Return the names of the steps that go on, the last begun first."""
        if not self.going:
            return []
        rows = _steps(self.run_id).exclude(status__in=sorted(STEP_ENDED))
        names = rows.order_by("-position", "pk").values_list("name", flat=True)
        return list(names[:MOST])


def of_run(run_id: uuid.UUID) -> Progress | None:
    """Return the progress of a run, None when there is no such run."""
    runs = visibility.runs().filter(pk=run_id)
    status = runs.values_list("status", flat=True).first()
    if status is None:
        return None
    rows = _steps(run_id).values_list("status").annotate(Count("pk"))
    counts = dict(rows.order_by())
    done = sum(counts.get(one, 0) for one in STEP_ENDED)
    return Progress(
        run_id=run_id,
        status=RunStatus(status),
        done=done,
        failed=sum(counts.get(one, 0) for one in _FAILED),
        going=sum(counts.values()) - done,
    )


def _steps(run_id: uuid.UUID) -> QuerySet[Step]:
    return db.rows(Step).filter(run_id=run_id).exclude(kind__in=AROUND)
