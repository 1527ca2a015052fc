"""``asyncio`` over steps: gather, task groups, races and combinations."""

from __future__ import annotations

import asyncio

import pytest

from durable_jobs import durable
from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.awaited import fail, soon
from tests.engine.conftest import Later, Start


def test_gathered_steps_return_their_results_in_order(start: Start, later: Later):
    async def gathering(ctx):
        return await asyncio.gather(
            ctx.step.run("a", soon, 1),
            ctx.step.sleep("nap", "1h"),
            ctx.step.run("b", lambda: 2),
        )

    assert later(start(gathering), "1h").result() == [1, None, 2]


@pytest.mark.exact("its bodies meet, once")
def test_async_bodies_execute_at_the_same_time(start: Start):
    async def meeting(ctx):
        here = [asyncio.Event(), asyncio.Event()]

        async def meet(number):
            here[number].set()
            await here[1 - number].wait()
            return number

        return await asyncio.gather(
            ctx.step.run("a", meet, 0, timeout="30s"),
            ctx.step.run("b", meet, 1, timeout="30s"),
        )

    assert start(meeting).result() == [0, 1]


@pytest.mark.exact("its bodies meet, once")
def test_branches_of_many_steps_wait_side_by_side(
    start: Start, later: Later, durable_kit: Kit
):
    calls = []

    async def gathering(ctx):
        async def branch(hours):
            await ctx.step.run(f"before {hours}", calls.append, hours)
            await ctx.step.sleep(f"nap {hours}", f"{hours}h")
            await ctx.step.run(f"after {hours}", calls.append, -hours)
            await ctx.step.sleep(f"another nap {hours}", f"{hours}h")
            return hours

        return await asyncio.gather(*(branch(hours) for hours in (3, 1, 2)))

    began = durable_kit.now()
    run = later(start(gathering), "1d")
    assert run.result() == [3, 1, 2]
    assert sorted(calls) == [-3, -2, -1, 1, 2, 3]
    assert (run.ended_at - began).total_seconds() == 6 * 3600


def test_siblings_of_a_suspended_step_go_on_in_the_same_attempt(start: Start):
    calls = []

    async def gathering(ctx):
        async def working():
            for number in range(3):
                await ctx.step.run(f"work {number}", calls.append, number)

        await asyncio.gather(ctx.step.sleep("long", "30d"), working())

    run = start(gathering)
    assert run.status == "waiting"
    assert calls == [0, 1, 2]


def test_gather_nests_in_gather(start: Start, later: Later):
    async def nesting(ctx):
        async def leaf(name):
            await ctx.step.sleep(f"nap {name}", "1h")
            return await ctx.step.run(f"work {name}", soon, name)

        async def branch(name):
            return await asyncio.gather(*(leaf(f"{name}{side}") for side in "xy"))

        return await asyncio.gather(branch("a"), branch("b"))

    assert later(start(nesting), "1h").result() == [["ax", "ay"], ["bx", "by"]]


def test_error_of_one_step_keeps_the_results_of_the_others(start: Start, later: Later):
    calls = []

    async def gathering(ctx):
        try:
            await asyncio.gather(
                ctx.step.run("good", lambda: calls.append("good") or 1),
                ctx.step.run("bad", fail, retries=0),
            )
        except durable.StepFailed as error:
            good = await ctx.step.run("again", lambda: "next")
            return [error.error_type, good]

    run = later(start(gathering))
    assert run.result() == ["Refused", "next"]
    assert calls == ["good"]
    assert run.steps.get(name="good").output == 1


def test_errors_as_values_are_returned_when_all_have_ended(start: Start, later: Later):
    calls = []

    async def gathering(ctx):
        results = await asyncio.gather(
            ctx.step.run("good", lambda: 1),
            ctx.step.run("bad", fail, retries=1, backoff=durable.Backoff.fixed("2h")),
            ctx.step.sleep("nap", "1h"),
            return_exceptions=True,
        )
        told = [getattr(one, "error_type", one) for one in results]
        return await ctx.step.run("tell", lambda: calls.append(told) or told)

    run = later(start(gathering), "1h")
    assert run.status == "waiting"
    assert later(run, "1h").result() == [1, "Refused", None]
    assert calls == [[1, "Refused", None]]


def test_task_group(start: Start, later: Later):
    async def grouping(ctx):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ctx.step.run("work", soon, 1))
            second = group.create_task(ctx.step.sleep("nap", "1h"))
        return [first.result(), second.result()]

    assert later(start(grouping), "1h").result() == [1, None]


