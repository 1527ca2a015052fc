"""One event loop per thread of a worker, and idleness that is detected at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from durable_jobs import durable
from durable_jobs.engine import event_loops, idle_detection
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start

Step = Callable[[], Coroutine[Any, Any, Any]]


async def in_anyio(step: Step, other: Step) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(step)
        group.start_soon(other)


async def in_anyio_with_a_deadline(step: Step, other: Step) -> None:
    with anyio.fail_after(3600):
        await in_anyio(step, other)


async def in_a_task_group(step: Step, other: Step) -> None:
    async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
        group.create_task(step())
        group.create_task(other())


async def shielded(step: Step, other: Step) -> None:
    await asyncio.wait_for(asyncio.shield(asyncio.gather(step(), other())), 3600)


async def for_an_event(step: Step, other: Step) -> None:
    event = asyncio.Event()

    async def setting() -> None:
        await step()
        event.set()

    task = asyncio.create_task(setting())
    await other()
    await event.wait()
    await task


async def for_a_future(step: Step, other: Step) -> None:
    """Await as libraries do that know only futures and callbacks."""
    ended = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(step())
    task.add_done_callback(lambda task: ended.done() or ended.set_result(None))
    await other()
    await ended


async def through_a_queue(step: Step, other: Step) -> None:
    queue: asyncio.Queue[None] = asyncio.Queue()

    async def putting() -> None:
        await step()
        await queue.put(None)

    task = asyncio.create_task(putting())
    await other()
    await asyncio.ensure_future(queue.get())
    await task


WAYS = [
    in_anyio,
    in_anyio_with_a_deadline,
    in_a_task_group,
    shielded,
    for_an_event,
    for_a_future,
    through_a_queue,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_idleness_is_detected_at_once_whatever_awaits_a_step(
    start: Start, later: Later, monkeypatch: pytest.MonkeyPatch, way: Any
):
    # Waiting for an attempt here would never end.
    monkeypatch.setattr(idle_detection, "PATIENCE", 1e6)

    async def awaiting(ctx):
        async def step() -> None:
            await ctx.step.sleep("nap", "1h")

        async def other() -> None:
            await ctx.step.run("work", lambda: 1)

        await way(step, other)
        return "done"

    run = start(awaiting)
    assert run.status == "waiting"
    assert later(run, "1h").result() == "done"


def test_result_from_a_thread_beside_a_suspended_step_is_awaited(
    start: Start, later: Later, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(idle_detection, "PATIENCE", 1e6)
    seen = threading.Event()

    async def awaiting(ctx):
        async def call() -> None:
            await asyncio.to_thread(threading.Event().wait, 0.01)
            await ctx.step.run("after", seen.set)

        await asyncio.gather(ctx.step.sleep("nap", "1h"), call())
        return "done"

    run = start(awaiting)
    assert seen.is_set()
    assert later(run, "1h").result() == "done"


def test_awaitable_without_a_result_is_awaited_for_a_limited_time(
    start: Start, later: Later, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(idle_detection, "PATIENCE", 0.01)

    async def awaiting(ctx):
        await asyncio.gather(ctx.step.sleep("nap", "1h"), asyncio.sleep(3600))

    assert start(awaiting).status == "waiting"


# One loop


def test_runs_of_a_thread_share_one_loop(start: Start):
    loops = []

    async def note(*args):
        loops.append(asyncio.get_running_loop())

    async def awaiting(ctx):
        await note()
        await ctx.step.run("note", note)

    def calling(ctx):
        ctx.step.run("note", note)
        ctx.step.run("in time", note, timeout="1h")
        ctx.step.map("each", note, [1, 2])

    start(awaiting)
    start(calling)
    assert len(loops) >= 6
    assert len(set(map(id, loops))) == 1


def test_connection_of_a_module_survives_its_run(start: Start):
    pool: list[Any] = []

    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def ask(text: str) -> str:
        if not pool:
            pool.append(await asyncio.open_connection(*address))
        reader, writer = pool[0]
        writer.write(f"{text}\n".encode())
        line: bytes = await reader.readline()
        return line.decode().strip()

    async def first(ctx):
        return await ctx.step.run("ask", ask, "first")

    def second(ctx):
        return ctx.step.run("ask", ask, "second")

    ready, ends, address = threading.Event(), threading.Event(), []

    async def serve() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address.extend(server.sockets[0].getsockname())
        ready.set()
        while not ends.is_set():
            await asyncio.sleep(0.01)
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        assert start(first).result() == "first"
        assert start(second).result() == "second"
    finally:
        if pool:
            loop = pool[0][1].get_extra_info("socket") and pool[0][1]._loop
            loop.call_soon_threadsafe(pool[0][1].close)
        ends.set()
        thread.join(30)


def test_tasks_left_in_the_loop_are_ended_before_the_next_attempt(start: Start):
    ended: list[str] = []

    async def forever(name):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    async def numbers():
        try:
            yield 1
        finally:
            ended.append("generator")

    kept: list[Any] = []

    async def leave(name):
        kept.append(asyncio.ensure_future(forever(name)))
        kept.append(numbers())
        await anext(kept[-1])
        await asyncio.sleep(0)

    async def awaiting(ctx):
        await leave("function")

    def calling(ctx):
        ctx.step.run("leave", leave, "body")

    start(awaiting)
    assert sorted(ended) == ["function", "generator"]
    start(calling)
    assert sorted(ended) == ["body", "function", "generator", "generator"]


def test_exit_in_an_unawaited_task_leaves_the_loop_usable(start: Start):
    async def leaving(ctx):
        task = asyncio.create_task(exiting())
        await asyncio.sleep(0)
        await ctx.step.run("work", lambda: 1)
        return task.done()

    async def exiting():
        raise SystemExit(2)

    assert start(leaving, retries=0).result() is True


def test_loop_that_is_blocked_is_left_behind(
    start: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_loops, "BLOCKED", 0.05)
    monkeypatch.setattr("durable_jobs.engine.body_calls.GRACE", 0.01)
    go, loops = threading.Event(), []

    async def block():
        loops.append(asyncio.get_running_loop())
        go.wait(30)

    async def note():
        loops.append(asyncio.get_running_loop())

    def blocking(ctx):
        ctx.step.run("block", block, timeout=0.01, retries=0)

    def noting(ctx):
        ctx.step.run("note", note)

    try:
        assert start(blocking, retries=0).error["type"] == "StepTimeout"
        start(noting)
    finally:
        go.set()
    assert len(set(map(id, loops))) == 2


def test_kit_closes_its_loop(db: None):
    loops = []

    with Kit() as kit:

        @durable.function(id="noting")
        async def noting(ctx):
            loops.append(asyncio.get_running_loop())

        noting.enqueue()
        kit.run_until_idle()
        assert not loops[0].is_closed()
    assert loops[0].is_closed()


def test_nested_run_has_its_own_loop(start: Start, durable_kit: Kit):
    loops = []

    async def inner(ctx):
        loops.append(asyncio.get_running_loop())
        return "inner"

    function = durable.function(id="inner")(inner)

    async def outer(ctx):
        loops.append(asyncio.get_running_loop())
        return await ctx.step.run("wait", lambda: function.enqueue().wait(9).result())

    assert start(outer).result() == "inner"
    assert len(set(map(id, loops))) == 2
