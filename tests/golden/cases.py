"""The functions whose runs are recorded: those that survive crashes, and more.

A recorded case is never changed, as a project's code would not change. A change that
runs in flight must survive is a new case. Bodies have their effects through
``world.effect``, named as their step.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from durable_jobs import durable
from durable_jobs.models import Run
from tests.crash.exhaustive import branches, flow, waits
from tests.crash.exhaustive.cases import CASES as SURVIVORS
from tests.crash.exhaustive.cases import Case, ledger
from tests.crash.exhaustive.world import Action, World

assert branches, "the import registers its functions"
assert flow, "the import registers its functions"
assert waits, "the import registers its functions"

CASES: dict[str, Case] = dict(SURVIVORS)


def case(build: Case) -> Case:
    """Add a function to the collection."""
    assert build.__name__ not in CASES, build.__name__
    CASES[build.__name__] = build
    return build


@dataclasses.dataclass(frozen=True)
class Money:
    """A class of the project."""

    amount: Decimal
    currency: str = "EUR"


VALUES: dict[str, Any] = {
    "none": None,
    "decimal": Decimal("1.50"),
    "datetime": datetime(2026, 3, 4, 12, 30, tzinfo=UTC),
    "date": date(2026, 3, 4),
    "time": time(12, 30),
    "timedelta": timedelta(days=1, seconds=2),
    "uuid": UUID(int=7),
    "bytes": b"\x00\xff",
    "tuple": (1, (2, 3)),
    "set": {1, 2, 3},
    "integer": 10**30,
    "float": 0.1,
    "keys": {1: "one", "1": "text"},
    "class": Money(Decimal("2.50")),
    "order": {"b": 1, "a": 2},
}


@case
def values(world: World) -> list[Action]:
    """Results of every type, read again after a sleep, with a model's instance."""

    @durable.function(id="valued", retries=0)
    def valued(ctx):
        for name, value in VALUES.items():
            seen = ctx.step.run(name, lambda value=value: value)
            assert (seen, type(seen)) == (value, type(value)), name
            assert list(seen) == list(value) if isinstance(value, dict) else True
        row = ctx.step.run("row", ledger)
        ctx.step.sleep("nap", "1h")
        return [row.name, ctx.event.data["price"] + VALUES["decimal"]]

    return [world.enqueue(valued, {"price": Decimal("2.25")}), world.wait("2h")]


@case
def every_kind(world: World) -> list[Action]:
    """A run with a step of each kind, which suspends at each step."""

    @durable.function(id="helper", retries=0)
    def helper(ctx):
        ctx.step.sleep("nap", "10m")
        return ctx.event.data["n"] + 1

    @durable.function(id="every", retries=3, backoff=durable.Backoff.fixed("20m"))
    def every(ctx):
        step, got = ctx.step, []
        got.append(step.run("first", world.effect, ctx, "first"))

        def flaky():
            world.effect(ctx, "flaky")
            if ctx.attempt < 2:
                raise ValueError("not yet")
            return "at last"

        got.append(step.run("flaky", flaky))
        got.append(step.atomic("book", world.book, 3))
        step.sleep("nap", "1h")
        step.sleep_until("until", datetime(2026, 3, 4, 18, tzinfo=UTC))
        got.append(step.wait_for_event("event", "gold/go", timeout="9d").data["n"])
        got.append(step.wait_for_signal("signal", "gold-signal", timeout="9d")["n"])
        got.append(step.invoke("invoked", helper, {"n": 4}))
        step.send_event("sent", durable.NewEvent("gold/sent", {"n": 1}))
        with step.group("grouped"):
            got.append(step.run("first", world.effect, ctx, "inner"))
        got += step.map("each", lambda n: step.run("times", lambda: n * 10), [1, 2])
        last = "new" if ctx.patched("after the first release") else "old"
        return [*got, step.run("last", world.effect, ctx, last)]

    return [
        world.enqueue(every),
        world.wait("20m"),
        world.wait("20m"),
        world.wait("1h"),
        world.wait("6h"),
        world.send("gold/go", {"n": 5}),
        lambda: durable.signal("gold-signal", {"n": 6}),
        world.wait("1h"),
    ]


@case
def loop_of_steps(world: World) -> list[Action]:
    """The same id repeatedly, in a loop that sleeps, and in groups."""

    @durable.function(id="looping", retries=0)
    def looping(ctx):
        total = 0
        for n in range(4):
            with ctx.step.group("round"):
                total += ctx.step.run("add", lambda n=n: n)
                ctx.step.sleep("nap", "10m")
        return total

    return [world.enqueue(looping), world.wait("15m"), world.wait("1h")]


