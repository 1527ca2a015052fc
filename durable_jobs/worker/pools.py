"""Refusing the worker pools in which runs would stand still.

In a pool of greenlets, a body that waits in C code (``psycopg``, a lock of another
thread) stops every run of the worker, and the lease is not renewed.
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup

from durable_jobs.worker.celery_app import is_project_app
from durable_jobs.worker.queues import own_queues


@celeryd_after_setup.connect
def refuse_green_pools(instance: Any = None, **kwargs: Any) -> None:
    """End a worker that consumes our queues with gevent or eventlet, saying why."""
    if not getattr(instance.pool_cls, "is_green", False):
        return
    served = sorted(own_queues() & set(instance.app.amqp.queues.consume_from))
    if served and is_project_app(instance.app):
        name = instance.pool_cls.__module__.rpartition(".")[2]
        # Celery logs an Exception of a receiver, and goes on.
        raise SystemExit(
            f"durable_jobs does not work in the {name} pool, and this worker consumes "
            f"{', '.join(served)}: use --pool prefork, threads or solo for these "
            "queues, and -Q for the queues of this worker."
        )
