"""``parallel`` and ``map`` in ``async def`` functions, and their failures."""

from __future__ import annotations

import asyncio
import functools
import signal

import pytest

from durable_jobs import durable, failpoints
from durable_jobs.engine.recorder import Recorder
from durable_jobs.engine.suspend import DatabaseFailed
from durable_jobs.models import Step, Wait
from durable_jobs.testing import Kit
from tests.engine.awaited import fail, soon, triple
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


@pytest.mark.exact("a body whose sibling's commit fails is called again")
def test_async_branches_contain_steps(start: Start, later: Later):
    calls = []

    async def mapping(ctx):
        async def each(item):
            await ctx.step.run("begin", calls.append, item)
            await ctx.step.sleep("nap", f"{item}h")
            with ctx.step.group("g"):
                return await ctx.step.run("work", soon, item * 10)

        mapped = await ctx.step.map("m", each, [3, 1, 2])
        named = await ctx.step.parallel(
            "p",
            {
                "step": lambda: ctx.step.run("begin", soon, "a step"),
                "plain": functools.partial(soon, "plain"),
                "nested": lambda: ctx.step.map("inner", soon, [1, 2]),
                "gathered": lambda: asyncio.gather(triple(1), triple(2)),
            },
        )
        return [mapped, named]

    assert later(start(mapping), "3h").result() == [
        [30, 10, 20],
        {"step": "a step", "plain": "plain", "nested": [1, 2], "gathered": [3, 6]},
    ]
    assert sorted(calls) == [1, 2, 3]


@pytest.mark.exact("a body whose sibling's commit fails is called again")
def test_suspended_async_branches_keep_their_places(start: Start, later: Later):
    begun = []

    async def narrow(ctx):
        async def each(item):
            await ctx.step.run("begin", begun.append, item)
            await ctx.step.sleep("nap", "1h")

        await ctx.step.map("m", each, range(5), max_concurrency=2)

    run = start(narrow)
    assert sorted(begun) == [0, 1]
    run = later(run, "1h")
    assert sorted(begun) == [0, 1, 2, 3]
    assert later(run, "2h").status == "completed"
    assert sorted(begun) == [0, 1, 2, 3, 4]


def test_plain_async_branches_are_tried_again(start: Start, later: Later):
    calls: list[int] = []

    async def each(item):
        calls.append(item)
        if calls.count(item) < item:
            raise Refused
        return item

    async def mapping(ctx):
        return await ctx.step.map("m", each, [1, 2, 3])

    run = start(mapping, backoff=durable.Backoff.fixed("1m"))
    assert later(run, "2m").result() == [1, 2, 3]
    assert [calls.count(item) for item in (1, 2, 3)] == [1, 2, 3]


@pytest.mark.parametrize("race", ["sleeping", "executing"])
def test_async_losers_are_cancelled(start: Start, later: Later, race):
    ended = []

    async def racing(ctx):
        begun = asyncio.Event()

        async def forever():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        async def slow():
            if race == "sleeping":
                await ctx.step.sleep("nap", "9h")
            await ctx.step.run("hang", forever)

        async def fast():
            if race == "executing":
                await begun.wait()
            return "fast"

        first = await ctx.step.parallel(
            "race", {"slow": slow, "fast": fast}, completion=durable.First()
        )
        await ctx.step.sleep("rest", "1h")
        return first

    run = later(start(racing))
    assert Wait.objects.count() == 1
    assert run.steps.get(name="slow").status == "cancelled"
    assert later(run, "1h").result() == "fast"
    assert bool(ended) is (race == "executing")


def test_batch_error_in_an_async_function(start: Start, later: Later):
    seen = []

    async def failing(ctx):
        async def each(item):
            await ctx.step.sleep("nap", f"{item}h")
            if item == 2:
                await ctx.step.run("fail", fail, retries=0)
            return item

        try:
            await ctx.step.map("m", each, [1, 2, 3])
        except durable.ParallelError as error:
            seen.append([str(type(one)) for one in error.results])
        await ctx.step.sleep("rest", 1)

    assert later(start(failing), "3h").status == "completed"
    assert len(seen) >= 2
    assert all(one == seen[0] for one in seen)


# Failures


