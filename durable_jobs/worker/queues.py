"""The Celery queues of our messages.

In the database and in code a queue has the name that functions give it. On the broker
``QUEUE_PREFIX`` comes before the name.
"""

from __future__ import annotations

from collections.abc import Iterable

from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry


def on_broker(queue: str) -> str:
    """Return the name that a queue has on the broker."""
    return settings.QUEUE_PREFIX + queue


def served(consumed: Iterable[str]) -> list[str]:
    """Return the queues of ours among those that a worker consumes on the broker."""
    prefix = settings.QUEUE_PREFIX
    return [name.removeprefix(prefix) for name in consumed if name.startswith(prefix)]


def own_queues() -> set[str]:
    """Return the names, on the broker, of what a worker of the project consumes."""
    own = {settings.QUEUE, settings.TICK_QUEUE, *registry.queues()}
    return {on_broker(name) for name in own}
