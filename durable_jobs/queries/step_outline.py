"""The outline of a run: all its steps as a tree, without their payloads.

A page draws only some steps of a long run. The outline says which steps there are, how
far they are, and how long they took, from one query of narrow columns.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from django.db.models import Case, Value, When

from durable_jobs import clock, ids
from durable_jobs.engine.step_runner import GROUP
from durable_jobs.engine.steps.parallel import BRANCH
from durable_jobs.models import Run, Step
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db

#: Steps that an outline reads. Of longer runs it leaves out completed steps.
MAX_STEPS = 10_000
#: Kinds of steps whose children are branches.
PARALLEL_KINDS = frozenset({"map", "parallel"})
CONTAINERS = PARALLEL_KINDS | {BRANCH, GROUP}
#: More than so many neighbours are drawn in part.
FEW = 20

_COLUMNS = ("pk", "parent_id", "position", "key", "name", "kind", "status")
_TIMES = ("started_at", "ended_at")


class Phase(StrEnum):
    """How far a step is."""

    DONE = "done"
    RUNNING = "running"
    WAITING = "waiting"
    FAILED = "failed"
    CANCELLED = "cancelled"


_PHASES: dict[str, Phase] = {
    StepStatus.COMPLETED: Phase.DONE,
    StepStatus.RUNNING: Phase.RUNNING,
    StepStatus.FAILED: Phase.FAILED,
    StepStatus.TIMED_OUT: Phase.FAILED,
    StepStatus.CANCELLED: Phase.CANCELLED,
}
_OPEN = (Phase.RUNNING, Phase.WAITING)


@dataclass(slots=True, eq=False)
class OutlineStep:
    """One step. ``until`` is its end, or None while it is open."""

    pk: uuid.UUID
    parent_id: uuid.UUID | None
    position: int
    key: str
    name: str
    kind: str
    status: str
    started_at: datetime | None
    until: datetime | None
    phase: Phase = Phase.WAITING
    parent: OutlineStep | None = None
    children: list[OutlineStep] = field(default_factory=list)

    @property
    def is_crowd(self) -> bool:
        """Return whether the step has too many branches to draw them all."""
        return self.kind in PARALLEL_KINDS and len(self.children) > FEW

    def ancestors(self) -> Iterator[OutlineStep]:
        """Yield the parent, its parent, and so on."""
        above = self.parent
        while above is not None:
            yield above
            above = above.parent

    def length(self, now: datetime) -> timedelta | None:
        """Return the duration until the end or until ``now``."""
        if self.started_at is None:
            return None
        return max((self.until or now) - self.started_at, timedelta())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """Neighbouring steps in numbers. ``median`` is the median of the ended ones."""

    total: int
    counts: dict[Phase, int]
    median: timedelta | None


class StepOutline:
    """The tree of a run's steps, in the order of recording."""

    def __init__(self, run: Run) -> None:
        self.now = clock.now()
        found = list(_read(run))
        self.is_partial = len(found) > MAX_STEPS
        found = sorted(found[:MAX_STEPS], key=lambda step: (step.position, step.pk))
        self._run = run
        self.steps = {step.pk: step for step in found}
        self.roots: list[OutlineStep] = []
        for step in found:
            step.parent = self.steps.get(step.parent_id) if step.parent_id else None
            (step.parent.children if step.parent else self.roots).append(step)
        for step in reversed([*self.walk()]):
            _complete(step)

    def walk(self) -> Iterator[OutlineStep]:
        """Yield all steps, each before its children."""
        # A stack, because groups and branches may exceed Python's recursion limit.
        stack = [*reversed(self.roots)]
        while stack:
            step = stack.pop()
            yield step
            stack += reversed(step.children)

    def find(self, key: str) -> OutlineStep | None:
        """Return the step with a key, if there is one."""
        return self.steps.get(ids.step_pk(self._run.pk, key))

    def innermost(self, phase: Phase) -> list[OutlineStep]:
        """Return the steps of a phase, without those that contain another one."""
        return [
            step
            for step in self.walk()
            if step.phase == phase
            and not any(child.phase == phase for child in step.children)
        ]

    def slowest(self, steps: Iterable[OutlineStep], most: int) -> list[OutlineStep]:
        """Return the steps with a body that took the most time."""
        timed = [
            (length, -step.position, step)
            for step in steps
            if step.kind not in CONTAINERS and (length := step.length(self.now))
        ]
        return [step for _, _, step in sorted(timed, key=_time, reverse=True)[:most]]

    def summary(self, steps: Iterable[OutlineStep]) -> StepSummary:
        """Return some steps in numbers."""
        listed = list(steps)
        seconds = [
            length.total_seconds()
            for step in listed
            if step.phase not in _OPEN and (length := step.length(self.now)) is not None
        ]
        return StepSummary(
            total=len(listed),
            counts=dict(Counter(step.phase for step in listed)),
            median=timedelta(seconds=median(seconds)) if seconds else None,
        )


def _time(timed: tuple[timedelta, int, OutlineStep]) -> tuple[timedelta, int]:
    return timed[:2]


def _read(run: Run) -> Iterator[OutlineStep]:
    """Yield the steps. Of too many the completed ones are last, and left out."""
    completed = When(status=StepStatus.COMPLETED, then=Value(1))
    rows = db.rows(Step).filter(run_id=run.pk)
    ordered = rows.order_by(Case(completed, default=Value(0)), "position", "pk")
    columns: Any = ordered.values_list(*_COLUMNS, *_TIMES)
    for row in columns[: MAX_STEPS + 1]:
        yield OutlineStep(*row)


def _complete(step: OutlineStep) -> None:
    """Set the phase of a step, and the end of a group, from those of its children."""
    step.phase = _PHASES.get(step.status, Phase.WAITING)
    if step.kind not in CONTAINERS or not step.children:
        return
    phases = {child.phase for child in step.children}
    if step.phase in _OPEN or step.kind == GROUP:
        step.phase = next((one for one in _OPEN if one in phases), step.phase)
    if step.kind == GROUP:  # the end of a group is not recorded
        ends = [child.until for child in step.children]
        closed = [end for end in ends if end is not None]
        step.until = max(closed) if len(closed) == len(ends) else None
