"""Detect callables that return an awaitable: a lambda, a partial, an object.

An ``async def`` function awaits the result. For a ``def`` function it is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

from asgiref.sync import iscoroutinefunction

from durable_jobs.control_flow import reraise_control
from durable_jobs.engine.effects import BodyOutcome
from durable_jobs.exceptions import ConfigurationError


def is_async(fn: Any) -> bool:
    """Return whether a callable, or the class of an object, is declared ``async``."""
    return iscoroutinefunction(fn) or iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004  # a class that defines __call__
    )


def is_awaitable(outcome: BodyOutcome) -> bool:
    """Return whether a call returned an awaitable."""
    return outcome.error is None and isinstance(outcome.value, Awaitable)


def reject_awaitable(outcome: BodyOutcome, what: str) -> BodyOutcome:
    """Return the outcome, or an error if it is an awaitable. ``what`` was called."""
    if not is_awaitable(outcome):
        return outcome
    return BodyOutcome(error=awaitable_error(outcome.value, what))


def awaitable_error(value: Any, what: str) -> ConfigurationError:
    """Return the error for an awaitable, and close the awaitable."""
    if inspect.iscoroutine(value):
        try:
            value.close()
        except BaseException as failure:  # noqa: BLE001  # close() runs code of the coroutine
            reraise_control(failure)
    return ConfigurationError(
        f"{what} returned an awaitable ({type(value).__qualname__}). Expected a value: "
        f"a def function cannot await. Declare the function with async def, or pass "
        f"an async def function itself."
    )
