"""Bodies of steps that write down what they do, and whether they may."""

from __future__ import annotations

import os
import threading
from typing import Any

from django.db.models import F

from durable_jobs import clock
from durable_jobs.definitions import current
from durable_jobs.models import Run, Step
from durable_jobs.statuses import StepStatus
from tests.lab.models import Account, Effect, Gate

GATE_SECONDS = 60


def effect(run_id: str, label: str, booked: int | None = None) -> str:
    """Write down that a body did something, and how its run and step stood then."""
    step = current.body.get() or ""
    known = Step.objects.filter(run_id=run_id, name=step)
    Effect.objects.create(
        run=run_id,
        step=step,
        label=label,
        pid=os.getpid(),
        at=clock.now(),
        # In this order: an attempt that holds the lease now held it before.
        recorded=known.filter(status=StepStatus.COMPLETED).exists(),
        held=Run.objects.filter(pk=run_id, lease_token=_token()).exists(),
        booked=booked,
    )
    return label


def _token() -> Any:
    """Return the lease of the attempt that is executing this body."""
    performer: Any = current.performer.get()
    return performer.session.lease[1] if performer is not None else None


def slow(run_id: str, label: str, seconds: float = 0.15) -> str:
    """Take a while: a short body has ended before a stopped worker goes on."""
    effect(run_id, label)
    pause(seconds)
    return label


def pause(seconds: float) -> None:
    """Let time pass, as work does."""
    threading.Event().wait(seconds)


def held(run_id: str, gate: str) -> str:
    """Say that the body began, and go on when the gate opens."""
    effect(run_id, f"{gate}:begin")
    for _ in range(GATE_SECONDS * 50):
        if Gate.objects.filter(name=gate).exists():
            return effect(run_id, f"{gate}:end")
        pause(0.02)
    raise TimeoutError(gate)


def add(name: str, amount: int, seconds: float = 0) -> int:
    """Change a balance, as ORM writes that must happen once, with time in between."""
    performer: Any = current.performer.get()
    Account.objects.filter(name=name).update(balance=F("balance") + amount)
    pause(seconds)
    effect(str(performer.session.run.pk), name, booked=amount)
    return amount
