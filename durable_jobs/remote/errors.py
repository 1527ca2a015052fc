"""Errors of remote apps: reported by the app, or caused by its reply."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from durable_jobs.exceptions import NonRetriableError, RemoteFailed, RetryAfterError


class RemoteFinal(RemoteFailed, NonRetriableError):
    """A remote app failed, and reports that a retry would not help."""


class RemoteLater(RemoteFailed, RetryAfterError):
    """A remote app failed, and reports when to retry."""

    def __init__(
        self, message: str, when: datetime | timedelta, **details: Any
    ) -> None:
        RemoteFailed.__init__(self, message, **details)
        self.when = when


def failure(
    message: str,
    error_type: str,
    *,
    stack: str = "",
    data: Any = None,
    final: bool = False,
    later: datetime | timedelta | None = None,
) -> RemoteFailed:
    """Return the error for a failure: final, to retry later, or neither."""
    details: dict[str, Any] = {"error_type": error_type, "stack": stack, "data": data}
    if final:
        return RemoteFinal(message, **details)
    if later is not None:
        return RemoteLater(message, later, **details)
    return RemoteFailed(message, **details)


def bad(message: str) -> RemoteFailed:
    """Return the error for an invalid reply."""
    return RemoteFailed(message, error_type="BadAnswer")
