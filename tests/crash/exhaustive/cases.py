"""The functions under test. Each case is a declaration and the actions of its client.

To add a case, write a function below ``CASES``. It declares what it needs in the
world's registry and returns the client's actions in order. The world is idle between
two actions. Bodies have their effects through ``world.effect``, named as their step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from durable_jobs import durable
from durable_jobs.models import Run
from tests.crash.exhaustive.world import Action, World
from tests.lab.models import Account

Case = Callable[[World], list[Action]]

CASES: dict[str, Case] = {}


def case(build: Case) -> Case:
    """Add a function to the collection."""
    CASES[build.__name__] = build
    return build


#: Cases tested only at the failpoints of flow control, unless EXHAUSTIVE=all.
FLOW: set[str] = set()


def flow_case(build: Case) -> Case:
    """Add a function that tests flow control."""
    FLOW.add(build.__name__)
    return case(build)


#: Their bodies end in threads: two may share one record, so hit counts vary.
VARYING: set[str] = set()


def varying_case(build: Case) -> Case:
    """Add a function whose number of hits varies between runs."""
    VARYING.add(build.__name__)
    return case(build)


def ledger() -> Account:
    """Return the account that functions change and wait for."""
    return Account.objects.get(name="ledger")


# Steps


@case
def linear(world: World) -> list[Action]:
    """Three steps in sequence."""

    @durable.function(id="linear", retries=0)
    def linear(ctx):
        return [ctx.step.run(name, world.effect, ctx, name) for name in "abc"]

    return [world.enqueue(linear)]


@case
def started_by_an_event(world: World) -> list[Action]:
    """Two functions triggered by the same event."""

    def listener(name: str) -> None:
        @durable.function(id=name, on=durable.Event("crash/begun"), retries=0)
        def listening(ctx):
            return ctx.step.run(name, world.effect, ctx, name)

    listener("one")
    listener("two")
    return [world.send("crash/begun", {"n": 1})]


@case
def retry(world: World) -> list[Action]:
    """A step that fails twice, and a step that fails for good."""

    @durable.function(id="retry", retries=2)
    def retry(ctx):
        def flaky():
            world.effect(ctx, "flaky")
            if ctx.attempt < 2:
                raise ValueError("not yet")
            return "at last"

        def hopeless():
            raise durable.NonRetriableError("never")

        given = ctx.step.run("flaky", flaky)
        try:
            ctx.step.run("hopeless", hopeless)
        except durable.StepFailed:
            return given
        raise AssertionError("it must fail")

    return [world.enqueue(retry), world.wait("2h")]


@case
def function_retry(world: World) -> list[Action]:
    """A function that fails between two steps and is retried."""

    @durable.function(id="again", retries=2)
    def again(ctx):
        first = ctx.step.run("first", world.effect, ctx, "first")
        if ctx.attempt == 0:
            raise ValueError("not yet")
        return [first, ctx.step.run("second", world.effect, ctx, "second")]

    return [world.enqueue(again), world.wait("2h")]


@case
def at_most_once(world: World) -> list[Action]:
    """An at-most-once step: a crash interrupts it, so two outcomes are valid."""
    world.either = {"once"}

    @durable.function(id="careful", retries=0)
    def careful(ctx):
        with suppress(durable.StepInterrupted):
            ctx.step.run("once", world.effect, ctx, "once", at_most_once=True)
        if world.effects["once"] > 1:
            raise AssertionError("it was repeated")
        return ctx.step.run("after", world.effect, ctx, "after")

    return [world.enqueue(careful)]


@case
def atomic(world: World) -> list[Action]:
    """The project's own writes, in the transaction of the record."""

    @durable.function(id="booker", retries=0)
    def booker(ctx):
        return [ctx.step.atomic(f"book {n}", world.book, n) for n in (1, 10)]

    return [world.enqueue(booker)]


@case
def atomic_in_async(world: World) -> list[Action]:
    """Atomic steps in an ``async def`` function."""

    @durable.function(id="abooker", retries=0)
    async def abooker(ctx):
        return [await ctx.step.atomic(f"book {n}", world.book, n) for n in (1, 10)]

    return [world.enqueue(abooker)]


@case
def atomic_retry(world: World) -> list[Action]:
    """A transaction that is rolled back and retried."""

    @durable.function(id="rebooker", retries=1)
    def rebooker(ctx):
        def book():
            world.book(5)
            if ctx.attempt == 0:
                raise ValueError("not yet")
            return "booked"

        return ctx.step.atomic("book", book)

    return [world.enqueue(rebooker), world.wait("1h")]


# Other runs


