"""Django signals for every change of state. Logs, metrics and hosts listen here.

Receivers run after the change has committed, with ``send_robust``: one that fails is
logged and disturbs nothing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction
from django.dispatch import Signal

from durable_jobs.conf import settings
from durable_jobs.control_flow import let_pass
from durable_jobs.project_code import described

logger = logging.getLogger("durable_jobs")


class _Signal(Signal):
    """A signal whose failing receivers are logged, whatever kind of callable they are.

    Django's own log line asks each receiver for a ``__qualname__``. An instance with
    ``__call__`` has none, so its error left ``send_robust``.
    """

    def _log_robust_failure(self, receiver: Any, err: Exception) -> None:
        logger.error(
            "A receiver of a durable_jobs signal failed: %s",
            described(receiver),
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
    """Send ``signal`` once the change has committed; log the receivers that fail."""
    if not signal.receivers:
        return

    def send() -> None:
        try:
            signal.send_robust(sender=None, **values)
        except BaseException as error:
            # Django lets SystemExit out of a receiver. Where a loop runs, it cannot
            # call async receivers.
            let_pass(error)
            logger.exception("A durable_jobs signal did not reach all its receivers.")

    transaction.on_commit(send, using=settings.DATABASE, robust=True)
