"""Celery's time limits for the tasks of this package.

The engine stops before the limit is near. Celery's soft limit is a signal whose handler
raises wherever the process happens to be. While a task of this package executes, the
handler raises only inside the body of a step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.pool import soft_timeout_sighandler
from celery import current_task
from celery.exceptions import SoftTimeLimitExceeded
from celery.signals import celeryd_after_setup

from durable_jobs.engine import time_limits

_SIGNAL = getattr(signal, "SIGUSR1", None)

#: The hard and the soft limit of the worker's command line, in seconds.
_worker_limits: tuple[float | None, float | None] = (None, None)


@celeryd_after_setup.connect
def _save_worker_limits(instance: Any = None, **kwargs: Any) -> None:
    """Save the worker's limits before the pool forks its processes."""
    global _worker_limits
    _worker_limits = (instance.time_limit, instance.soft_time_limit)


@contextmanager
def respected() -> Iterator[None]:
    """Release runs inside the block before this task's limit is near."""
    with _signal_in_bodies_only(), time_limits.task_limit(shortest()):
        yield


def shortest() -> float | None:
    """Return the shortest limit of the current task, in seconds."""
    given = getattr(current_task, "request", None) and current_task.request.timelimit
    hard, soft = given or (None, None)
    limits = (
        hard or getattr(current_task, "time_limit", None) or _worker_limits[0],
        soft or getattr(current_task, "soft_time_limit", None) or _worker_limits[1],
    )
    return min((float(limit) for limit in limits if limit), default=None)


@contextmanager
def _signal_in_bodies_only() -> Iterator[None]:
    if (
        _SIGNAL is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(_SIGNAL) is not soft_timeout_sighandler
    ):
        yield
        return
    signal.signal(_SIGNAL, _on_soft_limit)
    try:
        yield
    finally:
        signal.signal(_SIGNAL, soft_timeout_sighandler)


def _on_soft_limit(*args: object) -> None:
    time_limits.limit_reached(SoftTimeLimitExceeded)
