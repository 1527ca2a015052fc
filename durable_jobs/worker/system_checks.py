"""System checks of the Celery side: what makes a sender or a worker wait for long."""

from __future__ import annotations

from typing import Any

from celery import Celery
from django.core.checks import CheckMessage, Error, Warning  # Django's names

from durable_jobs.conf import settings
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.worker.celery_app import project_app, project_apps

#: The transport options without which a call on a socket of Redis has no end.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def check_celery(**kwargs: Any) -> list[CheckMessage]:
    """Check which Celery app is used, and its connection to the broker."""
    try:
        app = project_app()
    except ConfigurationError as error:
        return [
            Error(
                error.message,
                hint="Without it, Celery's default app is used.",
                id="durable_jobs.E005",
            )
        ]
    return [*_doubt(app), *_endless_waits(app)]


def _doubt(app: Celery) -> list[CheckMessage]:
    """Warn if several apps could be the project's and no setting says which is."""
    apps = project_apps()
    if settings.CELERY_APP is not None or len(apps) < 2:
        return []
    names = ", ".join(sorted(repr(one.main) for one in apps))
    return [
        Warning(
            f"There are {len(apps)} Celery apps ({names}): wake-up messages go to "
            f"{app.main!r}.",
            hint=(
                'Set DURABLE_JOBS["CELERY_APP"] = "project.celery:app" to the app of '
                "your workers and beat, or make the others with set_as_current=False."
            ),
            id="durable_jobs.W007",
        )
    ]


def _endless_waits(app: Celery) -> list[CheckMessage]:
    """Warn of a broker connection that waits without end for a stopped server."""
    connection = app.connection_for_write()
    try:
        is_redis = connection.get_transport_cls().driver_type == "redis"
    except ImportError:  # Celery says so when it connects
        return []
    options = connection.transport_options or {}
    missing = [name for name in TIMEOUTS if not options.get(name)]
    if not is_redis or not missing:
        return []
    return [
        Warning(
            f"CELERY_BROKER_TRANSPORT_OPTIONS has no {' and no '.join(missing)}.",
            hint=(
                "Set both to 5 seconds or so: without them, .delay() of your own tasks "
                "waits without end for a Redis server that has stopped. Wake-up "
                "messages of durable_jobs have time-outs of their own."
            ),
            id="durable_jobs.W005",
        )
    ]
