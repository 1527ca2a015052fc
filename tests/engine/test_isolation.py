"""Changes of user code to the state of its thread end with that code."""

from __future__ import annotations

import asyncio
import contextvars
import decimal
import locale
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone, translation

from durable_jobs.engine.isolation import isolated
from durable_jobs.models import Run
from durable_jobs.signals import run_changed
from tests.engine.conftest import Later, Start

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("host", default="none")


def spoil() -> None:
    """Change all thread state."""
    translation.activate("de")
    timezone.activate("Asia/Tokyo")
    VARIABLE.set("spoiled")
    decimal.getcontext().prec = 3
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if LOCALE == "C" else "C")
    warnings.simplefilter("ignore", ResourceWarning)


LOCALE = locale.setlocale(locale.LC_ALL)


def state() -> tuple[Any, ...]:
    """Return the state that ``spoil`` changes."""
    return (
        translation.get_language(),
        timezone.get_current_timezone_name(),
        VARIABLE.get(),
        decimal.getcontext().prec,
        locale.setlocale(locale.LC_ALL),
        ("ignore", None, ResourceWarning, None, 0) in warnings.filters,
    )


def body() -> tuple[Any, ...]:
    """Change the thread's state and return the earlier state."""
    before = state()
    spoil()
    return before


async def abody() -> tuple[Any, ...]:
    """Change the thread's state in an event loop."""
    before = state()
    spoil()
    await asyncio.sleep(0)
    return before


def in_a_body(ctx: Any, **options: Any) -> Any:
    """Change the state in the body of a step."""
    return ctx.step.run("spoil", body, **options)


def in_an_atomic_body(ctx: Any) -> Any:
    """Change the state in a transaction."""
    return ctx.step.atomic("spoil", body)


def in_an_async_body(ctx: Any) -> Any:
    """Change the state in an ``async def`` body."""
    return ctx.step.run("spoil", abody)


def in_a_thread(ctx: Any) -> Any:
    """Change the state in the thread of a body with a timeout."""
    return ctx.step.run("spoil", body, timeout="1m")


PLACES: dict[str, Callable[[Any], Any]] = {
    "a body": in_a_body,
    "an atomic body": in_an_atomic_body,
    "an async body": in_an_async_body,
    "a body with a timeout": in_a_thread,
}


@pytest.mark.parametrize("place", PLACES)
def test_state_that_a_body_changes_reaches_neither_function_nor_run(
    start: Start, later: Later, place
):
    before, seen = state(), []

    def spoiling(ctx):
        spoiled = PLACES[place](ctx)
        seen.append((tuple(spoiled)[3:], state()))
        ctx.step.run("look", lambda: seen.append((state()[3:], state())))
        return "done"

    for _ in range(2):
        assert later(start(spoiling) if not seen else again()).result() == "done"
    assert state() == before
    assert all(one == (before[3:], before) for one in seen)
    assert len(seen) >= 4


def again() -> Run:
    """Rerun the last run and return the new one."""
    run = Run.objects.order_by("pk").last()
    assert run is not None
    return run.rerun()


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_state_that_a_function_changes_reaches_no_other_run(
    start: Start, later: Later, kind
):
    before, seen = state(), []

    def spoiling(ctx):
        seen.append(state())
        spoil()

    async def aspoiling(ctx):
        spoiling(ctx)

    run = start(spoiling if kind == "def" else aspoiling)
    assert run.status == "completed"
    assert later(run.rerun()).status == "completed"
    assert state() == before
    assert len(seen) == 2
    assert all(one == before for one in seen)


def test_state_that_an_async_body_changes_reaches_no_other_step(start: Start):
    before, seen = state(), []

    async def spoiling(ctx):
        await ctx.step.run("spoil", abody)
        seen.append(state())
        await ctx.step.run("spoil in a thread", body)
        seen.append(state())
        await ctx.step.run("look", lambda: seen.append(state()))

    assert start(spoiling).status == "completed"
    assert state() == before
    assert all(one == before for one in seen)
    assert len(seen) >= 3


def test_state_that_a_function_changes_stays_its_own_over_a_body(
    start: Start, configure
):
    configure(ALWAYS_SUSPEND=False)
    seen = []

    def spoiling(ctx):
        spoil()
        mine = state()
        ctx.step.run("look", lambda: 1)
        seen.append(state() == mine)

    assert start(spoiling).status == "completed"
    assert seen == [True]


def test_state_that_a_receiver_changes_reaches_no_run(start: Start, later: Later):
    before, seen = state(), []

    def receiver(**kwargs: Any) -> None:
        spoil()

    def looking(ctx):
        seen.append(state())

    run_changed.connect(receiver)
    try:
        run = start(looking)
    finally:
        run_changed.disconnect(receiver)
    later(run.rerun())
    assert state() == before
    assert seen[-1] == before


def test_state_of_the_process_ends_with_the_thread_that_changed_it():
    """Two threads overlap: the second begins after the first has changed the state."""
    before = state()
    changed, ended = threading.Event(), threading.Event()

    def first() -> None:
        spoil()
        changed.set()
        ended.wait(30)

    def second() -> None:
        changed.wait(30)
        isolated(lambda: None)

    one = threading.Thread(target=isolated, args=(first,))
    one.start()
    changed.wait(30)
    two = threading.Thread(target=isolated, args=(lambda: ended.set() or one.join(),))
    two.start()
    two.join()
    assert state() == before


def test_filters_of_an_open_block_are_not_changed():
    inside, done = threading.Event(), threading.Event()
    caught: list[Any] = []

    def catching() -> None:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            inside.set()
            done.wait(30)
            warnings.warn("still caught", UserWarning, stacklevel=1)
            caught.extend(found)

    one = threading.Thread(target=isolated, args=(catching,))
    one.start()
    inside.wait(30)
    two = threading.Thread(target=isolated, args=(lambda: None,))
    two.start()
    two.join()
    done.set()
    one.join()
    assert [str(one.message) for one in caught] == ["still caught"]
