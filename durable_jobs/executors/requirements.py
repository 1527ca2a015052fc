"""What a worker needs of the project's settings, checked again when it starts.

The system check says the same, but checks can be skipped (``CELERY_SKIP_CHECKS``).
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup
from django.conf import settings

from durable_jobs.executors.celery_app import is_project_app
from durable_jobs.executors.queues import own_queues


@celeryd_after_setup.connect
def refuse_naive_times(instance: Any = None, **kwargs: Any) -> None:
    """End a worker that consumes our queues if ``USE_TZ`` is off, saying why."""
    if settings.USE_TZ:
        return
    served = sorted(own_queues() & set(instance.app.amqp.queues.consume_from))
    if served and is_project_app(instance.app):
        # Celery logs an Exception of a receiver, and goes on.
        raise SystemExit(
            "durable_jobs needs USE_TZ = True: it compares times across machines. "
            f"This worker consumes {', '.join(served)}. Set USE_TZ, or use -Q for "
            "other queues."
        )
