"""This package's own checks, at the start of a worker.

Celery runs Django's checks and ignores what they find, or skips them by
``CELERY_SKIP_CHECKS``. An error would show later and elsewhere, as a failed run.
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup

from durable_jobs.definitions.checks import check_installation
from durable_jobs.worker.celery_app import is_project_app
from durable_jobs.worker.queues import own_queues


@celeryd_after_setup.connect
def refuse_errors(instance: Any = None, **kwargs: Any) -> None:
    """End a worker that consumes our queues if a check finds an error."""
    served = own_queues() & set(instance.app.amqp.queues.consume_from)
    if not served or not is_project_app(instance.app):
        return
    errors = [found for found in check_installation() if found.is_serious()]
    if errors:
        # Celery logs an Exception of a receiver, and goes on.
        raise SystemExit(
            "\n".join(f"({found.id}) {found.msg} {found.hint}" for found in errors)
        )
