"""Reject the worker pools in which runs would block each other.

In a pool of greenlets, a step that waits in C code (``psycopg``, a lock of another
thread) blocks every run of the worker. Then no lease is renewed either.
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup

from durable_jobs.worker.celery_app import is_project_app
from durable_jobs.worker.queues import project_queues


@celeryd_after_setup.connect
def reject_green_pools(instance: Any = None, **kwargs: Any) -> None:
    """Exit if a worker with gevent or eventlet consumes queues of this package."""
    if not getattr(instance.pool_cls, "is_green", False):
        return
    consumed = sorted(project_queues() & set(instance.app.amqp.queues.consume_from))
    if consumed and is_project_app(instance.app):
        name = instance.pool_cls.__module__.rpartition(".")[2]
        # Celery only logs an Exception that a signal receiver raises.
        raise SystemExit(
            f"durable_jobs does not work in the {name} pool, and this worker consumes "
            f"{', '.join(consumed)}. Use --pool prefork, threads or solo for these "
            "queues, and -Q to choose the queues of this worker."
        )
