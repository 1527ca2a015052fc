"""Celery's time limits for our tasks: known to the engine, and harmless to it.

The soft limit is a signal that raises in the middle of whatever the process does. While
a task of ours executes, it raises in the body of a step and nowhere else.
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

#: What the worker was started with: its hard and its soft limit, in seconds.
_of_worker: tuple[float | None, float | None] = (None, None)


@celeryd_after_setup.connect
def _note_limits(instance: Any = None, **kwargs: Any) -> None:
    """Keep the worker's own limits, before there are processes to know them."""
    global _of_worker
    _of_worker = (instance.time_limit, instance.soft_time_limit)


@contextmanager
def known() -> Iterator[None]:
    """Hand runs on inside the block before this task's limit is near."""
    with _signal_in_bodies_only(), time_limits.limited(shortest()):
        yield


def shortest() -> float | None:
    """Return the shortest limit of this task, in seconds."""
    given = getattr(current_task, "request", None) and current_task.request.timelimit
    hard, soft = given or (None, None)
    limits = (
        hard or getattr(current_task, "time_limit", None) or _of_worker[0],
        soft or getattr(current_task, "soft_time_limit", None) or _of_worker[1],
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
    signal.signal(_SIGNAL, _strike)
    try:
        yield
    finally:
        signal.signal(_SIGNAL, soft_timeout_sighandler)


def _strike(*args: object) -> None:
    time_limits.strike(SoftTimeLimitExceeded)
