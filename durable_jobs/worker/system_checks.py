"""System checks of Celery's configuration: the app, and the broker's timeouts."""

from __future__ import annotations

from typing import Any

from celery import Celery
from django.core.checks import CheckMessage, Error, Warning  # Django's names

from durable_jobs.conf import settings
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.worker.celery_app import project_app, project_apps

#: Without these transport options, a call on a Redis socket has no timeout.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def check_celery(**kwargs: Any) -> list[CheckMessage]:
    """Check the choice of the Celery app, and its connection to the broker."""
    try:
        app = project_app()
    except ConfigurationError as error:
        return [
            Error(
                error.message,
                hint="Remove the setting to use Celery's default app.",
                id="durable_jobs.E005",
            )
        ]
    return [*_ambiguous_app(app), *_missing_timeouts(app)]


def _ambiguous_app(app: Celery) -> list[CheckMessage]:
    """Warn if there are several Celery apps and ``CELERY_APP`` is not set."""
    apps = project_apps()
    if settings.CELERY_APP is not None or len(apps) < 2:
        return []
    names = ", ".join(sorted(repr(each.main) for each in apps))
    return [
        Warning(
            f"There are {len(apps)} Celery apps ({names}). Wake-up messages are sent "
            f"by {app.main!r}.",
            hint=(
                'Set DURABLE_JOBS["CELERY_APP"] = "project.celery:app" to the app of '
                "your workers and beat, or create the others with set_as_current=False."
            ),
            id="durable_jobs.W007",
        )
    ]


def _missing_timeouts(app: Celery) -> list[CheckMessage]:
    """Warn if a Redis connection would wait forever for a stopped server."""
    connection = app.connection_for_write()
    try:
        is_redis = connection.get_transport_cls().driver_type == "redis"
    except ImportError:  # Celery reports this when it connects
        return []
    options = connection.transport_options or {}
    missing = [name for name in TIMEOUTS if not options.get(name)]
    if not is_redis or not missing:
        return []
    return [
        Warning(
            f"CELERY_BROKER_TRANSPORT_OPTIONS has no {' and no '.join(missing)}.",
            hint=(
                "Set both to about 5 seconds. Without them, .delay() of your own tasks "
                "waits forever for a Redis server that has stopped. Wake-up messages "
                "of durable_jobs have their own timeouts."
            ),
            id="durable_jobs.W005",
        )
    ]
