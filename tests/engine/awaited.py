"""Bodies and steps for ``async def`` functions."""

from __future__ import annotations

import asyncio

from durable_jobs import durable
from tests.engine.failures import Refused


def fail() -> None:
    """Raise an error, as a body."""
    raise Refused("no")


async def soon(value):
    """Yield to other tasks, then return, as a body."""
    await asyncio.sleep(0)
    return value


@durable.step
async def triple(number: int) -> int:
    """Call a decorated step from a run."""
    return number * 3
