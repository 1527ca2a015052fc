"""Bodies of steps that record each call, and whether the call was allowed."""

from __future__ import annotations

import os
import resource
import signal
import threading
import uuid
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from durable_jobs import clock
from durable_jobs.definitions import execution
from durable_jobs.models import Run, Step
from durable_jobs.statuses import StepStatus
from tests.lab.models import Account, Effect, Gate

GATE_SECONDS = 60


def effect(run_id: str, label: str, booked: int | None = None) -> str:
    """Record a call of a body, with the state of its run and step at that moment."""
    step = execution.current_body.get() or ""
    known = Step.objects.filter(run_id=run_id, name=step)
    Effect.objects.create(
        run=run_id,
        step=step,
        label=label,
        pid=os.getpid(),
        at=clock.now(),
        # In this order: an attempt that holds the lease now also held it before.
        recorded=known.filter(status=StepStatus.COMPLETED).exists(),
        held=Run.objects.filter(pk=run_id, lease_token=_token()).exists(),
        booked=booked,
    )
    return label


def _token() -> Any:
    """Return the lease of the attempt that is executing this body."""
    runner: Any = execution.current_performer.get()
    return runner.state.lease[1] if runner is not None else None


def slow(run_id: str, label: str, seconds: float = 0.15) -> str:
    """Take a while. A short body would end before a stopped worker continues."""
    effect(run_id, label)
    pause(seconds)
    return label


def draw(run_id: str, label: str, seconds: float = 0.15) -> str:
    """Take a while, and return a value that no other call returns."""
    slow(run_id, label, seconds)
    return uuid.uuid4().hex


def pause(seconds: float) -> None:
    """Let time pass, as work does."""
    threading.Event().wait(seconds)


def held(run_id: str, limit_row: str) -> str:
    """Record that the body began, and wait until the test releases the body."""
    effect(run_id, f"{limit_row}:begin")
    for _ in range(GATE_SECONDS * 50):
        if Gate.objects.filter(name=limit_row).exists():
            return effect(run_id, f"{limit_row}:end")
        pause(0.02)
    raise TimeoutError(limit_row)


def add(name: str, amount: int, seconds: float = 0) -> int:
    """Change a balance by ORM writes that must happen once, with time in between."""
    runner: Any = execution.current_performer.get()
    Account.objects.filter(name=name).update(balance=F("balance") + amount)
    pause(seconds)
    effect(str(runner.state.run.pk), name, booked=amount)
    return amount


def book_slowly(name: str, amount: int) -> int:
    """Change a balance, record the open transaction outside of it, and wait."""
    runner: Any = execution.current_performer.get()
    Account.objects.filter(name=name).update(balance=F("balance") + amount)
    marker = f"in-{runner.state.run.pk}"
    with connection.cursor() as cursor:
        # Visible to others at once, whether or not the transaction commits.
        cursor.execute("SELECT set_config('application_name', %s, false)", [marker])
    pause(1)
    effect(str(runner.state.run.pk), name, booked=amount)
    return amount


def die(run_id: str, how: str) -> str:
    """End this process as a body can."""
    effect(run_id, how)
    if how == "exit":
        os._exit(3)
    if how == "kill":  # as the kernel does when memory is short
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "memory":
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (resource.getpagesize(), hard))
        try:
            bytearray(2**30)
        finally:  # a process that remains short of memory executes nothing
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    raise ValueError(how)


def hang(run_id: str) -> None:
    """Never return."""
    effect(run_id, "hang")
    while True:
        pause(0.01)


def unstorable(run_id: str) -> object:
    """Return a value without a JSON form."""
    effect(run_id, "give")
    return object()


def leave_open(run_id: str, how: str) -> None:
    """Leave a transaction open on this thread's connection."""
    if how == "autocommit":
        transaction.set_autocommit(False)
    elif how == "atomic":
        transaction.atomic().__enter__()
    else:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
    effect(run_id, "never committed")
