"""``approve``: wait for the decision of a user with a permission."""

from __future__ import annotations

from django.apps import apps

from durable_jobs import clock
from durable_jobs.definitions.approvals import Approve
from durable_jobs.engine.effects import Plan, StepCall
from durable_jobs.engine.suspend import Suspend
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.waits import NewWait


def approve(step: StepCall, operation: Approve) -> Plan:
    """Suspend until a user decides, or the timeout passes."""
    state = step.state
    state.check_alive()
    if step.step_record is not None:
        raise Suspend
    state.recorder.write(lambda: _check_permission(operation))
    question = operation.question
    step_record = step.record_as(
        StepStatus.WAITING, started_at=clock.now(), detail=dict(question)
    )
    rows = [
        NewWait(
            kind=WaitKind.APPROVAL, name=operation.permission, condition=dict(question)
        )
    ]
    if operation.limit is not None:
        step_record.due_at = clock.now() + operation.limit
        no_output = {"output": None}
        rows.append(
            NewWait(
                kind=WaitKind.TIMEOUT, due_at=step_record.due_at, condition=no_output
            )
        )
    raise state.recorder.suspend_step(
        SuspendedStep(step_record, rows), at_once=step.scope.concurrent
    )
    yield  # makes this function a generator


def _check_permission(operation: Approve) -> None:
    """Raise ``ConfigurationError`` if the permission does not exist.

    Skip the check with other authentication backends than Django's own: they may know
    permissions without a row.
    """
    if not apps.is_installed("django.contrib.auth"):
        return
    from django.contrib.auth import get_backends
    from django.contrib.auth.backends import ModelBackend
    from django.contrib.auth.models import Permission

    if not all(isinstance(backend, ModelBackend) for backend in get_backends()):
        return
    app, _, codename = operation.permission.partition(".")
    rows = Permission.objects.filter(content_type__app_label=app, codename=codename)
    if not rows.exists():
        msg = (
            f"step {operation.id!r}: there is no permission {operation.permission!r}. "
            f"Expected one of a model's (such as 'shop.change_order', or of its "
            f"Meta.permissions), after the migrations have run."
        )
        raise ConfigurationError(msg)
