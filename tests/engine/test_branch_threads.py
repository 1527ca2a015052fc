"""Branches in the threads of a real worker, on PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest

from durable_jobs import durable
from durable_jobs.models import Wait
from project.shop.models import Tenant
from tests.engine.conftest import Configure
from tests.engine.workers import LONG, Crowd, apart, backend, served, served_by
from tests.lab.processes import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.exact("its bodies meet, once"),
]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Isolate each test."""
    with apart():
        yield


# Concurrency


def test_bodies_of_branches_execute_at_the_same_time():
    barrier = threading.Barrier(4)

    def meeting(ctx):
        def branch(number):
            barrier_passed = ctx.step.run("meet", lambda: barrier.wait(LONG) >= 0)
            return [number, barrier_passed]

        return ctx.step.map("m", branch, range(4))

    assert served(meeting).result() == [[number, True] for number in range(4)]


def test_plain_branches_execute_at_the_same_time():
    barrier = threading.Barrier(3)

    def meeting(ctx):
        return ctx.step.parallel("p", [lambda: barrier.wait(LONG) >= 0] * 3)

    assert served(meeting).result() == [True, True, True]


def test_concurrent_branches_keep_their_log_lines_apart():
    barrier = threading.Barrier(3)
    logger = logging.getLogger("project.tests")

    def talk(number):
        for _ in range(3):
            barrier.wait(LONG)
            logger.info("body %d", number)

    def talking(ctx):
        def branch(number):
            logger.info("branch %d", number)
            ctx.step.run("talk", talk, number)

        ctx.step.map("m", branch, range(3))

    run = served(talking)
    found = sorted(
        [step.kind, *step.input["args"], *(line["message"] for line in lines["lines"])]
        for step in run.steps.exclude(kind="map")
        if (lines := step.logs)
    )
    assert found == [
        *(["branch", n, f"branch {n}"] for n in range(3)),
        *(["run", n, *[f"body {n}"] * 3] for n in range(3)),
    ]


def test_nested_branches_execute_at_the_same_time():
    barrier = threading.Barrier(4)

    def meeting(ctx):
        def leaf(_):
            return ctx.step.run("meet", lambda: barrier.wait(LONG) >= 0)

        return ctx.step.map("outer", lambda _: ctx.step.map("inner", leaf, "ab"), "xy")

    assert served(meeting).result() == [[True, True], [True, True]]


def test_bodies_of_gathered_steps_execute_at_the_same_time():
    barrier = threading.Barrier(3)

    async def meeting(ctx):
        return await asyncio.gather(
            *(ctx.step.run("meet", lambda: barrier.wait(LONG) >= 0) for _ in range(3))
        )

    assert served(meeting).result() == [True, True, True]


@pytest.mark.parametrize("limit", ["setting", "call"])
def test_branches_never_exceed_branch_threads(configure: Configure, limit):
    crowd, pair = Crowd(), threading.Barrier(2)
    options = {"max_concurrency": 2} if limit == "call" else {}
    if limit == "setting":
        configure(BRANCH_THREADS=2)

    def narrow(ctx):
        def branch(number):
            with crowd:
                pair.wait(LONG)
                return number

        return ctx.step.map("m", branch, range(6), **options)

    assert served(narrow).result() == list(range(6))
    assert crowd.most == 2


def test_gathered_bodies_never_exceed_branch_threads(configure: Configure):
    configure(BRANCH_THREADS=2)
    crowd, pair = Crowd(), threading.Barrier(2)

    def body(number):
        with crowd:
            pair.wait(LONG)
            return number

    async def narrow(ctx):
        return await asyncio.gather(
            *(ctx.step.run("work", body, number) for number in range(6))
        )

    assert served(narrow).result() == list(range(6))
    assert crowd.most == 2


# Bodies


def test_bodies_in_threads_use_the_orm():
    pids: list[int] = []

    def storing(ctx):
        def body(number):
            pids.append(backend())
            tenant = Tenant.objects.create(name=f"tenant {number}")
            return Tenant.objects.get(pk=tenant.pk).name

        def branch(number):
            return ctx.step.run("create", body, number)

        return ctx.step.map("m", branch, range(12))

    run = served(storing)
    assert run.result() == [f"tenant {number}" for number in range(12)]
    assert Tenant.objects.count() == 12
    assert backend() not in pids
    until(lambda: not served_by(pids), LONG)


def test_bodies_of_an_async_function_leave_no_connection():
    pids: list[int] = []

    def body(number):
        pids.append(backend())
        return Tenant.objects.create(name=f"tenant {number}").name

    async def storing(ctx):
        return await asyncio.gather(
            *(ctx.step.run("create", body, number) for number in range(4))
        )

    run = served(storing)
    assert run.result() == [f"tenant {number}" for number in range(4)]
    until(lambda: not served_by(pids), LONG)


def test_atomic_steps_in_branches():
    def body(number):
        Tenant.objects.create(name=f"tenant {number}")
        if number == 2:
            raise ValueError("rolled back")
        return number

    def storing(ctx):
        def branch(number):
            return ctx.step.atomic("create", body, number)

        results = ctx.step.map("m", branch, range(6), return_exceptions=True)
        return [getattr(one, "error_type", one) for one in results]

    assert served(storing).result() == [0, 1, "ValueError", 3, 4, 5]
    assert sorted(tenant.name for tenant in Tenant.objects.all()) == [
        f"tenant {number}" for number in (0, 1, 3, 4, 5)
    ]


def test_timeout_in_a_branch():
    held = threading.Event()

    def hanging(ctx):
        def hang():
            ctx.step.run("hang", held.wait, timeout="50ms")

        def work():
            return ctx.step.run("work", lambda: 1)

        results = ctx.step.parallel("p", [hang, work], return_exceptions=True)
        return [getattr(one, "error_type", one) for one in results]

    try:
        assert served(hanging).result() == ["StepTimeout", 1]
    finally:
        held.set()


def test_wait_of_one_branch_exists_while_another_executes():
    def talking(ctx):
        def say():
            until(lambda: Wait.objects.filter(name="word/said").exists(), LONG)
            durable.send("word/said", {"x": 1})

        return ctx.step.parallel(
            "p",
            {
                "hear": lambda: ctx.step.wait_for_event("wait", "word/said").data,
                "say": lambda: ctx.step.run("say", say),
            },
        )

    assert served(talking).result() == {"hear": {"x": 1}, "say": None}


def test_many_branches_of_many_steps():
    def many(ctx):
        def branch(item):
            first = ctx.step.run("first", lambda: item)
            with ctx.step.group("g"):
                both = ctx.step.parallel(
                    "p",
                    [
                        lambda: ctx.step.run("add", lambda: first + 1),
                        lambda: ctx.step.atomic("double", lambda: first * 2),
                    ],
                )
            return ctx.step.run("sum", sum, both)

        return ctx.step.map("m", branch, range(40))

    run = served(many)
    assert run.result() == [item * 3 + 1 for item in range(40)]
    assert run.steps.count() == 1 + 40 * 9
    assert set(run.steps.values_list("status", flat=True)) == {"completed"}
    positions = list(run.steps.values_list("position", flat=True))
    assert len(set(positions)) == len(positions)
