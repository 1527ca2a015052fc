"""Accepted data can be stored wherever the engine puts it."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


#: The greatest depth that a sender may use: a dict around 99 lists.
DEEPEST = {"deep": deep(99)}


def test_sender_is_limited_to_the_documented_depth(durable_kit: Kit) -> None:
    durable_kit.send("a/come", DEEPEST)
    with pytest.raises(durable.PayloadError, match="nested deeper than 100 levels"):
        durable_kit.send("a/come", {"deep": deep(100)})


def test_wait_takes_the_deepest_event(durable_kit: Kit) -> None:
    waits = durable.function(id="waits")(
        lambda ctx: ctx.step.wait_for_event("w", "a/come").data == DEEPEST
    )
    run = waits.enqueue()
    durable_kit.run_until_idle()
    durable_kit.send("a/come", DEEPEST)
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True


@pytest.mark.parametrize("since", [None, "run"])
def test_wait_among_several_accepts_the_deepest_event(
    durable_kit: Kit, since: Any
) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        ctx.step.sleep("nap", "1m")
        wait = durable.EventWait("a/come", since=since)
        return ctx.step.wait_for_any("w", {"come": wait})[1].data == DEEPEST

    run = waits.enqueue()
    durable_kit.run_until_idle()
    if since:
        durable_kit.send("a/come", DEEPEST)
    durable_kit.advance("2m")
    if not since:
        durable_kit.send("a/come", DEEPEST)
        durable_kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True


def test_condition_sees_the_deepest_event(durable_kit: Kit) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        found = ctx.step.wait_for_event("w", "a/come", if_="has(async.data.deep)")
        return found.data == DEEPEST

    run = waits.enqueue()
    durable_kit.run_until_idle()
    durable_kit.send("a/come", DEEPEST)
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True


def test_signal_takes_the_deepest_data(durable_kit: Kit) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        found = ctx.step.wait_for_any("w", {"come": durable.SignalWait("come")})
        return found == ("come", DEEPEST)

    run = waits.enqueue()
    durable_kit.run_until_idle()
    durable.signal("come", DEEPEST)
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True


def test_handlers_of_handlers_take_the_deepest_data(durable_kit: Kit) -> None:
    seen = []
    last = durable.function(id="last")(lambda ctx: seen.append(ctx.event.data))

    @durable.function(id="first", on_complete=last)
    def first(ctx):
        return None

    @durable.function(id="works", on_complete=first)
    def works(ctx):
        return None

    works.enqueue(DEEPEST)
    durable_kit.run_until_idle()
    assert seen[0]["event"]["data"]["event"]["data"] == DEEPEST
