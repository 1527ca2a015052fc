"""Approvals for code: list, show and decide them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied, ValidationError

from durable_jobs import ids
from durable_jobs.control import approval_decisions, inbox
from durable_jobs.control.actor import Actor
from durable_jobs.control.approval_decisions import ApprovalStep
from durable_jobs.exceptions import ActionNotAllowed, ConfigurationError, InvalidForm
from durable_jobs.models import Run, Step, Wait
from durable_jobs.queries import approvals as waiting
from durable_jobs.store import db

DECISIONS = ("approve", "reject")


@dataclass(frozen=True)
class Approval:
    """An ``approve`` step of a run."""

    approval_step: ApprovalStep

    @property
    def id(self) -> uuid.UUID:
        """Return the id of the approval in the API, which is the id of its step."""
        return self.approval_step.step.pk

    @property
    def run(self) -> Run:
        """Return the waiting run."""
        return self.approval_step.run

    @property
    def step(self) -> str:
        """Return the id of the step in the function."""
        return self.approval_step.step.name

    @property
    def key(self) -> str:
        """Return the key of the step, which is unique in the run."""
        return self.approval_step.step.key

    @property
    def title(self) -> str:
        """Return the title."""
        return self.approval_step.title

    @property
    def permission(self) -> str:
        """Return the permission that a decision needs."""
        return self.approval_step.permission

    @property
    def since(self) -> datetime | None:
        """Return since when the step waits."""
        return self.approval_step.step.started_at

    @property
    def until(self) -> datetime | None:
        """Return when the step times out, or None without a timeout."""
        return self.approval_step.step.due_at

    @property
    def is_open(self) -> bool:
        """Return whether the approval can be decided."""
        return self.approval_step.wait is not None

    @property
    def verdict(self) -> str:
        """Return how it was decided, or an empty string while it is open."""
        return "" if self.is_open else self.approval_step.verdict

    def form(self, data: Mapping[str, Any] | None = None) -> forms.BaseForm | None:
        """Return its form, bound to ``data`` if given, or None without a form.

        Raise ``PayloadError`` if the form's class no longer exists.
        """
        made = self.approval_step.form
        return None if made is None else made(data)

    def may_decide(self, user: Any) -> bool:
        """Return whether a user has the permission, for all runs or for this run."""
        return Actor(user).may(self.permission, self.run)


def pending(who: Any, limit: int) -> list[Approval]:
    """Return waiting approvals, oldest first, of a user only those to decide."""
    if who is None:
        found = waiting.waiting(waiting.permissions(), 0, limit)
        return _of(waiting.with_runs(found))
    return pending_of(Actor(who), limit)


def pending_of(actor: Actor, limit: int) -> list[Approval]:
    """Return the approvals that an actor may decide, oldest first."""
    chosen: list[Wait] = []
    for page in _pages(actor):
        chosen += page
        if len(chosen) >= limit:
            break
    return _of(chosen[:limit])


def _pages(actor: Actor) -> Iterator[list[Wait]]:
    after: int | None = 0
    while after is not None:
        found = inbox.read(actor, after)
        yield found.waits
        after = found.after


def _of(waits: Sequence[Wait]) -> list[Approval]:
    keys = {ids.step_pk(wait.run_id, wait.step): wait for wait in waits}
    rows = db.rows(Step).filter(pk__in=list(keys))
    steps = rows.defer("output", "error").in_bulk()
    return [
        Approval(ApprovalStep(wait.run, steps[key], wait))
        for key, wait in keys.items()
        if key in steps
    ]


def find(run: Run, step: str) -> Approval | None:
    """Return the approval of a step by its id or key, or None."""
    found = approval_decisions.find_step(run, step)
    if found is None:
        rows = db.rows(Step).filter(run_id=run.pk, name=step, kind="approve")
        key = rows.order_by("-position").values_list("key", flat=True).first()
        found = None if key is None else approval_decisions.find_step(run, key)
    return None if found is None else Approval(found)


def decide(
    approval: Approval,
    decision: str,
    data: Mapping[str, Any] | None,
    *,
    by: Any,
    note: str,
    check: bool,
) -> bool:
    """Decide an approval; return whether this call did it."""
    if decision not in DECISIONS:
        msg = f"Expected a decision among {', '.join(DECISIONS)}, got {decision!r:.80}."
        raise ConfigurationError(msg)
    if by is None and check:
        msg = "Expected by= with the user who decides, or check=False."
        raise ConfigurationError(msg)
    if check and not approval.may_decide(by):
        raise PermissionDenied
    actor = None if by is None else Actor(by)
    try:
        settle(actor, approval, decision, data or {}, note)
    except ActionNotAllowed:
        return False
    return True


def settle(
    actor: Actor | None,
    approval: Approval,
    decision: str,
    data: Mapping[str, Any],
    note: str,
) -> None:
    """Decide without a permission check; raise ``ActionNotAllowed`` if decided."""
    try:
        if decision == "approve":
            approval_decisions.approve_as(actor, approval.run, approval.key, data, note)
        else:
            approval_decisions.reject_as(actor, approval.run, approval.key, note)
    except InvalidForm as error:
        if decision == "reject":  # only the note can be invalid
            raise ValidationError({"note": [*error.errors["reason"]]}) from error
        raise ValidationError({**error.errors}) from error
