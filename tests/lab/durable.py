"""The lab's functions. ``LAB_KILL=after:two@1`` kills the worker at a step."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

from django.db.models import F
from django.db.models.functions import Now

from durable_jobs import durable
from durable_jobs.engine import failpoints
from tests.lab.models import Account, Effect, Gate, Spell

GATE_SECONDS = 60


def effect(run_id: str, label: str) -> str:
    """Write down that a body did something."""
    Effect.objects.create(run=run_id, label=label, pid=os.getpid())
    return label


def held(run_id: str, gate: str) -> str:
    """Say that the body began, and go on when the gate opens."""
    effect(run_id, f"{gate}:begin")
    pause = threading.Event()
    for _ in range(GATE_SECONDS * 50):
        if Gate.objects.filter(name=gate).exists():
            return effect(run_id, f"{gate}:end")
        pause.wait(0.02)
    raise TimeoutError(gate)


def add(name: str, amount: int) -> int:
    """Change a balance, as an ORM write that must happen once."""
    Account.objects.filter(name=name).update(balance=F("balance") + amount)
    return Account.objects.get(name=name).balance


@durable.function(retries=0)
def five_steps(ctx: durable.Context) -> list[str]:
    """Take five steps."""
    names = ["one", "two", "three", "four", "five"]
    return [ctx.step.run(name, effect, ctx.run_id, name) for name in names]


@durable.function(retries=0)
def gated(ctx: durable.Context) -> str:
    """Take a step, stop at a gate inside the next, and book what came of it."""
    ctx.step.run("one", effect, ctx.run_id, "one")
    ctx.step.run("gate", held, ctx.run_id, ctx.event.data["gate"])
    ctx.step.atomic("book", add, "ledger", 1)
    ctx.step.run("last", effect, ctx.run_id, "last")
    return "done"


@durable.function(retries=0)
def sleeper(ctx: durable.Context) -> str:
    """Sleep between two steps."""
    ctx.step.run("before", effect, ctx.run_id, "before")
    ctx.step.sleep("nap", timedelta(seconds=ctx.event.data.get("seconds", 2)))
    ctx.step.run("after", effect, ctx.run_id, "after")
    return "rested"


@durable.function(retries=0)
def booker(ctx: durable.Context) -> int:
    """Book five times, each in a transaction with its record."""
    for number in range(5):
        ctx.step.atomic(f"book {number}", add, "ledger", 1)
    return 5


@durable.function(on=durable.Event("lab/ping"), retries=0)
def pinged(ctx: durable.Context) -> str:
    """Answer an event."""
    ctx.step.run("ping", effect, ctx.run_id, "ping")
    return "pong"


@durable.function(retries=0)
def endless(ctx: durable.Context) -> int:
    """Take many short steps."""
    for number in range(400):
        ctx.step.run(f"step {number}", effect, ctx.run_id, f"step {number}")
    return 400


@durable.function(retries=0)
def waiter(ctx: durable.Context) -> str | None:
    """Wait for an event that names this run."""
    event = ctx.step.wait_for_event("go", "lab/go", match="data.key", timeout="5m")
    return None if event is None else str(event.data["from"])


def spell(run_id: str, key: str, seconds: float) -> None:
    """Take a while, and write down when it began and ended, by the database's clock."""
    begun = Spell.objects.create(run=run_id, key=key, began=Now())
    threading.Event().wait(seconds)
    Spell.objects.filter(pk=begun.pk).update(ended=Now())


def _spells(ctx: durable.Context) -> None:
    data = ctx.event.data
    for number in range(data.get("steps", 2)):
        args = (ctx.run_id, data["key"], data.get("seconds", 0.02))
        ctx.step.run(f"spell {number}", spell, *args)


@durable.function(
    retries=0, concurrency=durable.Concurrency(3, key="event.data.key", of="steps")
)
def hot_steps(ctx: durable.Context) -> None:
    """Take two spells with a nap between them, three at a time for each key."""
    _spells(ctx)
    ctx.step.sleep("nap", timedelta(milliseconds=1))
    _spells(ctx)


@durable.function(
    retries=0,
    concurrency=[
        durable.Concurrency(2, key="event.data.key", of="runs"),
        durable.Concurrency(5, of="runs"),
    ],
)
def hot_runs(ctx: durable.Context) -> None:
    """Take spells, two runs at a time for each key and five in all."""
    _spells(ctx)


@durable.function(retries=0, ordering="event.data.key")
def ordered(ctx: durable.Context) -> None:
    """Take a spell, one after the other for each key."""
    ctx.step.run("n", effect, ctx.run_id, f"{ctx.event.data['n']}")
    _spells(ctx)


@durable.function(
    on=durable.Event("lab/limited"), retries=0, rate_limit=durable.RateLimit(10, "1h")
)
def limited(ctx: durable.Context) -> None:
    """Note that it was let in."""
    ctx.step.run("in", effect, ctx.run_id, "in")


@durable.function(
    on=durable.Event("lab/single"), retries=0, singleton=durable.Singleton()
)
def single_skip(ctx: durable.Context) -> None:
    """Take a spell; meanwhile others are skipped."""
    _spells(ctx)


@durable.function(
    on=durable.Event("lab/single"),
    retries=0,
    singleton=durable.Singleton(mode="cancel"),
)
def single_cancel(ctx: durable.Context) -> None:
    """Take a spell, until another one takes the place."""
    _spells(ctx)


@durable.function(
    on=durable.Event("lab/single"), retries=0, singleton=durable.Singleton(mode="queue")
)
def single_queue(ctx: durable.Context) -> None:
    """Take a spell, one after the other."""
    _spells(ctx)


def _kill_at(place: str, step: str, hit: int) -> None:
    seen = 0

    def hook(at: str, name: str) -> None:
        nonlocal seen
        if (at, name) == (place, step):
            seen += 1
            if seen == hit:
                os.kill(os.getpid(), signal.SIGKILL)

    failpoints.watch(hook)


if "LAB_KILL" in os.environ:
    _place, _, _rest = os.environ["LAB_KILL"].partition(":")
    _step, _, _hit = _rest.partition("@")
    _kill_at(_place, _step, int(_hit or 1))
