"""What people decide where a run asks them: approved with a form, or rejected.

A decision needs the permission that the step names, for all runs or for this one. It is
written to the admin's log in the transaction that ends the wait; of two deciders, one
wins, and the other is told who was first.
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
from durable_jobs.project_code import contained, described
from durable_jobs.serialization.classes import find_class
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, waits
from durable_jobs.store.waits import WaitOutcome

logger = logging.getLogger("durable_jobs")

APPROVED, REJECTED = "approved", "rejected"
LONGEST_REASON = 1_000
LONGEST_NAME = 200


class RejectForm(forms.Form):
    """Why something is rejected."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=LONGEST_REASON,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
    )


@dataclass(frozen=True, slots=True)
class Question:
    """What an ``approve`` step asks; ``wait`` is None once nobody can decide it."""

    run: Run
    step: Step
    wait: Wait | None

    @property
    def title(self) -> str:
        """Return what is asked, in the words of the function."""
        return str((self.step.detail or {}).get("title", ""))

    @property
    def permission(self) -> str:
        """Return the permission that a decision needs."""
        return str((self.step.detail or {}).get("permission", ""))

    @property
    def form(self) -> type[forms.BaseForm] | None:
        """Return the class of its form; raise ``PayloadError`` when that is gone."""
        name = (self.step.detail or {}).get("form")
        if name is None:
            return None
        found = find_class(str(name))
        if not issubclass(found, forms.BaseForm):
            msg = f"{name!r} is no class of forms any more."
            raise PayloadError(msg)
        return found

    @property
    def verdict(self) -> str:
        """Return what became of it, as a sentence for whoever came too late."""
        detail = self.step.detail or {}
        name = detail.get("name") or _("somebody")
        if detail.get("decision") == APPROVED:
            return _("This was approved by %(name)s already.") % {"name": name}
        if detail.get("decision") == REJECTED:
            return _("This was rejected by %(name)s already.") % {"name": name}
        if self.step.status == StepStatus.TIMED_OUT:
            return _("Nobody decided this in time: the run went on without.")
        if self.step.status == StepStatus.CANCELLED:
            return _("The run does not ask for this any more: it was cancelled.")
        return _("The run does not ask for this any more.")


def question(run: Run, step_key: str) -> Question | None:
    """Return what a step of a run asks, or asked; None when it is no such step."""
    # The wait first: where it has gone, the step tells who has decided.
    wait = waits.get(run.pk, step_key, WaitKind.APPROVAL)
    rows = db.rows(Step).filter(run_id=run.pk, key=step_key)
    step = rows.filter(kind="approve").defer("output", "error").first()
    return None if step is None else Question(run, step, wait)


def approve(actor: Actor, run: Run, step_key: str, data: Mapping[str, Any]) -> None:
    """Approve what a step asks, with what its form is filled in with.

    Raises ``PermissionDenied``, ``InvalidForm`` with the messages for each field,
    ``PayloadError`` when the form's class is gone, and ``Refused`` when the run does
    not ask any more, or another was first.
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
    """Approve without a look at permissions; without an actor, nobody's name stays."""
    asked = _open(run, step_key)
    output = filled(asked, data)
    why = f": {storable_text(note, LONGEST_REASON)}" if note else "."
    with db.atomic():
        settle(asked, approved(asked, output, actor))
        if actor is not None:
            text = f"Approval “{asked.step.name}” approved{why}"
            audit.record(actor, run, text)


def reject(actor: Actor, run: Run, step_key: str, reason: str) -> None:
    """Reject what a step asks: it raises ``Rejected`` with the reason.

    Raises ``InvalidForm`` without a reason; otherwise as ``approve``.
    """
    _permit(actor, run, step_key)
    reject_as(actor, run, step_key, reason)


