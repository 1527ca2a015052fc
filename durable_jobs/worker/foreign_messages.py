"""Messages of another installation on the same broker.

Two projects, or production and a preview, may consume the same queue of one broker by
mistake. Each of our messages carries the id of its installation in a header. A worker
that receives a message of another installation publishes the message again, so that
the other worker gets it, and says so.
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

#: The headers of our messages.
INSTALLATION, HOPS = "durable_installation", "durable_hops"
#: How often a message is published again at most.
MOST_HOPS = 5
#: For how many seconds a worker waits before it publishes, so that another is quicker.
DELAY = 0.05
#: Seconds between two lines in the log.
SAID_EVERY = 60.0

_publisher = Publisher(lambda: impatient_connection(project_app()))
#: When the next line may be written.
_say_at = float("-inf")


def headers() -> dict[str, str]:
    """Return the headers of a message of this installation."""
    own = installation.key()
    return {} if own is None else {INSTALLATION: str(own)}


@before_task_publish.connect(sender=TICK)
def _mark_tick(headers: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Put the id into the ticks of a beat, which opens no connection for longer."""
    if headers is None or INSTALLATION in headers:
        return
    connection = db.connection()
    was_open = connection.connection is not None
    own = installation.key()
    if own is not None:
        headers[INSTALLATION] = str(own)
    if not was_open:
        connection.close()


def passed_on(task: Any, *args: object) -> bool:
    """Return whether the message of a task was another installation's.

    If so, it was published again, unless that was done too often. A message without an
    id is of an older release, and counts as ours.
    """
    sent = _key(task.request.get(INSTALLATION))
    if sent is None:
        return False
    with connections.kept():
        own = installation.key()
        if own is None or own == sent:
            return False
        queue = str((task.request.delivery_info or {}).get("routing_key"))
        _say(own, sent, queue)
    hops = task.request.get(HOPS)
    hops = hops if isinstance(hops, int) else 0
    if hops < MOST_HOPS:
        time.sleep(DELAY)
        notifier.try_send(
            queue, lambda: _publish(task.name, args, queue, str(sent), hops + 1)
        )
    return True


def _key(written: object) -> uuid.UUID | None:
    with suppress(ValueError):
        return uuid.UUID(written) if isinstance(written, str) else None
    return None


def _publish(
    name: str, args: tuple[object, ...], queue: str, sent: str, hops: int
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
            headers={INSTALLATION: sent, HOPS: hops},
        )

    _publisher.publish(send)


def _say(own: uuid.UUID, sent: uuid.UUID, queue: str) -> None:
    """Tell the log and the doctor, once a minute."""
    global _say_at
    if clock.monotonic() < _say_at:
        return
    _say_at = clock.monotonic() + SAID_EVERY
    logger.error(
        "A message of installation %s came by the queue %r to a worker of "
        "installation %s: both use one broker. Give one of them another broker, "
        "another database of the broker, or a QUEUE_PREFIX.",
        sent,
        queue,
        own,
    )
    with suppress(Error):
        installation.note_other(sent, queue)
