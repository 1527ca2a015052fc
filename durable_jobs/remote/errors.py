"""What goes wrong with an app elsewhere: by its own words, or by how it answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from durable_jobs.exceptions import NonRetriable, RemoteFailed, RetryAfter


class RemoteFinal(RemoteFailed, NonRetriable):
    """An app elsewhere failed, and says that another attempt would not help."""


class RemoteLater(RemoteFailed, RetryAfter):
    """An app elsewhere failed, and says when to try again."""

    def __init__(
        self,
        message: str,
        when: datetime | timedelta,
        *,
        error_type: str = "",
        stack: str = "",
    ) -> None:
        RemoteFailed.__init__(self, message, error_type=error_type, stack=stack)
        self.when = when


def failure(
    message: str,
    error_type: str,
    *,
    stack: str = "",
    final: bool = False,
    later: datetime | timedelta | None = None,
) -> RemoteFailed:
    """Return the error that stands for a failure: final, for later, or neither."""
    if final:
        return RemoteFinal(message, error_type=error_type, stack=stack)
    if later is not None:
        return RemoteLater(message, later, error_type=error_type, stack=stack)
    return RemoteFailed(message, error_type=error_type, stack=stack)
