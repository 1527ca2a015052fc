"""Django signals for every change of state. Logs, metrics and hosts listen here.

Receivers run after the change has committed, with ``send_robust``: one that fails is
logged and disturbs nothing.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from durable_jobs.conf import settings

logger = logging.getLogger("durable_jobs")

#: A run was created. Sent with ``run_id``, ``function`` and ``status``.
run_created = Signal()
#: A run changed its status. Sent with ``run_id``, ``function``, ``status``, ``reason``.
run_changed = Signal()
#: A step changed its status. Sent with ``run_id``, ``function``, ``step``, ``kind``,
#: ``status`` and ``attempt``.
step_changed = Signal()
#: An event was stored. Sent with ``event_id`` and ``name``.
event_received = Signal()


def announce(signal: Signal, **values: Any) -> None:
    """Send ``signal`` once the change has committed; log the receivers that fail."""
    if signal.receivers:
        send = functools.partial(_send, signal, values)
        transaction.on_commit(send, using=settings.DATABASE, robust=True)


def _send(signal: Signal, values: dict[str, Any]) -> None:
    for receiver, response in signal.send_robust(sender=None, **values):
        if isinstance(response, Exception):
            logger.error(
                "A receiver of a durable_jobs signal failed: %r",
                receiver,
                exc_info=response,
            )
