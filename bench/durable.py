"""The measured durable functions, one for each shape of work."""

from __future__ import annotations

import asyncio
import time

from bench.marks import body, leave
from durable_jobs import durable


@durable.function(id="bench.steps", on=durable.Event("bench/steps"))
def steps(ctx: durable.Context) -> int:
    """Run steps with empty bodies."""
    data = ctx.event.data
    for number in range(data["steps"]):
        ctx.step.run(f"step {number}", body, data["run"], number)
    return int(data["steps"])


@durable.function(id="bench.sleep", on=durable.Event("bench/sleep"))
def sleep(ctx: durable.Context) -> None:
    """Sleep between two steps."""
    data = ctx.event.data
    ctx.step.run("before", body, data["run"], 0)
    ctx.step.sleep("sleep", data["seconds"])
    ctx.step.run("after", body, data["run"], 1)


@durable.function(id="bench.other", queue="other")
def other(ctx: durable.Context) -> int:
    """Run a step with an empty body on a separate queue."""
    return ctx.step.run("step 0", body, ctx.event.data["run"], 0)


@durable.function(id="bench.fan", on=durable.Event("bench/fan"))
async def fan(ctx: durable.AsyncContext) -> int:
    """Run many async steps in parallel, between two other steps."""
    data = ctx.event.data
    run, ms = data["run"], data["ms"]

    async def nap(number: int) -> int:
        began = time.monotonic()
        await asyncio.sleep(ms / 1000)
        leave(run, number, began, time.monotonic())
        return number

    await ctx.step.run("before", body, run, 0)
    done = await ctx.step.map("fan", nap, range(1, data["branches"] + 1))
    await ctx.step.run("after", body, run, data["branches"] + 1)
    return len(done)


def nap(run: int, number: int, ms: int) -> int:
    """Block for ``ms`` milliseconds, like a call to a remote service."""
    began = time.monotonic()
    time.sleep(ms / 1000)
    leave(run, number, began, time.monotonic())
    return number


@durable.function(id="bench.threads", on=durable.Event("bench/threads"))
def threads(ctx: durable.Context) -> int:
    """Run many blocking steps in parallel, each in a thread."""
    data = ctx.event.data
    run, ms = data["run"], data["ms"]
    ctx.step.run("before", body, run, 0)
    branches = range(1, data["branches"] + 1)
    done = ctx.step.map("fan", lambda number: nap(run, number, ms), branches)
    ctx.step.run("after", body, run, data["branches"] + 1)
    return len(done)


@durable.function(id="bench.long", on=durable.Event("bench/long"))
def long(ctx: durable.Context) -> None:
    """Run many steps, sleep, and run one more step."""
    data = ctx.event.data
    for number in range(data["steps"]):
        ctx.step.run(f"step {number}", body, data["run"], number)
    ctx.step.sleep("sleep", data["seconds"])
    ctx.step.run("after", body, data["run"], data["steps"])


@durable.function(id="bench.wait", on=durable.Event("bench/wait"))
def wait(ctx: durable.Context) -> None:
    """Wait for an event between two steps."""
    run = ctx.event.data["run"]
    ctx.step.run("before", body, run, 0)
    ctx.step.wait_for_event("answer", "bench/answer", match="data.run")
    ctx.step.run("after", body, run, 1)


FUNCTIONS = {
    "steps": steps,
    "sleep": sleep,
    "fan": fan,
    "threads": threads,
    "long": long,
    "wait": wait,
    "other": other,
}
