"""Invariant violations: states that no method of the store leaves, and their repairs.

Each is found by a single statement, so concurrent changes of other processes cannot
look like a violation. The ``deep`` ones read the whole history, the others only live
rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.lifecycle import finish
from durable_jobs.models import FailedAttempt, Run, Step, Subject, Wait, WaitKind
from durable_jobs.statuses import LIVE, STEP_ENDED, TERMINAL, RunStatus
from durable_jobs.store import db, repairs
from durable_jobs.store.runs import INVOKE

Rows = Callable[[], QuerySet[Any]]


@dataclass(frozen=True, slots=True)
class Violation:
    """A violated invariant: the rows that violate it, and the repair of one row."""

    name: str
    what: str
    rows: Rows
    mend: Callable[[Any], bool]
    deep: bool = False


def _runs(**filters: Any) -> QuerySet[Run]:
    return db.rows(Run).filter(**filters)


def _waits(**filters: Any) -> QuerySet[Wait]:
    return db.rows(Wait).filter(**filters)


def _running_without_lease() -> QuerySet[Run]:
    return _runs(status=RunStatus.RUNNING, lease_token__isnull=True)


def _held_at_rest() -> QuerySet[Run]:
    held = _runs(lease_token__isnull=False)
    return held.exclude(
        status__in=[str(status) for status in repairs.STATUSES_WITH_LEASE]
    )


def _waiting_for_nothing() -> QuerySet[Run]:
    waking = _waits(run_id=OuterRef("pk")).exclude(kind__in=repairs.ENDING)
    return _runs(status=RunStatus.WAITING).exclude(Exists(waking))


def _waits_of_the_ended() -> QuerySet[Wait]:
    live = _runs(pk=OuterRef("run_id"), status__in=sorted(LIVE))
    return _waits().exclude(Exists(live))


def _waits_of_ended_steps() -> QuerySet[Wait]:
    ended = db.rows(Step).filter(
        run_id=OuterRef("run_id"), key=OuterRef("step"), status__in=sorted(STEP_ENDED)
    )
    live = _runs(pk=OuterRef("run_id"), status__in=sorted(LIVE))
    # A due wait is swept soon: a retry that another wake-up has overtaken.
    later = Q(due_at__isnull=True) | Q(due_at__gt=clock.now())
    return _waits().filter(later, Exists(ended), Exists(live)).exclude(step="")


def _waits_for_no_child() -> QuerySet[Wait]:
    child = _runs(
        parent_id=OuterRef("run_id"),
        parent_step=OuterRef("step"),
        parent_relation=INVOKE,
        status__in=sorted(LIVE),
    )
    live = _runs(pk=OuterRef("run_id"), status__in=sorted(LIVE))
    # A wait for another run's child has a due time: the tick ends it.
    alone = _waits(kind=WaitKind.CHILD, due_at__isnull=True)
    return alone.filter(Exists(live)).exclude(Exists(child))


def _children_of_nobody() -> QuerySet[Run]:
    parent = _runs(pk=OuterRef("parent_id"), status__in=sorted(LIVE))
    children = _runs(parent_relation=INVOKE, status__in=sorted(LIVE))
    return children.exclude(Exists(parent))


def _open_steps_of_the_ended() -> QuerySet[Step]:
    ended = _runs(pk=OuterRef("run_id"), status__in=sorted(TERMINAL))
    steps = db.rows(Step).exclude(status__in=sorted(STEP_ENDED))
    return steps.filter(Exists(ended)).defer("input", "output", "logs")


def _without_run(model: type[Step] | type[FailedAttempt] | type[Subject]) -> Rows:
    def rows() -> QuerySet[Any]:
        every: QuerySet[Any] = model._base_manager.using(db.alias())
        return every.exclude(Exists(_runs(pk=OuterRef("run_id"))))

    return rows


def _cancel_child(run: Run) -> bool:
    return finish.cancel(run, "The run that invoked it has ended.")


#: In the order of repair: a repair may reveal the next violation.
VIOLATIONS = (
    Violation(
        "running-unheld",
        "runs are running without a lease",
        _running_without_lease,
        repairs.requeue,
    ),
    Violation(
        "lease-at-rest",
        "runs are held, and not being executed",
        _held_at_rest,
        repairs.clear_lease,
    ),
    Violation(
        "wait-of-ended-run",
        "waits belong to runs that have ended or are gone",
        _waits_of_the_ended,
        repairs.delete_stale_wait,
    ),
    Violation(
        "wait-of-ended-step",
        "waits belong to steps that have ended",
        _waits_of_ended_steps,
        repairs.delete_ended_wait,
    ),
    Violation(
        "waiting-for-nothing",
        "runs are waiting, and nothing will wake them",
        _waiting_for_nothing,
        repairs.register_waits_again,
    ),
    Violation(
        "wait-for-no-child",
        "steps wait for a child run that has ended or is gone",
        _waits_for_no_child,
        repairs.resolve_child_wait,
    ),
    Violation(
        "child-without-parent",
        "invoked runs go on, and their parent has ended or is gone",
        _children_of_nobody,
        _cancel_child,
    ),
    Violation(
        "open-step-of-ended-run",
        "steps are open in runs that have ended",
        _open_steps_of_the_ended,
        repairs.cancel_step,
        deep=True,
    ),
    *(
        Violation(
            f"{model._meta.model_name}-without-run",
            f"{model._meta.verbose_name_plural} belong to runs that are gone",
            _without_run(model),
            repairs.delete_orphan,
            deep=True,
        )
        for model in (Step, FailedAttempt, Subject)
    ),
)
