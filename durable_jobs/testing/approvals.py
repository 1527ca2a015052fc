"""Decisions on approvals in tests, by a user or without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durable_jobs.control import approval_decisions
from durable_jobs.control.actor import Actor
from durable_jobs.control.approval_decisions import ApprovalStep
from durable_jobs.exceptions import ActionNotAllowed
from durable_jobs.models import Run, Step
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db


def open_question(step: str, run: Run | None) -> ApprovalStep:
    """Return the oldest open question of a step. Raise ``ActionNotAllowed`` if none."""
    rows = db.rows(Step).filter(kind="approve", name=step, status=StepStatus.WAITING)
    if run is not None:
        rows = rows.filter(run_id=run.pk)
    first = rows.order_by("run_id", "position").select_related("run").first()
    found = (
        None if first is None else approval_decisions.find_step(first.run, first.key)
    )
    if found is None:
        msg = f"No step {step!r} waits for an approval now. Run until it does."
        raise ActionNotAllowed(msg)
    return found


def approve(question: ApprovalStep, data: Mapping[str, Any], by: Any) -> None:
    """Approve. Without a user, no permission is checked."""
    if by is not None:
        approval_decisions.approve(Actor(by), question.run, question.step.key, data)
        return
    output = approval_decisions.validated_output(question, data)
    approval_decisions.settle(
        question, approval_decisions.approved(question, output, None)
    )


def reject(question: ApprovalStep, reason: str, by: Any) -> None:
    """Reject. Without a user, no permission is checked."""
    if by is not None:
        approval_decisions.reject(Actor(by), question.run, question.step.key, reason)
        return
    given = approval_decisions.given_reason(reason)
    approval_decisions.settle(
        question, approval_decisions.rejected(question, given, None)
    )
