"""Bodies and steps for ``async def`` functions."""

from __future__ import annotations

import asyncio

from durable_jobs import durable
from tests.engine.failures import Refused


def fail() -> None:
    """Be a body that refuses."""
    raise Refused("no")


async def soon(value):
    """Be a body that gives way to others before it returns."""
    await asyncio.sleep(0)
    return value


@durable.step
async def triple(number: int) -> int:
    """Be a step where it is awaited in a run."""
    return number * 3
