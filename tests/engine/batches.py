"""Batches in which some items fail, and their results as JSON."""

from __future__ import annotations

from typing import Any

from durable_jobs import durable
from tests.engine.failures import Refused


def told(results: Any) -> Any:
    """Return results as JSON: an error as its class and message."""
    if isinstance(results, dict):
        return {name: told(one) for name, one in results.items()}
    if isinstance(results, list):
        return [told(one) for one in results]
    if isinstance(results, durable.StepFailed):
        return [type(results).__name__, results.error_type, results.message]
    return type(results).__name__ if isinstance(results, Exception) else results


def refusing(ctx, *bad: int, after: Any = None):
    """Return a function that fails once for some items."""

    def check(item):
        if item in bad:
            raise Refused(f"not {item}")
        return item * 10

    def each(item):
        if after is not None:
            ctx.step.sleep("nap", after(item))
        return ctx.step.run("check", check, item, retries=0)

    return each
