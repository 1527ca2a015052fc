"""Branch threads that lose the race, the lease or the database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from django.db import connection

from durable_jobs import clock, durable, failpoints
from durable_jobs.maintenance import timers
from durable_jobs.models import Run, Step
from durable_jobs.worker.queue_loop import drain_queue
from project.shop.models import Tenant
from tests.engine.workers import LONG, apart, backend, served, served_by
from tests.lab.processes import until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.exact("it counts attempts, and serves the queue once"),
]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Isolate each test."""
    with apart():
        yield


# Losers


def test_run_does_not_wait_for_a_loser_and_ignores_its_result():
    go, here, pids, told = threading.Event(), threading.Event(), [], []

    def racing(ctx):
        def hang():
            pids.append(backend())
            here.set()
            go.wait(LONG)
            return "late"

        def slow():
            try:
                with ctx.step.group("begin"):
                    ctx.step.run("hang", hang)
                ctx.step.run("after", told.append, "after")
            except Exception as error:  # noqa: BLE001  # no error may come
                told.append(error)
            told.append("went on")

        def fast():
            here.wait(LONG)
            return "fast"

        branches = {"slow": slow, "fast": fast}
        first = ctx.step.parallel("race", branches, completion=durable.First())
        return ctx.step.run("report", lambda: first)

    try:
        run = served(racing)
        before = list(run.steps.order_by("key").values())
        assert served_by(pids), "the body is still executing"
    finally:
        go.set()
    until(lambda: not served_by(pids), LONG)

    assert run.result() == "fast"
    assert not told
    assert list(run.steps.order_by("key").values()) == before
    statuses = dict(run.steps.values_list("name", "status"))
    assert statuses.pop("slow") == "cancelled"
    assert set(statuses.values()) == {"completed"}
    assert set(statuses) == {"race", "fast", "begin", "report"}


def test_loser_in_an_async_function_does_not_block_the_run():
    go, here = threading.Event(), threading.Event()

    def hang():
        here.set()
        go.wait(LONG)

    async def racing(ctx):
        async def fast():
            while not here.is_set():
                await asyncio.sleep(0)
            return "fast"

        branches = {"slow": lambda: ctx.step.run("hang", hang), "fast": fast}
        return await ctx.step.parallel("race", branches, completion=durable.First())

    try:
        run = served(racing)
        assert run.result() == "fast"
        assert run.steps.get(name="slow").status == "cancelled"
    finally:
        go.set()
    assert not run.steps.filter(name="hang").exists()


def test_failure_ends_the_run_while_others_execute():
    go, here = threading.Event(), threading.Event()

    def failing(ctx):
        def hang():
            here.set()
            go.wait(LONG)

        def fail():
            here.wait(LONG)
            raise ValueError("no")

        ctx.step.parallel("p", [lambda: ctx.step.run("hang", hang), fail])

    try:
        run = served(failing)
        assert run.error["type"] == "ParallelError"
    finally:
        go.set()


def test_atomic_loser_that_gets_the_lock_too_late_writes_nothing():
    go, here, tried = threading.Event(), threading.Event(), threading.Event()

    def hold(place: str, step: str) -> None:
        if (place, step) == ("step.before", "late"):
            here.set()
            go.wait(LONG)
            tried.set()

    def racing(ctx):
        def slow():
            ctx.step.atomic("late", Tenant.objects.create, name="late")

        def fast():
            here.wait(LONG)
            return "fast"

        first = ctx.step.parallel("race", [slow, fast], completion=durable.First())
        # Decided: the other thread may now take the lock, while the run continues.
        go.set()
        ctx.step.run("wait", tried.wait, LONG)
        return first

    try:
        with failpoints.watching(hold):
            run = served(racing)
    finally:
        go.set()
    assert run.result() == "fast"
    assert not Tenant.objects.exists()
    assert not run.steps.filter(name="late").exists()


# Failures


def test_lease_that_is_lost_in_a_branch_ends_the_attempt():
    calls: list[str] = []
    stolen = threading.Event()

    def losing(ctx):
        def steal():
            calls.append("steal")
            if calls.count("steal") == 1:
                Run.objects.filter(pk=ctx.run_id).update(
                    status="queued", lease_token=None, due_at=clock.now()
                )
                stolen.set()

        def work():
            stolen.wait(LONG)
            calls.append("work")
            return "worked"

        def each(name):
            ctx.step.run("body", {"steal": steal, "work": work}[name])
            calls.append(f"after {name}")
            return name

        return ctx.step.map("m", each, ["steal", "work"])

    # Both bodies end after the lease is lost: the first attempt's records are void.
    run = served(losing)
    assert run.result() == ["steal", "work"]
    assert calls.count("steal") == 2
    assert calls.count("work") == 2
    assert calls.count("after steal") == calls.count("after work")


def test_run_that_is_cancelled_while_its_branches_execute():
    both, calls = threading.Barrier(2), []

    def cancelled(ctx):
        def cancel():
            both.wait(LONG)
            ctx.run.cancel(reason="enough")

        def branch(name):
            ctx.step.run("body", cancel if name == "a" else lambda: both.wait(LONG))
            ctx.step.run("after", calls.append, name)

        try:
            ctx.step.map("m", branch, "ab")
        finally:
            calls.append("left")

    run = served(cancelled)
    assert (run.status, run.reason) == ("cancelled", "enough")
    assert "a" not in calls


def test_diverging_branch_pauses_the_run():
    def diverging(ctx):
        def branch(number):
            if ctx.run.claim_count == 1:
                ctx.step.run("x", lambda: number)
            else:
                ctx.step.sleep("x", "1ms")
            ctx.step.sleep("nap", "1ms")

        ctx.step.map("m", branch, range(4))

    run = served(diverging)

    def parked() -> bool:
        timers.sweep()
        drain_queue("default")
        run.refresh_from_db()
        return bool(run.status == "paused")

    until(parked, LONG)
    assert "'x'" in run.reason
    assert Step.objects.filter(name="x").count() == 4


def test_database_failure_is_no_error_of_the_branch():
    calls: list[str] = []
    gone = threading.Event()

    def failing(ctx):
        own = backend()

        def cut():
            calls.append("cut")
            if calls.count("cut") == 1:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [own])
            gone.set()

        def wait():
            gone.wait(LONG)

        def branch(name):
            try:
                ctx.step.run("body", {"a": cut, "b": wait}[name])
            except Exception as error:  # noqa: BLE001  # no error may come
                calls.append(str(error))
            return name

        return ctx.step.map("m", branch, "ab")

    run = served(failing)
    assert run.status == "queued", "the step is left to the next attempt"

    def ended() -> bool:
        drain_queue("default")
        run.refresh_from_db()
        return not run.is_live

    until(ended, LONG)
    assert run.result() == ["a", "b"]
    assert calls == ["cut", "cut"]
