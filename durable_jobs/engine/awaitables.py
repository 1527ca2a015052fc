"""Callables that return something to be awaited: a lambda, a partial, an object.

An ``async def`` function awaits it. A ``def`` function cannot, and refuses it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

from asgiref.sync import iscoroutinefunction

from durable_jobs.control_flow import let_pass
from durable_jobs.engine.effects import BodyOutcome
from durable_jobs.exceptions import ConfigurationError


def is_async(fn: Any) -> bool:
    """Return whether a callable, or the class of an object, is declared ``async``."""
    return iscoroutinefunction(fn) or iscoroutinefunction(
        getattr(type(fn), "__call__", None)  # noqa: B004  # its own kind is asked for
    )


def is_awaitable(outcome: BodyOutcome) -> bool:
    """Return whether a call has given something that is to be awaited."""
    return outcome.error is None and isinstance(outcome.value, Awaitable)


def refused(outcome: BodyOutcome, what: str) -> BodyOutcome:
    """Return the outcome of a call that nothing can await; ``what`` was called."""
    if not is_awaitable(outcome):
        return outcome
    return BodyOutcome(error=refusal(outcome.value, what))


def refusal(value: Any, what: str) -> ConfigurationError:
    """Return the error for an awaitable, and close it."""
    if inspect.iscoroutine(value):
        try:
            value.close()
        except BaseException as failure:  # noqa: BLE001  # it may raise where it stands
            let_pass(failure)
    return ConfigurationError(
        f"{what} returned an awaitable ({type(value).__qualname__}). Expected a value: "
        f"a def function cannot await. Declare the function with async def, or pass "
        f"an async def function itself."
    )
