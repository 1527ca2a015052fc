"""Functions with parallel steps."""

from __future__ import annotations

import asyncio

from durable_jobs import durable
from tests.crash.exhaustive.cases import case, varying_case
from tests.crash.exhaustive.world import Action, World


@case
def nested_parallel(world: World) -> list[Action]:
    """Nested branches: steps, a sleep and an atomic step."""

    @durable.function(id="nested", retries=0)
    def nested(ctx):
        def inner():
            return ctx.step.parallel(
                "inner",
                {
                    "c": lambda: ctx.step.run("c", world.effect, ctx, "c"),
                    "nap": lambda: ctx.step.sleep("nap", "10m"),
                },
            )

        return ctx.step.parallel(
            "outer",
            [
                lambda: ctx.step.run("a", world.effect, ctx, "a"),
                inner,
                lambda: ctx.step.atomic("book", world.book, 3),
            ],
        )

    return [world.enqueue(nested), world.wait("1h")]


@case
def tolerant_map(world: World) -> list[Action]:
    """Three items; one fails and is tolerated."""

    @durable.function(id="tolerant", retries=0)
    def tolerant(ctx):
        def work(item: str) -> str:
            def body() -> str:
                world.effect(ctx, item)
                if item == "bad":
                    raise durable.NonRetriableError("bad")
                return item

            return str(ctx.step.run(item, body))

        return ctx.step.map(
            "each", work, ["x", "bad", "z"], completion=durable.Tolerate(failures=1)
        )

    return [world.enqueue(tolerant)]


@case
def race_with_a_loser(world: World) -> list[Action]:
    """The first branch decides; the other branch waits and is discarded."""

    @durable.function(id="race", retries=0)
    def race(ctx):
        return ctx.step.parallel(
            "race",
            [
                lambda: ctx.step.wait_for_event("late", "crash/late"),
                lambda: ctx.step.run("fast", world.effect, ctx, "fast"),
            ],
            completion=durable.First(),
        )

    return [world.enqueue(race), world.send("crash/late")]


@varying_case
def async_gather(world: World) -> list[Action]:
    """Concurrent steps of an ``async def`` function, with a sleep among them."""

    @durable.function(id="gather", retries=0)
    async def gather(ctx):
        one, two, _ = await asyncio.gather(
            ctx.step.run("one", world.effect, ctx, "one"),
            ctx.step.run("two", world.effect, ctx, "two"),
            ctx.step.sleep("nap", "5m"),
        )
        return [one, two, await ctx.step.run("three", world.effect, ctx, "three")]

    return [world.enqueue(gather), world.wait("1h")]


@case
def async_map(world: World) -> list[Action]:
    """Branches with async bodies that end at the same time and share one record."""

    @durable.function(id="mapped", retries=0)
    async def mapped(ctx):
        async def work(item: str) -> str:
            await asyncio.sleep(0)
            world.effects[item] += 1
            if item == "bad":
                raise durable.NonRetriableError("bad")
            return item

        done = await ctx.step.map(
            "each", work, ["x", "bad", "z"], completion=durable.Tolerate(failures=1)
        )
        return [done, await ctx.step.run("after", work, "after")]

    return [world.enqueue(mapped)]
