"""Parallel steps of one run, where a limit counts steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from durable_jobs import durable
from durable_jobs.models import Slot
from tests.engine.workers import LONG, Crowd, apart, served

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Isolate each test."""
    with apart():
        yield
    assert not Slot.objects.filter(released_at__isnull=True).exists(), (
        "a slot is still acquired"
    )


def test_branches_share_the_slots_that_their_limit_has():
    crowd, three = Crowd(), threading.Barrier(3)

    def busy(_):
        with crowd:
            three.wait(LONG)

    def wide(ctx):
        return len(ctx.step.map("m", busy, range(12)))

    assert served(wide, concurrency=durable.Concurrency(3)).result() == 12
    assert crowd.most == 3


def test_limit_of_one_executes_branches_one_by_one():
    crowd = Crowd()

    def busy(_):
        with crowd:
            pass

    def wide(ctx):
        def branch(number):
            return ctx.step.run("busy", busy, number)

        return len(ctx.step.map("outer", branch, range(5)))

    assert served(wide, concurrency=1).result() == 5
    assert crowd.most == 1


def test_branches_of_an_unlimited_function_are_not_narrowed():
    barrier = threading.Barrier(4)

    def wide(ctx):
        return ctx.step.map("m", lambda _: barrier.wait(LONG) >= 0, range(4))

    assert served(wide).result() == [True] * 4


@pytest.mark.parametrize("limit", [1, 3])
def test_gathered_steps_share_the_slots(limit):
    crowd = Crowd()

    async def wide(ctx):
        together = asyncio.Barrier(limit)

        async def busy():
            with crowd:
                await asyncio.wait_for(together.wait(), LONG)

        every = [ctx.step.run(f"step {number}", busy) for number in range(9)]
        return len(await asyncio.gather(*every))

    found = served(wide, concurrency=durable.Concurrency(limit))
    assert found.result() == 9
    assert crowd.most == limit