@pytest.mark.exact("a body whose sibling's commit fails is called again")
@pytest.mark.parametrize(("when", "times"), [("before", 1), ("body", 2), ("after", 1)])
def test_worker_death_in_a_gathered_step_repeats_that_step_only(
    start: Start, later: Later, durable_kit: Kit, when, times
):
    calls = []

    async def dying(ctx):
        async def branch(name):
            await ctx.step.run(f"first {name}", calls.append, f"first {name}")
            await ctx.step.sleep(f"nap {name}", "1m")
            await ctx.step.run(f"second {name}", calls.append, f"second {name}")

        results = await asyncio.gather(*map(branch, "abc"), return_exceptions=True)
        return len(results)

    durable_kit.crash_at("second b", when=when)
    run = later(start(dying), "1m")
    assert run.status == "running", "the worker is dead, and its lease is still valid"
    assert later(run, "61s").result() == 3
    assert calls.count("second b") == times
    assert [calls.count(f"first {name}") for name in "abc"] == [1, 1, 1]


def test_dead_worker_records_nothing_more(start: Start, later: Later, durable_kit: Kit):
    """The bodies end at the same time and would share one record."""

    async def dying(ctx):
        return await asyncio.gather(
            *(ctx.step.run(f"step {name}", soon, name) for name in "abc")
        )

    durable_kit.crash_at("step b", when="body")
    run = start(dying)
    assert not Step.objects.filter(run=run).exists()
    assert later(run, "61s").result() == ["a", "b", "c"]


def test_concurrent_ends_never_exceed_the_step_limit_of_a_run(start: Start, settings):
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_STEPS": 10}

    async def crowd(ctx):
        async def one(n):
            return await ctx.step.run(f"step {n}", soon, n)

        return await asyncio.gather(*map(one, range(30)))

    run = start(crowd)
    assert run.status == "failed"
    assert run.error["type"] == "LimitExceeded"
    assert Step.objects.filter(run=run).count() <= 10


def test_concurrent_ends_never_exceed_the_size_limit_of_a_run(start: Start, settings):
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_RUN_BYTES": 3000}

    async def crowd(ctx):
        async def one(n):
            return await ctx.step.run(f"step {n}", soon, "x" * 1000, retries=0)

        await asyncio.gather(*map(one, range(9)), return_exceptions=True)

    run = start(crowd)
    kept = Step.objects.filter(run=run, status="completed")
    assert kept.count() == 2


def test_exception_between_two_plans_ends_the_attempt(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    """As the signal that makes a worker leave at once."""

    def leave(signum, frame):
        raise SystemExit(signum)

    def strike(recorder, writes):
        signal.raise_signal(signal.SIGTERM)

    async def gathering(ctx):
        return await asyncio.gather(ctx.step.run("a", soon, 1), triple(2))

    monkeypatch.setattr(Recorder, "record_together", strike)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit):
            start(gathering)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.exact("which records are made together is counted")
def test_recorded_step_is_not_recorded_again_when_another_fails(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    recorded, record = [], Recorder.record_together

    def counted(recorder, writes):
        recorded.extend(step_record.name for step_record, _ in writes)
        return record(recorder, writes)

    def fail(name, detail):
        if (name, detail) == ("step.after", "a"):
            raise DatabaseFailed

    async def gathering(ctx):
        await asyncio.gather(ctx.step.run("a", soon, 1), ctx.step.run("b", soon, 2))

    monkeypatch.setattr(Recorder, "record_together", counted)
    with failpoints.watching(fail):
        start(gathering)
    assert recorded == ["a", "b"]


def test_cancelled_run_stops_at_once(start: Start):
    calls = []

    async def cancelling(ctx):
        async def branch():
            await ctx.step.run("cancel", lambda: ctx.run.cancel(reason="no"))
            await ctx.step.run("work", calls.append, 1)

        await asyncio.gather(branch(), branch(), return_exceptions=True)
        calls.append("went on")

    run = start(cancelling)
    assert (run.status, run.reason) == ("cancelled", "no")
    assert not calls


def test_diverging_async_function_pauses_its_run(start: Start, later: Later):
    changed: list[bool] = []

    async def diverging(ctx):
        step = ctx.step.sleep("x", 1) if changed else ctx.step.run("x", soon, 1)
        await asyncio.gather(step, ctx.step.sleep("nap", "1h"))

    run = start(diverging)
    changed.append(True)
    assert later(run, "1h").status == "paused"
