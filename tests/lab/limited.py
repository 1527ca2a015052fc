"""Functions with limits, for real workers; they record how long their steps took."""

from __future__ import annotations

import os
import threading
from datetime import timedelta

from django.db.models.functions import Now

from durable_jobs import durable
from tests.lab.effects import effect
from tests.lab.models import Spell


def spell(run_id: str, key: str, seconds: float) -> None:
    """Take a while, and record begin and end by the database's clock."""
    begun = Spell.objects.create(run=run_id, key=key, began=Now())
    threading.Event().wait(seconds)
    Spell.objects.filter(pk=begun.pk).update(ended=Now())


def _spells(ctx: durable.Context) -> None:
    data = ctx.event.data
    for number in range(data.get("steps", 2)):
        args = (ctx.run_id, data["key"], data.get("seconds", 0.02))
        ctx.step.run(f"spell {number}", spell, *args)


@durable.function(
    id="lab.hot_steps",
    retries=0,
    concurrency=durable.Concurrency(3, key="event.data.key", of="steps"),
)
def hot_steps(ctx: durable.Context) -> None:
    """Execute two spells with a sleep between them, three at a time for each key."""
    _spells(ctx)
    ctx.step.sleep("nap", timedelta(milliseconds=1))
    _spells(ctx)


@durable.function(
    id="lab.hot_runs",
    retries=0,
    concurrency=[
        durable.Concurrency(2, key="event.data.key", of="runs"),
        durable.Concurrency(5, of="runs"),
    ],
)
def hot_runs(ctx: durable.Context) -> None:
    """Execute spells, two runs at a time for each key and five in all."""
    _spells(ctx)


@durable.function(id="lab.ordered", retries=0, ordering="event.data.key")
def ordered(ctx: durable.Context) -> None:
    """Execute a spell, one after the other for each key."""
    ctx.step.run("n", effect, ctx.run_id, f"{ctx.event.data['n']}")
    _spells(ctx)


@durable.function(
    id="lab.limited",
    on=durable.Event("lab/limited"),
    retries=0,
    rate_limit=durable.RateLimit(10, "1h"),
)
def limited(ctx: durable.Context) -> None:
    """Record that the run was accepted."""
    ctx.step.run("in", effect, ctx.run_id, "in")


@durable.function(
    id="lab.single_skip",
    on=durable.Event("lab/single"),
    retries=0,
    singleton=durable.Singleton(),
)
def single_skip(ctx: durable.Context) -> None:
    """Execute a spell; other runs are skipped until it ends."""
    _spells(ctx)


@durable.function(
    id="lab.single_cancel",
    on=durable.Event("lab/single"),
    retries=0,
    singleton=durable.Singleton(mode="cancel"),
)
def single_cancel(ctx: durable.Context) -> None:
    """Execute a spell, until another run replaces this one."""
    _spells(ctx)


@durable.function(
    id="lab.single_queue",
    on=durable.Event("lab/single"),
    retries=0,
    singleton=durable.Singleton(mode="queue"),
)
def single_queue(ctx: durable.Context) -> None:
    """Execute a spell, one after the other."""
    _spells(ctx)


@durable.function(
    id="lab.limited_since",
    retries=0,
    concurrency=durable.Concurrency(2, key="event.data.key", of="runs")
    if os.environ.get("LAB_RELEASE") == "2"
    else None,
)
def limited_since(ctx: durable.Context) -> None:
    """Execute a spell, two runs at a time for each key since the second release."""
    _spells(ctx)


ALL = [hot_steps, hot_runs, ordered, limited, single_skip, single_cancel, single_queue]
