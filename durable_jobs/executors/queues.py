"""The Celery queues of our messages."""

from __future__ import annotations

from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry


def own_queues() -> set[str]:
    """Return the Celery queues that a worker of the project has to consume."""
    return {settings.QUEUE, settings.TICK_QUEUE, *registry.queues()}
