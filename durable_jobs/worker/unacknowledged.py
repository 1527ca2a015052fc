"""Let a worker survive the loss of Redis while it holds unacknowledged messages.

kombu puts such messages back when it closes the lost connection. If the connection has
dropped its address by then, kombu raises ``AttributeError``, which Celery does not
expect: the worker ends. Redis still has the messages, and delivers them again after its
visibility timeout. The tick replaces wake-up messages long before.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.signals import celeryd_after_setup

from durable_jobs.worker.celery_app import is_project_app
from durable_jobs.worker.queues import project_queues


@celeryd_after_setup.connect
def protect_worker(instance: Any = None, **kwargs: Any) -> None:
    """Install the protection if a worker consumes queues of this package."""
    consumed = project_queues() & set(instance.app.amqp.queues.consume_from)
    transport = instance.app.connection_for_read().transport
    if (
        consumed
        and is_project_app(instance.app)
        and transport.driver_type == "redis"  # kombu needs more packages to import it
    ):
        skip_impossible_restores(transport.Channel.QoS)


def skip_impossible_restores(qos: Any) -> None:
    """Let a class of kombu leave messages in Redis if it has no address to use."""
    restore = qos.restore_unacked
    if hasattr(restore, "__wrapped__"):
        return  # a second worker in this process

    @functools.wraps(restore)
    def restore_unacked(self: Any, client: Any = None) -> None:
        if client is None and getattr(self.channel.connection, "client", None) is None:
            self._delivered.clear()
        else:
            restore(self, client)

    qos.restore_unacked = restore_unacked
