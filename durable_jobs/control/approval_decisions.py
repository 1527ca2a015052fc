"""Approve or reject a waiting ``approve`` step.

A decision needs the permission that the step names, for all runs or for the one run.
The transaction that ends the wait writes the decision to the admin's log. If two people
decide at the same time, one decision wins, and the other person gets an error with the
name of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs import clock, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.control import audit
from durable_jobs.control.actor import Actor
from durable_jobs.error_text import storable_text
from durable_jobs.exceptions import (
    ActionNotAllowed,
    DurableError,
    InvalidForm,
    PayloadError,
)
from durable_jobs.models import Run, Step, Wait, WaitKind
from durable_jobs.project_code import contained, description_of
from durable_jobs.serialization.classes import find_class
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, waits
from durable_jobs.store.waits import WaitOutcome

logger = logging.getLogger("durable_jobs")

APPROVED, REJECTED = "approved", "rejected"
MAX_REASON = 1_000
MAX_NAME = 200


class RejectForm(forms.Form):
    """The reason of a rejection."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=MAX_REASON,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
    )


@dataclass(frozen=True, slots=True)
class ApprovalStep:
    """An ``approve`` step of a run. ``wait`` is None if the step is not open."""

    run: Run
    step: Step
    wait: Wait | None

    @property
    def title(self) -> str:
        """Return the title that the function gave the approval."""
        return str((self.step.detail or {}).get("title", ""))

    @property
    def permission(self) -> str:
        """Return the permission that a decision needs."""
        return str((self.step.detail or {}).get("permission", ""))

    @property
    def form(self) -> type[forms.BaseForm] | None:
        """Return the form's class; raise ``PayloadError`` if it no longer exists."""
        name = (self.step.detail or {}).get("form")
        if name is None:
            return None
        found = find_class(str(name))
        if not issubclass(found, forms.BaseForm):
            msg = f"{name!r} is not a form class any more."
            raise PayloadError(msg)
        return found

    @property
    def verdict(self) -> str:
        """Return a sentence with the outcome, for a person who decides too late."""
        detail = self.step.detail or {}
        name = detail.get("name") or _("another user")
        if detail.get("decision") == APPROVED:
            return _("This was already approved by %(name)s.") % {"name": name}
        if detail.get("decision") == REJECTED:
            return _("This was already rejected by %(name)s.") % {"name": name}
        if self.step.status == StepStatus.TIMED_OUT:
            return _("The approval timed out.")
        if self.step.status == StepStatus.CANCELLED:
            return _("The approval was cancelled.")
        return _("The run does not wait for this approval any more.")


def find_step(run: Run, step_key: str) -> ApprovalStep | None:
    """Return an ``approve`` step of a run, or None if the step is of another kind."""
    # Read the wait first: if it is deleted, the step already has the decision.
    wait = waits.get(run.pk, step_key, WaitKind.APPROVAL)
    rows = db.rows(Step).filter(run_id=run.pk, key=step_key)
    step = rows.filter(kind="approve").defer("output", "error").first()
    return None if step is None else ApprovalStep(run, step, wait)


def approve(actor: Actor, run: Run, step_key: str, data: Mapping[str, Any]) -> None:
    """Approve a step with the data of its form.

    Raise ``PermissionDenied``, ``InvalidForm`` with messages per field,
    ``PayloadError`` if the form's class no longer exists, and ``ActionNotAllowed`` if
    the step does not wait any more.
    """
    _permit(actor, run, step_key)
    approve_as(actor, run, step_key, data)


def approve_as(
    actor: Actor | None,
    run: Run,
    step_key: str,
    data: Mapping[str, Any],
    note: str = "",
) -> None:
    """Approve without a permission check. Without an actor, no name is recorded."""
    approval = _open(run, step_key)
    output = validated_output(approval, data)
    why = f": {storable_text(note, MAX_REASON)}" if note else "."
    with db.atomic():
        settle(approval, approved(approval, output, actor))
        if actor is not None:
            text = f"Approval “{approval.step.name}” approved{why}"
            audit.record(actor, run, text)


def reject(actor: Actor, run: Run, step_key: str, reason: str) -> None:
    """Reject a step, which then raises ``ApprovalRejected`` with the reason.

    Raise ``InvalidForm`` without a reason, and otherwise as ``approve``.
    """
    _permit(actor, run, step_key)
    reject_as(actor, run, step_key, reason)


def reject_as(actor: Actor | None, run: Run, step_key: str, reason: str) -> None:
    """Reject without a permission check. Without an actor, no name is recorded."""
    approval = _open(run, step_key)
    given = given_reason(reason)
    with db.atomic():
        settle(approval, rejected(approval, given, actor))
        if actor is None:
            return
        # Without the title, which may contain data that not all viewers may see.
        audit.record(actor, run, f"Approval “{approval.step.name}” rejected: {given}")