def reject_as(actor: Actor | None, run: Run, step_key: str, reason: str) -> None:
    """Reject without a look at permissions; without an actor, nobody's name stays."""
    asked = _open(run, step_key)
    given = given_reason(reason)
    with db.atomic():
        settle(asked, rejected(asked, given, actor))
        if actor is None:
            return
        # Without the title, which may say what only some viewers may see.
        audit.record(actor, run, f"Approval “{asked.step.name}” rejected: {given}")


def _permit(actor: Actor, run: Run, step_key: str) -> None:
    if not actor.may(_asked(run, step_key).permission, run):
        raise PermissionDenied


def _asked(run: Run, step_key: str) -> Question:
    asked = question(run, step_key)
    if asked is None:
        msg = f"Run {run.pk} has no step {step_key!r} that asks for an approval."
        raise ActionNotAllowed(msg)
    return asked


def _open(run: Run, step_key: str) -> Question:
    asked = _asked(run, step_key)
    if asked.wait is None:
        raise ActionNotAllowed(asked.verdict)
    return asked


# The parts, also for those who decide without a user


def filled(asked: Question, data: Mapping[str, Any]) -> str:
    """Return what the form makes of ``data``, as JSON text; raise ``InvalidForm``."""
    made = asked.form
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
    """Log the error of a form's own code, and return what to tell of it."""
    name = f"{form.__module__}.{form.__qualname__}"
    logger.error("The form %s of an approval failed.", name, exc_info=error)
    return PayloadError(f"The form {name} failed: {type(error).__name__}. Correct it.")


def given_reason(text: str) -> str:
    """Return a reason as it is stored; raise ``InvalidForm`` when it is none."""
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
    said = "; ".join(f"{field}: {' '.join(found)}" for field, found in errors.items())
    msg = f"The form is not filled in as it has to be: {said}"
    return InvalidForm(msg, errors=errors, form=form)


def approved(asked: Question, output: str, actor: Actor | None) -> WaitOutcome:
    """Return the end of a step that was approved."""
    return WaitOutcome(
        StepStatus.COMPLETED,
        output=EncodedJSON(output),
        detail=_decided(asked, APPROVED, actor),
    )


def rejected(asked: Question, reason: str, actor: Actor | None) -> WaitOutcome:
    """Return the end of a step that was rejected."""
    detail = _decided(asked, REJECTED, actor)
    by = f" by {detail['name']}" if detail["name"] else ""
    error = {
        "type": "ApprovalRejected",
        "message": f"Rejected{by}: {reason}",
        "raise": "ApprovalRejected",
        "data": {"reason": reason, "by": detail["by"]},
    }
    return WaitOutcome(StepStatus.FAILED, error=error, detail=detail)


def settle(asked: Question, outcome: WaitOutcome) -> None:
    """End the wait; raise ``Refused`` when another was first."""
    woken = None
    if asked.wait is not None:
        woken = waits.resolve(asked.wait, outcome, happened_at=clock.now())
    if woken is None:
        now = question(asked.run, asked.step.key)
        raise ActionNotAllowed("" if now is None else now.verdict)
    notifier.notify(woken.queue)


def _decided(asked: Question, decision: str, actor: Actor | None) -> dict[str, Any]:
    user = None if actor is None else actor.user
    return {
        **(asked.step.detail or {}),
        "decision": decision,
        "by": None if user is None else str(user.pk),
        "name": "" if user is None else _name(user),
        "at": clock.now().isoformat(),
    }


def _name(user: Any) -> str:
    try:
        return storable_text(user.get_username(), LONGEST_NAME)
    except Exception:  # a model of users of the project's own
        logger.warning("The name of user %s cannot be told.", user.pk, exc_info=True)
        return described(user)


def _plain(value: Any) -> Any:
    """Return what a field was given; of several instances, a list."""
    return list(value) if isinstance(value, QuerySet) else value


def _stored(value: Any) -> str:
    return serialization.dumps(
        value,
        what="the form",
        limit=settings.MAX_STEP_BYTES,
        limit_setting="MAX_STEP_BYTES",
    )
