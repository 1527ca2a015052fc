"""Messages of another installation on the same broker.

Two projects, or production and a preview, may consume the same queue of one broker by
mistake. Each message of this package has the id of its installation in a header. A
worker that receives a message of another installation logs an error and publishes the
message again, so that a worker of that installation can receive it.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import suppress
from typing import Any

from celery.signals import before_task_publish
from django.db import Error
from kombu import Producer

from durable_jobs import clock, notifier
from durable_jobs.store import db, installation
from durable_jobs.worker import connections
from durable_jobs.worker.celery_app import TICK, project_app
from durable_jobs.worker.publisher import Publisher, impatient_connection

logger = logging.getLogger("durable_jobs")

#: The headers of each message of this package.
INSTALLATION, HOPS = "durable_installation", "durable_hops"
#: How many times a message is published again.
MAX_HOPS = 5
#: How many seconds a worker waits before it publishes again.
DELAY = 0.05
#: Seconds between two log lines.
REPORT_INTERVAL = 60.0

_publisher = Publisher(lambda: impatient_connection(project_app()))
#: When the next log line may be written.
_next_report_at = float("-inf")


def headers() -> dict[str, str]:
    """Return the headers of a message of this installation."""
    this_key = installation.key()
    return {} if this_key is None else {INSTALLATION: str(this_key)}


@before_task_publish.connect(sender=TICK)
def _mark_tick(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Add the id to the tick messages of a beat, and leave no connection open."""
    if headers is None or INSTALLATION in headers:
        return
    connection = db.connection()
    was_open = connection.connection is not None
    this_key = installation.key()
    if this_key is not None:
        headers[INSTALLATION] = str(this_key)
    if not was_open:
        connection.close()


def forward_foreign(task: Any, *args: object) -> bool:
    """Publish the task's message again if it is another installation's.

    Return whether it is. After ``MAX_HOPS`` times the message is dropped. A message
    without an id comes from an older version, and counts as this installation's.
    """
    sender = _key(task.request.get(INSTALLATION))
    if sender is None:
        return False
    with connections.persistent():
        this_key = installation.key()
        if this_key is None or this_key == sender:
            return False
        queue = str((task.request.delivery_info or {}).get("routing_key"))
        _report(this_key, sender, queue)
    hops = task.request.get(HOPS)
    hops = hops if isinstance(hops, int) else 0
    if hops < MAX_HOPS:
        time.sleep(DELAY)
        notifier.try_send(
            queue, lambda: _publish(task.name, args, queue, str(sender), hops + 1)
        )
    return True


def _key(value: object) -> uuid.UUID | None:
    with suppress(ValueError):
        return uuid.UUID(value) if isinstance(value, str) else None
    return None


def _publish(
    name: str, args: tuple[object, ...], queue: str, sender: str, hops: int
) -> None:
    app = project_app()

    def send(producer: Producer) -> None:
        app.send_task(
            name,
            args=args,
            queue=queue,
            producer=producer,
            retry=False,
            ignore_result=True,
            headers={INSTALLATION: sender, HOPS: hops},
        )

    _publisher.publish(send)


def _report(this_key: uuid.UUID, sender: uuid.UUID, queue: str) -> None:
    """Report to the log and the doctor, once per minute."""
    global _next_report_at
    if clock.monotonic() < _next_report_at:
        return
    _next_report_at = clock.monotonic() + REPORT_INTERVAL
    logger.error(
        "A worker of installation %s received a message of installation %s through "
        "the queue %r. Both use one broker. Give one of them another broker, another "
        "database of the broker, or a QUEUE_PREFIX.",
        this_key,
        sender,
        queue,
    )
    with suppress(Error):
        installation.record_other(sender, queue)