def _permit(actor: Actor, run: Run, step_key: str) -> None:
    if not actor.may(_require_step(run, step_key).permission, run):
        raise PermissionDenied


def _require_step(run: Run, step_key: str) -> ApprovalStep:
    approval = find_step(run, step_key)
    if approval is None:
        msg = f"Run {run.pk} has no approve step {step_key!r}."
        raise ActionNotAllowed(msg)
    return approval


def _open(run: Run, step_key: str) -> ApprovalStep:
    approval = _require_step(run, step_key)
    if approval.wait is None:
        raise ActionNotAllowed(approval.verdict)
    return approval


# Parts of a decision, also for decisions without a user


def validated_output(approval: ApprovalStep, data: Mapping[str, Any]) -> str:
    """Validate ``data`` with the form; return the cleaned data as JSON text.

    Raise ``InvalidForm``.
    """
    made = approval.form
    if made is None:
        return _stored({})
    try:
        with contained():
            return _read(made(data))
    except DurableError:
        raise
    except Exception as error:
        raise form_failed(made, error) from error


def _read(form: forms.BaseForm) -> str:
    if not form.is_valid():
        raise invalid(form)
    try:
        return _stored({key: _plain(one) for key, one in form.cleaned_data.items()})
    except PayloadError as error:
        form.add_error(None, error.message)
        raise invalid(form) from error


def form_failed(form: type[forms.BaseForm], error: Exception) -> PayloadError:
    """Log an error in the code of a form, and return an error to show."""
    cause = error.__cause__
    # ``contained`` turns ``SystemExit`` and the like into an ``Exception``.
    raised = error if cause is None or isinstance(cause, Exception) else cause
    name = f"{form.__module__}.{form.__qualname__}"
    logger.error("The form %s of an approval failed.", name, exc_info=error)
    return PayloadError(f"The form {name} failed: {type(raised).__name__}. Correct it.")


def given_reason(text: str) -> str:
    """Return the reason to store; raise ``InvalidForm`` if it is invalid."""
    form = RejectForm({"reason": text})
    if not form.is_valid():
        raise invalid(form)
    return storable_text(form.cleaned_data["reason"])


def invalid(form: forms.BaseForm) -> InvalidForm:
    """Return the error for a form that did not validate."""
    errors = {
        field: [one["message"] for one in found]
        for field, found in form.errors.get_json_data().items()
    }
    details = "; ".join(
        f"{field}: {' '.join(found)}" for field, found in errors.items()
    )
    msg = f"The form is invalid: {details}"
    return InvalidForm(msg, errors=errors, form=form)


def approved(approval: ApprovalStep, output: str, actor: Actor | None) -> WaitOutcome:
    """Return the outcome of an approved step."""
    return WaitOutcome(
        StepStatus.COMPLETED,
        output=EncodedJSON(output),
        detail=_decided(approval, APPROVED, actor),
    )


def rejected(approval: ApprovalStep, reason: str, actor: Actor | None) -> WaitOutcome:
    """Return the outcome of a rejected step."""
    detail = _decided(approval, REJECTED, actor)
    by = f" by {detail['name']}" if detail["name"] else ""
    error = {
        "type": "ApprovalRejected",
        "message": f"Rejected{by}: {reason}",
        "raise": "ApprovalRejected",
        "data": {"reason": reason, "by": detail["by"]},
    }
    return WaitOutcome(StepStatus.FAILED, error=error, detail=detail)


def settle(approval: ApprovalStep, outcome: WaitOutcome) -> None:
    """End the wait; raise ``ActionNotAllowed`` if it has ended already."""
    woken = None
    if approval.wait is not None:
        woken = waits.resolve(approval.wait, outcome, happened_at=clock.now())
    if woken is None:
        now = find_step(approval.run, approval.step.key)
        raise ActionNotAllowed("" if now is None else now.verdict)
    notifier.notify(woken.queue)


def _decided(
    approval: ApprovalStep, decision: str, actor: Actor | None
) -> dict[str, Any]:
    user = None if actor is None else actor.user
    return {
        **(approval.step.detail or {}),
        "decision": decision,
        "by": None if user is None else str(user.pk),
        "name": "" if user is None else _name(user),
        "at": clock.now().isoformat(),
    }


def _name(user: Any) -> str:
    try:
        return storable_text(user.get_username(), MAX_NAME)
    except Exception:  # your project's user model may raise anything
        logger.warning("Could not read the name of user %s.", user.pk, exc_info=True)
        return description_of(user)


def _plain(value: Any) -> Any:
    """Return the value of a field, with a queryset as a list."""
    return list(value) if isinstance(value, QuerySet) else value


def _stored(value: Any) -> str:
    return serialization.dumps(
        value,
        what="the form",
        limit=settings.MAX_STEP_BYTES,
        limit_setting="MAX_STEP_BYTES",
    )
