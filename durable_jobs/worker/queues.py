"""The Celery queues that carry wake-up messages.

Functions and database rows use the plain name of a queue. On the broker, the name
begins with ``QUEUE_PREFIX``.
"""

from __future__ import annotations

from collections.abc import Iterable

from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry

#: The queues that this worker consumes. Empty outside of a worker.
consumed: list[str] = []


def broker_name(queue: str) -> str:
    """Return the name that a queue has on the broker."""
    return settings.QUEUE_PREFIX + queue


def consumed_queues(broker_names: Iterable[str]) -> list[str]:
    """Return the plain names of the queues with the prefix."""
    prefix = settings.QUEUE_PREFIX
    return [
        name.removeprefix(prefix) for name in broker_names if name.startswith(prefix)
    ]


def project_queues() -> set[str]:
    """Return the broker names of all queues of the project's functions."""
    names = {settings.QUEUE, settings.TICK_QUEUE, *registry.queues()}
    return {broker_name(name) for name in names}
