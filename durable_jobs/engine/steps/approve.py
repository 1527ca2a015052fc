"""``approve``: what people with a permission decide."""

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
    """Park until somebody decides, or the time is over."""
    state = step.state
    state.check_alive()
    if step.memo is not None:
        raise Suspend
    state.recorder.write(lambda: _look_up(operation))
    question = operation.question
    memo = step.memo_as(
        StepStatus.WAITING, started_at=clock.now(), detail=dict(question)
    )
    rows = [
        NewWait(
            kind=WaitKind.APPROVAL, name=operation.permission, condition=dict(question)
        )
    ]
    if operation.limit is not None:
        memo.due_at = clock.now() + operation.limit
        nothing = {"output": None}
        rows.append(
            NewWait(kind=WaitKind.TIMEOUT, due_at=memo.due_at, condition=nothing)
        )
    raise state.recorder.suspend_step(
        SuspendedStep(memo, rows), at_once=step.scope.concurrent
    )
    yield  # a plan is a generator, also one that calls nothing


def _look_up(operation: Approve) -> None:
    """Raise when nobody can ever have the permission.

    Only where Django's own table alone says who has which: rules of the host's may know
    permissions that are in no table.
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