@case
def invoke(world: World) -> list[Action]:
    """Invoke a function that sleeps, and one that fails."""

    @durable.function(id="child", retries=0)
    def child(ctx):
        ctx.step.sleep("nap", "10m")
        return ctx.step.run("child", world.effect, ctx, "child")

    @durable.function(id="broken", retries=0)
    def broken(ctx):
        raise ValueError("no")

    @durable.function(id="parent", retries=0)
    def parent(ctx):
        given = ctx.step.invoke("ask", child)
        try:
            ctx.step.invoke("fail", broken)
        except durable.InvokeFailed as error:
            return [given, error.error_type]
        raise AssertionError("it must fail")

    return [world.enqueue(parent), world.wait("1h")]


@case
def start_and_send(world: World) -> list[Action]:
    """Start a function, and send an event that triggers another."""

    @durable.function(id="started", retries=0)
    def started(ctx):
        return ctx.step.run("started", world.effect, ctx, "started")

    @durable.function(id="heard", on=durable.Event("crash/sent"), retries=0)
    def heard(ctx):
        return ctx.event.data["n"]

    @durable.function(id="starter", retries=0)
    def starter(ctx):
        ctx.step.start("begin", started)
        ctx.step.send_event("tell", durable.NewEvent("crash/sent", {"n": 4}))
        return "done"

    return [world.enqueue(starter)]


# Ends


@case
def on_failure(world: World) -> list[Action]:
    """A handler that starts when a run fails."""

    def handler(ctx):
        return [ctx.event.data["error"]["message"], ctx.step.atomic("b", world.book, 2)]

    @durable.function(id="failing", retries=0, on_failure=handler)
    def failing(ctx):
        ctx.step.run("a", world.effect, ctx, "a")
        raise ValueError("no")

    return [world.enqueue(failing)]


@case
def cancelled_by_an_event(world: World) -> list[Action]:
    """``cancel_on``, with a child that is cancelled too."""

    @durable.function(id="lasting", retries=0)
    def lasting(ctx):
        ctx.step.sleep("long", "30d")

    @durable.function(
        id="stopped",
        retries=0,
        cancel_on=durable.CancelOn("crash/stop", match="data.key"),
        on_cancel=lambda ctx: ctx.event.data["status"],
    )
    def stopped(ctx):
        ctx.step.run("a", world.effect, ctx, "a")
        ctx.step.invoke("child", lasting)

    return [
        world.enqueue(stopped, {"key": 1}),
        world.send("crash/stop", {"key": 1}),
    ]


@case
def cancelled_by_a_person(world: World) -> list[Action]:
    """``run.cancel()`` while the run sleeps."""

    @durable.function(id="victim", retries=0)
    def victim(ctx):
        ctx.step.run("a", world.effect, ctx, "a")
        ctx.step.sleep("long", "30d")

    def cancel() -> None:
        Run.objects.get(function="victim").cancel("enough")

    return [world.enqueue(victim), cancel]


@case
def timed_out(world: World) -> list[Action]:
    """A run that exceeds its timeout."""

    @durable.function(
        id="slow", retries=0, timeouts=durable.Timeouts(start="1d", finish="1h")
    )
    def slow(ctx):
        ctx.step.sleep("long", "30d")

    return [world.enqueue(slow), world.wait("3h")]


# People


@case
def paused_and_resumed(world: World) -> list[Action]:
    """A user pauses a sleeping run and resumes it later."""

    @durable.function(id="held", retries=0)
    def held(ctx):
        ctx.step.sleep("nap", "1h")
        return ctx.step.run("after", world.effect, ctx, "after")

    def act(action: str) -> Action:
        def acting() -> None:
            getattr(Run.objects.get(function="held"), action)()

        return acting

    return [
        world.enqueue(held),
        act("pause"),
        world.wait("2h"),
        act("resume"),
    ]


@case
def redriven(world: World) -> list[Action]:
    """A user redrives a failed run after its cause is gone."""

    @durable.function(id="needy", retries=0)
    def needy(ctx):
        ctx.step.run("a", world.effect, ctx, "a")
        return ctx.step.run("need", lambda: 10 // ledger().balance)

    def pay() -> None:
        Account.objects.update(balance=5)

    def redrive() -> None:
        Run.objects.get(function="needy").redrive()

    return [world.enqueue(needy), pay, redrive]


@case
def cron(world: World) -> list[Action]:
    """A cron that fires twice."""

    @durable.function(id="hourly", on=durable.Cron("0 * * * *", catch_up="all"))
    def hourly(ctx) -> Any:
        return ctx.step.atomic("book", world.book, 1) > 0

    return [world.wait("30m"), world.wait("2h")]
