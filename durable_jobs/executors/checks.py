"""System checks of the Celery side: what makes a sender or a worker wait for long."""

from __future__ import annotations

from typing import Any

from celery import current_app
from django.core.checks import CheckMessage, Warning  # Django's name

#: The transport options without which a call on a socket of Redis has no end.
TIMEOUTS = ("socket_timeout", "socket_connect_timeout")


def check_broker(**kwargs: Any) -> list[CheckMessage]:
    """Warn of a broker connection that waits without end for a stopped server."""
    connection = current_app.connection_for_write()
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
