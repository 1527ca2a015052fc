"""What goes wrong with an app elsewhere: by its own words, or by how it answers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from durable_jobs.exceptions import NonRetriableError, RemoteFailed, RetryAfterError


class RemoteFinal(RemoteFailed, NonRetriableError):
    """An app elsewhere failed, and says that another attempt would not help."""


class RemoteLater(RemoteFailed, RetryAfterError):
    """An app elsewhere failed, and says when to try again."""

    def __init__(
        self, message: str, when: datetime | timedelta, **described: Any
    ) -> None:
        RemoteFailed.__init__(self, message, **described)
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
    """Return the error that stands for a failure: final, for later, or neither."""
    described: dict[str, Any] = {"error_type": error_type, "stack": stack, "data": data}
    if final:
        return RemoteFinal(message, **described)
    if later is not None:
        return RemoteLater(message, later, **described)
    return RemoteFailed(message, **described)


def bad(message: str) -> RemoteFailed:
    """Return the error for an answer that cannot be understood."""
    return RemoteFailed(message, error_type="BadAnswer")
