"""A Celery pool that claims to be of gevent or eventlet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from celery.concurrency.solo import TaskPool as Solo


class TaskPool(Solo):
    """Works as ``solo`` does, and reports itself as a pool of greenlets."""

    is_green = True

    def spawn_n(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function beside the consumer, as a greenlet would."""
        threading.Thread(target=function, args=args, daemon=True).start()
