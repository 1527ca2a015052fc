"""The plain Celery task that the durable function is compared with."""

from __future__ import annotations

from celery import shared_task

from bench.marks import CALLS, leave, mark


@shared_task(name="bench.five_calls", ignore_result=True)
def five_calls() -> int:
    """Make five calls that do nothing, and use no database."""
    calls = [mark() for _ in range(CALLS)]
    leave(calls)
    return len(calls)
