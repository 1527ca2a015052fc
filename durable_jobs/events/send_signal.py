"""Signals: send data directly to the one run that waits for a name."""

from __future__ import annotations

import uuid
from typing import Any

from durable_jobs import clock, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.names import check_name
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, waits
from durable_jobs.store.waits import WaitOutcome


def signal(name: str, data: Any) -> Run | None:
    """Wake the run that waits for a signal; return the run, or None without one."""
    check_name(name, "a signal name")
    text = serialization.dumps(
        data,
        what=f"the data of signal {name!r}",
        limit=settings.MAX_EVENT_BYTES,
        limit_setting="MAX_EVENT_BYTES",
    )
    for wait in waits.find(WaitKind.SIGNAL, name):
        value = EncodedJSON(text)
        if wait.branch:
            tree = [wait.branch, serialization.loads(text)]
            value = EncodedJSON(
                serialization.dumps(tree, what=f"signal {name!r}", wrapped=True)
            )
        outcome = WaitOutcome(
            StepStatus.COMPLETED, output=value, detail={"branch": wait.branch}
        )
        run = waits.resolve(wait, outcome, happened_at=clock.now())
        if run is not None:
            notifier.notify(run.queue)
            return db.rows(Run).get(pk=run.pk)
    return None


def replace(name: str, by: uuid.UUID) -> None:
    """Take over a signal: the run that waits for it fails with ``SignalReplaced``."""
    for wait in waits.find(WaitKind.SIGNAL, name):
        _displace(wait, name, by)


def _displace(wait: Wait, name: str, by: uuid.UUID) -> None:
    error = {
        "type": "SignalReplaced",
        "message": f"Run {by} took over the wait for the signal {name!r}.",
        "raise": "SignalReplaced",
    }
    run = waits.resolve(wait, WaitOutcome(StepStatus.FAILED, error=error))
    if run is not None:
        notifier.notify(run.queue)
