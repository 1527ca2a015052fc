"""Functions for the chaos test; each function returns its number."""

from __future__ import annotations

import asyncio
import random

from durable_jobs import durable
from tests.lab.effects import add, draw, effect, pause, slow

BACKOFF = durable.Backoff.fixed("200ms")
#: More retries than a run can use: a fault in a body counts as one attempt.
RETRIES = 20


def account(number: int) -> str:
    """Return the account that a run books on. Several accounts reduce lock waits."""
    return f"account {number % 8}"


def length() -> float:
    """Return how long a body takes: long enough to be frozen, killed and cut off."""
    return random.uniform(0.05, 0.3)  # noqa: S311  # no secret


def fails_at_times(run_id: str, label: str) -> str:
    """Fail in one of three attempts."""
    effect(run_id, label)
    pause(length())
    if random.random() < 0.3:  # noqa: S311  # no secret
        raise ValueError(label)
    return label


async def aslow(run_id: str, label: str) -> str:
    """Take a while, as a coroutine."""
    await asyncio.to_thread(effect, run_id, label)
    await asyncio.sleep(length())
    return label


@durable.function(id="chaos.steps", retries=RETRIES, backoff=BACKOFF)
def steps(ctx: durable.Context) -> dict[str, object]:
    """Execute steps, book, sleep, and continue."""
    number, drawn = ctx.event.data["n"], {}
    for name in ("first", "second", "third"):
        drawn[name] = ctx.step.run(name, draw, ctx.run_id, name, length())
        ctx.step.atomic(f"book after {name}", add, account(number), 1, length() / 3)
        ctx.step.sleep(f"nap after {name}", length())
    return {"n": number, "drawn": drawn}


@durable.function(id="chaos.flaky", retries=RETRIES, backoff=BACKOFF)
def flaky(ctx: durable.Context) -> int:
    """Execute steps that fail sometimes."""
    for part in range(3):
        ctx.step.run(f"try {part}", fails_at_times, ctx.run_id, f"try {part}")
    ctx.step.atomic("book", add, account(ctx.event.data["n"]), 3)
    return int(ctx.event.data["n"])


@durable.function(id="chaos.branches", retries=RETRIES, backoff=BACKOFF)
def branches(ctx: durable.Context) -> int:
    """Execute parallel branches, each with its own steps."""
    number = ctx.event.data["n"]

    def branch(part: int) -> str:
        ctx.step.run(f"branch {part}", slow, ctx.run_id, f"branch {part}", length())
        ctx.step.sleep(f"rest {part}", length())
        ctx.step.atomic(f"book {part}", add, account(number), 1)
        return str(ctx.step.run(f"end {part}", slow, ctx.run_id, f"end {part}"))

    ends = ctx.step.map("all", branch, [0, 1, 2])
    if ends != ["end 0", "end 1", "end 2"]:
        raise durable.NonRetriableError(f"The branches gave {ends}.")
    return int(number)


@durable.function(id="chaos.waits", retries=RETRIES, backoff=BACKOFF)
def waits(ctx: durable.Context) -> int:
    """Wait for an event that names this run; the event may be earlier than the wait."""
    ctx.step.run("before", slow, ctx.run_id, "before", length())
    event = ctx.step.wait_for_event("go", "chaos/go", match="data.n", since="run")
    ctx.step.atomic("book", add, account(event.data["n"]), 1)
    return int(event.data["n"])


@durable.function(id="chaos.child", retries=RETRIES, backoff=BACKOFF)
def child(ctx: durable.Context) -> int:
    """Do a part for a parent."""
    ctx.step.run("help", slow, ctx.run_id, "help", length())
    ctx.step.atomic("book", add, account(ctx.event.data["n"]), 1)
    return int(ctx.event.data["n"])


@durable.function(id="chaos.family", retries=RETRIES, backoff=BACKOFF)
def family(ctx: durable.Context) -> int:
    """Invoke two children."""
    given = [ctx.step.invoke(f"part {n}", child, ctx.event.data) for n in range(2)]
    ctx.step.run("after", slow, ctx.run_id, "after", length())
    return int(sum(given) / 2)


@durable.function(id="chaos.awaited", retries=RETRIES, backoff=BACKOFF)
async def awaited(ctx: durable.Context) -> int:
    """Execute steps concurrently in an event loop."""
    await asyncio.gather(
        ctx.step.run("left", aslow, ctx.run_id, "left"),
        ctx.step.run("right", aslow, ctx.run_id, "right"),
    )
    await ctx.step.sleep("nap", length())
    await ctx.step.run("last", aslow, ctx.run_id, "last")
    return int(ctx.event.data["n"])


ALL = (steps, flaky, branches, waits, family, awaited)
