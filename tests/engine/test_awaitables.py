"""Callables that return an awaitable: awaited only in ``async def`` functions."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from tests.engine.conftest import Later, Start


async def fetch(number: int) -> int:
    await asyncio.sleep(0)
    return number


class Fetcher:
    """An object with an async ``__call__``."""

    async def __call__(self, number: int) -> int:
        return await fetch(number)


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


class Promise:
    """An awaitable that is not a coroutine."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __await__(self) -> Any:
        return fetch(self.number).__await__()


CALLABLES: dict[str, Callable[..., Any]] = {
    "lambda": lambda number: fetch(number),
    "partial of a lambda": functools.partial(lambda number: fetch(number)),
    "object": Fetcher(),
    "method": Fetcher().__call__,
    "decorated": decorated(fetch),
    "awaitable": Promise,
}
REFUSED = {name: CALLABLES[name] for name in CALLABLES if name != "method"}


@pytest.mark.parametrize("fn", CALLABLES.values(), ids=CALLABLES)
def test_awaitable_is_awaited_in_an_async_function(start: Start, fn: Any):
    async def awaiting(ctx):
        one = await ctx.step.run("one", fn, 4)
        return [one, *await ctx.step.map("more", fn, [5, 6])]

    assert start(awaiting).result() == [4, 5, 6]


@pytest.mark.parametrize("fn", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("kind", ["run", "timeout", "atomic", "branch"])
def test_awaitable_is_refused_in_a_def_function(start: Start, fn: Any, kind: str):
    def calling(ctx):
        if kind == "run":
            ctx.step.run("fetch", fn, 4)
        elif kind == "timeout":
            ctx.step.run("fetch", fn, 4, timeout="1h")
        elif kind == "atomic":
            ctx.step.atomic("fetch", fn, 4)
        else:
            ctx.step.parallel("fetch", [lambda: fn(4)])

    run = start(calling)
    assert run.status == "failed"
    assert "returned an awaitable" in run.error["message"]
    assert "async def" in run.error["message"]
    assert not run.attempts.exists(), "a retry would not help"


def test_awaitable_is_refused_by_an_atomic_step_of_an_async_function(start: Start):
    async def calling(ctx):
        await ctx.step.atomic("fetch", lambda: fetch(4))

    assert "returned an awaitable" in start(calling).error["message"]


def test_def_function_that_returns_an_awaitable_is_refused(start: Start):
    run = start(decorated(fetch), retries=0)
    assert run.error["type"] == "ConfigurationError"
    assert "returned an awaitable" in run.error["message"]


def test_awaitable_has_the_timeout_of_its_step(start: Start):
    async def never():
        await asyncio.get_running_loop().create_future()

    async def awaiting(ctx):
        try:
            await ctx.step.run("wait", lambda: never(), timeout=0.05, retries=0)
        except durable.StepTimeout as error:
            return error.message

    assert "50ms" in start(awaiting).result()


def test_awaitable_of_a_condition_or_of_submit_is_awaited(start: Start, later: Later):
    tokens: list[str] = []

    async def note(callback):
        tokens.append(callback.token)

    async def ready(state):
        return durable.Done("met")

    async def awaiting(ctx):
        met = await ctx.step.wait_for_condition(
            "ask", lambda state: ready(state), every="1m"
        )
        return [met, await ctx.step.wait_for_callback("call", lambda one: note(one))]

    run = start(awaiting)
    durable.callbacks.succeed(tokens[0], 3)
    assert later(run).result() == ["met", 3]
