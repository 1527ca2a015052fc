"""Functions with flow control, one for each kind of limit."""

from __future__ import annotations

from durable_jobs import durable
from tests.crash.exhaustive.cases import flow_case
from tests.crash.exhaustive.world import Action, World


@flow_case
def concurrency(world: World) -> list[Action]:
    """Two runs share one slot and sleep between their steps."""

    @durable.function(
        id="narrow", on=durable.Event("crash/narrow"), retries=0, concurrency=1
    )
    def narrow(ctx):
        label = f"work {ctx.event.data['n']}"
        ctx.step.run(label, world.effect, ctx, label)
        ctx.step.sleep("nap", "10m")
        return ctx.step.atomic("book", world.book, 0)

    sent = [world.send("crash/narrow", {"n": n}, id=f"n{n}") for n in range(2)]
    return [*sent, world.wait("1h")]


@flow_case
def ordering(world: World) -> list[Action]:
    """Two runs of one key; the first fails once on its way."""

    @durable.function(
        id="ordered",
        on=durable.Event("crash/ordered"),
        retries=1,
        ordering=lambda event: event.data["key"],
    )
    def ordered(ctx):
        def book():
            if ctx.attempt == 0 and ctx.event.data["n"] == 0:
                raise ValueError("not yet")
            return world.book(2) if ctx.event.data["n"] else world.book(5)

        return ctx.step.atomic("book", book)

    sent = [world.send("crash/ordered", {"key": 1, "n": n}, f"o{n}") for n in (0, 1)]
    return [*sent, world.wait("1h")]


@flow_case
def throttle(world: World) -> list[Action]:
    """Two starts, ten minutes apart."""

    @durable.function(
        id="slowly",
        on=durable.Event("crash/slowly"),
        retries=0,
        throttle=durable.Throttle(6, per="1h"),
    )
    def slowly(ctx):
        return ctx.step.atomic("book", world.book, 1)

    sent = [world.send("crash/slowly", {"n": n}, id=f"t{n}") for n in range(2)]
    return [*sent, world.wait("1h")]


@flow_case
def rate_limit(world: World) -> list[Action]:
    """Three events, of which two may start a run."""

    @durable.function(
        id="rated",
        on=durable.Event("crash/rated"),
        retries=0,
        rate_limit=durable.RateLimit(2, per="30d"),
    )
    def rated(ctx):
        return ctx.step.atomic("book", world.book, 1)

    return [world.send("crash/rated", {"n": n}, id=f"r{n}") for n in range(3)]


@flow_case
def debounce(world: World) -> list[Action]:
    """Debounce: two events become one run that has both."""

    @durable.function(
        id="settled",
        on=durable.Event("crash/settled"),
        retries=0,
        debounce=durable.Debounce("1d", collect=True),
    )
    def settled(ctx):
        found = [event.data["n"] for event in ctx.events]
        ctx.step.atomic("book", world.book, len(found))
        return found

    sent = [world.send("crash/settled", {"n": n}, id=f"d{n}") for n in range(2)]
    return [*sent, world.wait("2d")]


@flow_case
def batch(world: World) -> list[Action]:
    """A batch of two and a batch of one; one event is returned once."""

    @durable.function(
        id="batched",
        on=durable.Event("crash/batched"),
        retries=1,
        batch=durable.Batch(2, timeout="1d"),
    )
    def batched(ctx):
        found = [event.data["n"] for event in ctx.events]
        ctx.step.atomic("book", world.book, len(found))
        first = [event.id for event in ctx.events if event.data["n"] == 0]
        return durable.BatchFailures(first) if len(found) > 1 else found

    sent = [world.send("crash/batched", {"n": n}, id=f"b{n}") for n in range(3)]
    return [*sent, world.wait("2d")]


@flow_case
def singleton(world: World) -> list[Action]:
    """The second run is skipped while the first one sleeps."""

    @durable.function(
        id="only",
        on=durable.Event("crash/only"),
        retries=0,
        singleton=durable.Singleton(),
    )
    def only(ctx):
        ctx.step.sleep("nap", "30d")
        return ctx.step.atomic("book", world.book, 1)

    sent = [world.send("crash/only", {"n": n}, id=f"s{n}") for n in range(2)]
    return [*sent, world.wait("31d")]


@flow_case
def singleton_that_cancels(world: World) -> list[Action]:
    """The second run cancels the first and replaces it."""

    @durable.function(
        id="latest",
        on=durable.Event("crash/latest"),
        retries=0,
        singleton=durable.Singleton(mode="cancel"),
    )
    def latest(ctx):
        ctx.step.sleep("nap", "30d")
        return ctx.step.atomic("book", world.book, ctx.event.data["n"])

    sent = [world.send("crash/latest", {"n": n}, id=f"l{n}") for n in (1, 10)]
    return [*sent, world.wait("31d")]