def test_error_in_a_task_group(start: Start, later: Later):
    async def grouping(ctx):
        caught = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step.sleep("nap", "9h"))
                group.create_task(ctx.step.run("bad", fail, retries=0))
                group.create_task(ctx.step.wait_for_signal("wait", "never"))
        except* durable.StepFailed as errors:
            caught += [error.error_type for error in errors.exceptions]
        await ctx.step.sleep("short nap", "1m")
        return caught

    assert later(start(grouping), "1m").result() == ["Refused"]
    assert not Wait.objects.exists()


def test_task_group_may_fail_the_run(start: Start):
    async def grouping(ctx):
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.sleep("nap", "9h"))
            group.create_task(ctx.step.run("bad", fail, retries=0))

    run = start(grouping, retries=0)
    assert run.status == "failed"
    assert run.error["type"] == "ExceptionGroup"


def test_first_of_several_tasks_to_end(start: Start, later: Later):
    async def racing(ctx):
        tasks = {
            asyncio.create_task(ctx.step.sleep("slow", "2h"), name="slow"),
            asyncio.create_task(ctx.step.sleep("fast", "1h"), name="fast"),
        }
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return [task.get_name() for task in done]

    run = later(start(racing), "1h")
    assert run.result() == ["fast"]
    assert run.steps.get(name="slow").status == "cancelled"


def test_as_completed_yields_steps_as_they_end(start: Start, later: Later):
    seen = []

    async def completing(ctx):
        async def nap(hours):
            await ctx.step.sleep(f"nap {hours}", f"{hours}h")
            return hours

        steps = [nap(3), nap(1), ctx.step.run("work", soon, 0), nap(2)]
        order = [await one for one in asyncio.as_completed(steps)]
        seen.append(order)
        await ctx.step.sleep("rest", "1h")
        return order

    # The recorded order, also in a replay in which all steps have ended.
    assert later(start(completing), "4h").result() == [0, 1, 2, 3]
    assert len(seen) >= 2
    assert all(order == [0, 1, 2, 3] for order in seen)


def test_race_has_the_same_winner_in_replay(start: Start, later: Later):
    seen = []

    async def racing(ctx):
        naps = {
            asyncio.create_task(ctx.step.sleep(f"nap {hours}", f"{hours}h")): hours
            for hours in (3, 2, 1)
        }
        done, _ = await asyncio.wait(naps, return_when=asyncio.FIRST_COMPLETED)
        seen.append(sorted(naps[task] for task in done))
        await ctx.step.run("note", int)
        await ctx.step.sleep("rest", "9h")
        return seen[-1]

    assert later(start(racing), "12h").result() == [1]
    assert all(won == [1] for won in seen)


def test_semaphore_and_a_queue_between_branches(start: Start, later: Later):
    done = []

    async def coordinating(ctx):
        places, results = asyncio.Semaphore(2), asyncio.Queue()

        async def worker(number):
            async with places:
                await ctx.step.sleep(f"nap {number}", "1h")
                await results.put(await ctx.step.run(f"work {number}", soon, number))

        async def collect():
            return [await results.get() for _ in range(4)]

        workers = [asyncio.create_task(worker(number)) for number in range(4)]
        done.append(await collect())
        await asyncio.gather(*workers)
        return sorted(done[-1])

    run = later(start(coordinating), "1h")
    assert run.status == "waiting"
    assert run.steps.filter(name__startswith="nap").count() == 4
    assert later(run, "1h").result() == [0, 1, 2, 3]


def test_other_awaitables_of_a_branch_are_awaited(start: Start, later: Later):
    Tenant.objects.create(name="Ann")
    calls = []

    async def awaiting(ctx):
        async def reading():
            ann = await Tenant.objects.aget(name="Ann")
            async for tenant in Tenant.objects.filter(pk=ann.pk):
                await ctx.step.run("work", calls.append, tenant.name)

        await asyncio.gather(ctx.step.sleep("nap", "30d"), reading())

    assert start(awaiting).status == "waiting"
    assert calls == ["Ann"]


def test_endless_task_does_not_block_the_run(start: Start, later: Later):
    async def background(ctx):
        task = asyncio.create_task(asyncio.Event().wait())
        await ctx.step.sleep("nap", "1h")
        task.cancel()
        return "done"

    run = start(background)
    assert run.status == "waiting"
    assert later(run, "1h").result() == "done"
