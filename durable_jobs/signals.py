"""Django signals for every change of status, for logs, metrics and your project.

Receivers are called after the commit, with ``send_robust``: a receiver that fails is
logged and has no other effect.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from durable_jobs.conf import settings
from durable_jobs.control_flow import reraise_control
from durable_jobs.project_code import description_of

logger = logging.getLogger("durable_jobs")


class _Signal(Signal):
    """A signal that logs failing receivers of any kind.

    Django's log line needs the ``__qualname__`` of a receiver. An instance with
    ``__call__`` has none, and its error would leave ``send_robust``.
    """

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        logger.error(
            "A receiver of a durable_jobs signal failed: %s",
            description_of(receiver),
            exc_info=err,
        )


#: A run was created. Sent with ``run_id``, ``function`` and ``status``.
run_created = _Signal()
#: A run changed its status. Sent with ``run_id``, ``function``, ``status``, ``reason``.
run_changed = _Signal()
#: A step changed its status. Sent with ``run_id``, ``function``, ``step``, ``kind``,
#: ``status`` and ``attempt``.
step_changed = _Signal()
#: An event was stored. Sent with ``event_id`` and ``name``.
event_received = _Signal()


def announce(signal: Signal, **values: Any) -> None:
    """Send ``signal`` after the commit; log the receivers that fail."""
    if not signal.receivers:
        return

    def send() -> None:
        try:
            signal.send_robust(sender=None, **values)
        except BaseException as error:
            # Django propagates SystemExit from a receiver. In a running event loop, it
            # cannot call async receivers.
            reraise_control(error)
            logger.exception("Not all receivers of a durable_jobs signal were called.")

    transaction.on_commit(send, using=settings.DATABASE, robust=True)
