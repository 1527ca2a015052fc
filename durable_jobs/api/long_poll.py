"""Waiting for the end of a run in a request: not for long, and not by many at once."""

from __future__ import annotations

import threading
from typing import Annotated

from ninja import Field

from durable_jobs.exceptions import RunNotFinished
from durable_jobs.models import Run

#: Seconds that one request may wait.
LONGEST = 60
#: Requests of one process that may wait at the same time: each holds a thread, and a
#: connection to the database. Others are answered at once.
MOST = 8

Seconds = Annotated[float, Field(ge=0, le=LONGEST)]

_waiters = threading.BoundedSemaphore(MOST)


def wait(run: Run, seconds: float) -> None:
    """Refresh the run when it has ended, or the time is over, or all places are taken.

    Raises ``Run.DoesNotExist`` when it goes meanwhile.
    """
    if not run.is_live or not seconds or not _waiters.acquire(blocking=False):
        return
    try:
        run.wait(seconds)
    except RunNotFinished:
        pass  # which its status says
    finally:
        _waiters.release()
