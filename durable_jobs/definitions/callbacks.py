"""Answers to ``wait_for_callback``, from whatever was asked to do the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durable_jobs.definitions.runtime import runtime


@dataclass(frozen=True)
class Callback:
    """What ``submit`` hands to the outside: a signed token, and its URL if one is set.

    The token is the same each time the step is tried, so a submission that was repeated
    can be answered by either.
    """

    token: str
    url: str | None = None


def succeed(token: str, data: Any = None) -> None:
    """Answer a callback with data, or raise ``CallbackClosed`` if it is closed."""
    runtime().answer_callback(token, data=data, error=None)


def fail(token: str, message: str = "", *, error_type: str = "CallbackFailed") -> None:
    """Answer a callback with a failure; raise ``CallbackClosed`` when nobody waits."""
    error = {"type": error_type, "message": message}
    runtime().answer_callback(token, data=None, error=error)


def heartbeat(token: str) -> None:
    """Say that the work goes on; raise ``CallbackClosed`` when nobody waits for it."""
    runtime().callback_heartbeat(token)
