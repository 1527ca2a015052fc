"""The service that Restate's server calls, as an ASGI application for Hypercorn."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Any

import restate

from bench.marks import body, leave

bench = restate.Service("bench")


@bench.handler()
async def steps(ctx: restate.Context, data: Any) -> int:
    """Run steps with empty bodies."""
    for index in range(data["steps"]):
        await ctx.run_typed(f"step {index}", partial(body, data["run"], index))
    return int(data["steps"])


@bench.handler()
async def sleep(ctx: restate.Context, data: Any) -> None:
    """Sleep between two steps."""
    await ctx.run_typed("before", partial(body, data["run"], 0))
    await ctx.sleep(timedelta(seconds=data["seconds"]))
    await ctx.run_typed("after", partial(body, data["run"], 1))


@bench.handler()
async def fan(ctx: restate.Context, data: Any) -> None:
    """Run many async steps in parallel, between two other steps."""

    async def nap(step: int) -> int:
        began = time.monotonic()
        await asyncio.sleep(data["ms"] / 1000)
        leave(data["run"], step, began, time.monotonic())
        return step

    last = data["branches"] + 1
    await ctx.run_typed("before", partial(body, data["run"], 0))
    branches = [ctx.run_typed(f"{i}", partial(nap, i)) for i in range(1, last)]
    await restate.gather(*branches)
    await ctx.run_typed("after", partial(body, data["run"], last))


@bench.handler()
async def long(ctx: restate.Context, data: Any) -> None:
    """Run many steps, sleep, and run one more step."""
    for index in range(data["steps"]):
        await ctx.run_typed(f"step {index}", partial(body, data["run"], index))
    await ctx.sleep(timedelta(seconds=data["seconds"]))
    await ctx.run_typed("after", partial(body, data["run"], data["steps"]))


app = restate.app([bench])
