"""Long polling for the end of a run, bounded in time and in number."""

from __future__ import annotations

import threading
from typing import Annotated

from ninja import Field

from durable_jobs.exceptions import RunNotFinished
from durable_jobs.models import Run

#: Seconds that one request may wait.
LONGEST = 60
#: The most waiting requests per process. Each uses a thread and a database
#: connection. Further requests return at once.
MOST = 8

Seconds = Annotated[float, Field(ge=0, le=LONGEST)]

_waiters = threading.BoundedSemaphore(MOST)


def wait(run: Run, seconds: float) -> None:
    """Wait until the run ends, at most ``seconds``, and refresh it.

    Return at once if ``MOST`` requests wait already. Raise ``Run.DoesNotExist`` if the
    run is deleted while waiting.
    """
    if not run.is_live or not seconds or not _waiters.acquire(blocking=False):
        return
    try:
        run.wait(seconds)
    except RunNotFinished:
        pass  # the caller reads the status
    finally:
        _waiters.release()