@case
def branches_half_way(world: World) -> list[Action]:
    """Branches of which one has ended, one sleeps, one waits and one is retried."""

    @durable.function(id="halves", retries=1, backoff=durable.Backoff.fixed("30m"))
    def halves(ctx):
        def flaky():
            world.effect(ctx, "flaky")
            if ctx.attempt == 0:
                raise ValueError("not yet")
            return "flaky"

        def asleep():
            ctx.step.run("before", world.effect, ctx, "before")
            ctx.step.sleep("nap", "1h")
            return ctx.step.run("after", world.effect, ctx, "after")

        return ctx.step.parallel(
            "sides",
            {
                "done": lambda: ctx.step.run("done", world.effect, ctx, "done"),
                "asleep": asleep,
                "waits": lambda: ctx.step.wait_for_event("w", "gold/side").data["n"],
                "flaky": lambda: ctx.step.run("flaky", flaky),
            },
        )

    return [
        world.enqueue(halves),
        world.wait("31m"),
        world.send("gold/side", {"n": 2}),
        world.wait("1h"),
    ]


@case
def backlogs(world: World) -> list[Action]:
    """Five runs of two keys with one slot each, during a pause."""

    @durable.function(
        id="backlogs",
        on=durable.Event("gold/lane"),
        retries=0,
        concurrency=durable.Concurrency(1, key="event.data.key", of="runs"),
    )
    def in_backlogs(ctx):
        label = f"work {ctx.event.data['n']}"
        ctx.step.run(label, world.effect, ctx, label)
        ctx.step.sleep("nap", "10m")
        return ctx.step.atomic("book", world.book, ctx.event.data["n"]) >= 0

    sent = [
        world.send("gold/lane", {"key": n % 2, "n": n}, id=f"n{n}") for n in range(5)
    ]
    return [
        *sent,
        lambda: in_backlogs.pause(key=1, reason="look"),
        world.wait("11m"),
        lambda: in_backlogs.resume(key=1),
        world.wait("2h"),
    ]


@case
def priorities(world: World) -> list[Action]:
    """Three runs of a paused queue, of which the last goes first."""

    @durable.function(id="urgent", retries=0, priority=lambda event: event.data["p"])
    def urgent(ctx):
        ctx.step.run(f"p{ctx.event.data['p']}", world.effect, ctx, "did")
        return ctx.step.atomic("book", world.book, 1)

    def start(p: int) -> Action:
        return lambda: urgent.using(key=f"p{p}").enqueue({"p": p})

    return [
        lambda: durable.pause_queue("default", "a new database"),
        *[start(p) for p in (0, 10, 600)],
        lambda: durable.resume_queue("default"),
    ]


@case
def subjects(world: World) -> list[Action]:
    """A change of a row starts a run that is about it."""

    @durable.function(
        id="changed", on=durable.ModelChange("lab.Account", updated=True), retries=0
    )
    def changed(ctx):
        ctx.step.sleep("nap", "1h")
        return [ctx.instance.name, ctx.step.run("a", world.effect, ctx, "a")]

    def save() -> None:
        account = ledger()
        if account.balance != 5:
            account.balance = 5
            account.save()

    return [save, world.wait("2h")]


@case
def schedules_of_users(world: World) -> list[Action]:
    """A schedule with an owner, which a user pauses and resumes."""

    @durable.function(id="daily", retries=0)
    def daily(ctx):
        ctx.step.atomic("book", world.book, ctx.event.data["data"]["n"])
        return "reported"

    def create() -> None:
        if not durable.schedules.filter(owner=ledger()).exists():
            durable.schedules.create(
                daily,
                "30 9 * * *",
                tz="Europe/Berlin",
                catch_up="all",
                data={"n": 4},
                owner=ledger(),
            )

    def act(action: str) -> Action:
        return lambda: getattr(durable.schedules.filter(owner=ledger()).get(), action)()

    return [create, world.wait("1d"), act("pause"), act("resume"), world.wait("1d")]


@case
def rerun_from_a_step(world: World) -> list[Action]:
    """A rerun from the second step, with the record of the first."""

    @durable.function(id="rerun", retries=0)
    def rerun(ctx):
        first = ctx.step.run("first", world.effect, ctx, "first")
        ctx.step.sleep("nap", "1h")
        return [first, ctx.step.run("second", world.effect, ctx, "second")]

    def again() -> None:
        if Run.objects.filter(function="rerun").count() == 1:
            Run.objects.get(function="rerun").rerun(from_step="nap")

    return [world.enqueue(rerun), world.wait("2h"), again, world.wait("2h")]


@case
def delayed(world: World) -> list[Action]:
    """A delayed run, and a delayed event."""

    @durable.function(id="later", on=durable.Event("gold/later"), retries=0)
    def later(ctx):
        return ctx.step.run("a", world.effect, ctx, "a")

    def start() -> None:
        later.using(key="asked", run_after="2h").enqueue()

    return [start, world.send("gold/later"), world.wait("3h")]
