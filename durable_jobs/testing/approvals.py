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


def open_approval(step: str, run: Run | None) -> ApprovalStep:
    """Return the oldest open approval of a step. Raise ``ActionNotAllowed`` if none."""
    rows = db.rows(Step).filter(kind="approve", name=step, status=StepStatus.WAITING)
    if run is not None:
        rows = rows.filter(run_id=run.pk)
    first = rows.order_by("run_id", "position").select_related("run").first()
    found = (
        None if first is None else approval_decisions.find_step(first.run, first.key)
    )
    if found is None:
        msg = f"No step {step!r} waits for an approval. Call run_until_idle() first."
        raise ActionNotAllowed(msg)
    return found


def approve(approval: ApprovalStep, data: Mapping[str, Any], by: Any) -> None:
    """Approve. Without a user, no permission is checked."""
    if by is not None:
        approval_decisions.approve(Actor(by), approval.run, approval.step.key, data)
        return
    output = approval_decisions.validated_output(approval, data)
    approval_decisions.settle(
        approval, approval_decisions.approved(approval, output, None)
    )


def reject(approval: ApprovalStep, reason: str, by: Any) -> None:
    """Reject. Without a user, no permission is checked."""
    if by is not None:
        approval_decisions.reject(Actor(by), approval.run, approval.step.key, reason)
        return
    given = approval_decisions.given_reason(reason)
    approval_decisions.settle(
        approval, approval_decisions.rejected(approval, given, None)
    )
