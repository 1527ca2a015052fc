"""Run the system checks of this package when a worker starts.

Celery runs Django's checks but ignores their results, and skips them if
``CELERY_SKIP_CHECKS`` is set. An error would surface later, as a failed run.
"""

from __future__ import annotations

from typing import Any

from celery.signals import celeryd_after_setup

from durable_jobs.definitions.checks import check_installation
from durable_jobs.worker.celery_app import is_project_app
from durable_jobs.worker.queues import project_queues


@celeryd_after_setup.connect
def exit_on_errors(instance: Any = None, **kwargs: Any) -> None:
    """Exit if a check finds an error and the worker consumes queues of this package."""
    consumed = project_queues() & set(instance.app.amqp.queues.consume_from)
    if not consumed or not is_project_app(instance.app):
        return
    errors = [found for found in check_installation() if found.is_serious()]
    if errors:
        # Celery only logs an Exception that a signal receiver raises.
        raise SystemExit(
            "\n".join(f"({found.id}) {found.msg} {found.hint}" for found in errors)
        )
