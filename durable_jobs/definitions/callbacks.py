"""Answers to ``ctx.step.wait_for_callback``: ``durable.callbacks``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durable_jobs.definitions.runtime import runtime


@dataclass(frozen=True)
class Callback:
    """A signed token for an outside system, with its URL if a base URL is set.

    The token is the same in every attempt of the step. So if a submission is repeated,
    the outside system can answer either one.
    """

    token: str
    url: str | None = None


def succeed(token: str, data: Any = None) -> None:
    """Answer a callback with data. Raise ``CallbackClosed`` if it is closed."""
    runtime().answer_callback(token, data=data, error=None)


def fail(token: str, message: str = "", *, error_type: str = "CallbackFailed") -> None:
    """Answer a callback with a failure. Raise ``CallbackClosed`` if it is closed."""
    error = {"type": error_type, "message": message}
    runtime().answer_callback(token, data=None, error=error)


def heartbeat(token: str) -> None:
    """Report that the work continues. Raise ``CallbackClosed`` if it is closed."""
    runtime().callback_heartbeat(token)
