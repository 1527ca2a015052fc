"""Time limits of a worker's task: runs are requeued, and a body may be ended."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from billiard.pool import soft_timeout_sighandler
from celery.exceptions import SoftTimeLimitExceeded

from durable_jobs import clock, durable, failpoints
from durable_jobs.engine import body_calls, time_limits
from durable_jobs.store import connection_state
from durable_jobs.testing import Kit
from durable_jobs.worker import task_limits
from project.shop.models import Tenant
from tests.engine.conftest import Later, Start

pytestmark = pytest.mark.exact("it counts calls of the body")


@pytest.fixture
def prefork() -> Iterator[None]:
    """Handle the signal of the soft limit as a child of Celery's does."""
    before = signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    yield
    assert signal.getsignal(signal.SIGUSR1) is soft_timeout_sighandler
    signal.signal(signal.SIGUSR1, before)


def strike() -> None:
    """Raise the soft limit here."""
    os.kill(os.getpid(), signal.SIGUSR1)


@contextmanager
def each_task(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Let the kit serve as a worker's task does; return the number of tasks."""
    serve, served = kit._serve_all, [0]

    def within_a_task() -> int:
        served[0] += 1
        with task_limits.respected():
            return serve()

    with monkeypatch.context() as patch:
        patch.setattr(kit, "_serve_all", within_a_task)
        yield served


@pytest.mark.parametrize("kind", ["run", "atomic", "timeout"])
def test_soft_limit_ends_a_body_as_a_timeout(
    start: Start, later: Later, durable_kit, monkeypatch, prefork, kind
):
    calls: list[Any] = []

    def body() -> str:
        calls.append(1)
        Tenant.objects.create(name=f"tenant {len(calls)}")
        if len(calls) == 1:
            strike()
            threading.Event().wait(60)
        return "ended"

    def working(ctx):
        if kind == "run":
            return ctx.step.run("work", body)
        if kind == "timeout":
            return ctx.step.run("work", body, timeout="1h")
        return ctx.step.atomic("work", body)

    with each_task(durable_kit, monkeypatch):
        backoff = durable.Backoff.fixed("1s")
        run = later(start(working, retries=1, backoff=backoff), "1m")

    assert run.result() == "ended"
    assert len(calls) == 2
    attempt = run.attempts.get()
    assert attempt.error["type"] == "StepTimeout"
    assert "'work'" in attempt.error["message"]
    assert "soft time limit" in attempt.error["message"]


def test_body_with_a_timeout_begins_when_the_limit_can_end_it(
    start: Start, monkeypatch
):
    """The body has a thread of its own, but the limit ends the wait for the thread."""
    begun = threading.Event()
    early: list[bool] = []

    def late(step, fn, args=(), kwargs=None):
        if threading.current_thread() is threading.main_thread():
            early.append(begun.wait(0.3))
        return time_limits.interruptible(step, fn, args, kwargs or {})

    monkeypatch.setattr(body_calls, "interruptible", late)
    run = start(lambda ctx: ctx.step.run("work", begun.set, timeout="1h"))
    assert run.status == "completed"
    assert early == [False]


def test_body_may_clean_up_at_the_soft_limit(
    start: Start, durable_kit, monkeypatch, prefork
):
    def body() -> str:
        try:
            strike()
            threading.Event().wait(60)
        except SoftTimeLimitExceeded:
            return "cleaned up"
        return "not struck"

    def working(ctx):
        return ctx.step.run("work", body, retries=0)

    with each_task(durable_kit, monkeypatch):
        assert start(working).result() == "cleaned up"


@pytest.mark.parametrize("where", ["function", "checkpoint", "guard"])
def test_soft_limit_outside_of_a_body_hands_the_run_on(
    start: Start, later: Later, durable_kit, monkeypatch, prefork, where, configure
):
    configure(ALWAYS_SUSPEND=False)
    entries: list[int] = []
    calls: list[int] = []
    end = connection_state.Guard.end

    def between(self: Any, whose: str, **options: Any) -> Any:
        if where == "guard" and len(calls) == 2:
            strike()
        return end(self, whose, **options)

    monkeypatch.setattr(connection_state.Guard, "end", between)

    def body(number: int) -> int:
        calls.append(number)
        return number

    def working(ctx):
        entries.append(1)
        for number in range(4):
            ctx.step.run(f"step {number}", body, number)
            if where == "function" and len(entries) == 1 and number == 1:
                strike()
        return "done"

    if where == "checkpoint":
        durable_kit_pass = durable_kit._pass

        def passing(place: str, step: str) -> None:
            durable_kit_pass(place, step)
            if place == "record.begin" and step == "step 1":
                strike()

        with failpoints.watching(passing), each_task(durable_kit, monkeypatch):
            run = later(start(working, retries=0))
    else:
        with each_task(durable_kit, monkeypatch):
            run = later(start(working, retries=0))

    assert run.result() == "done"
    assert calls == [0, 1, 2, 3]
    assert len(entries) == 2
    assert not run.attempts.exists()


def test_run_is_handed_on_after_half_of_its_tasks_limit(
    start: Start, later: Later, durable_kit, monkeypatch, configure
):
    configure(ALWAYS_SUSPEND=False)
    entries: list[int] = []
    calls: list[int] = []
    seconds = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(task_limits, "_worker_limits", (None, 10.0))

    def body(number: int) -> None:
        calls.append(number)
        seconds[0] += 2

    def working(ctx):
        entries.append(1)
        for number in range(10):
            ctx.step.run(f"step {number}", body, number)
        return "done"

    with each_task(durable_kit, monkeypatch):
        run = later(start(working, retries=0))

    assert run.result() == "done"
    assert calls == list(range(10))
    assert len(entries) == 4  # three steps an attempt: the third begins at second 4


def test_limit_that_is_over_before_a_step_hands_no_run_on(
    start: Start, later: Later, durable_kit, monkeypatch
):
    monkeypatch.setattr(task_limits, "_worker_limits", (1e-9, None))

    def working(ctx):
        return [ctx.step.run(f"step {n}", lambda: 1) for n in range(3)]

    with each_task(durable_kit, monkeypatch):
        assert later(start(working, retries=0)).result() == [1, 1, 1]


def test_shortest_limit_counts(monkeypatch):
    class Task:
        class request:  # as in Celery
            timelimit: Any = None

        time_limit: Any = None
        soft_time_limit: Any = None

    monkeypatch.setattr(task_limits, "current_task", Task)
    assert task_limits.shortest() is None
    monkeypatch.setattr(task_limits, "_worker_limits", (60, 30))
    assert task_limits.shortest() == 30
    Task.soft_time_limit = 90
    assert task_limits.shortest() == 60
    Task.request.timelimit = [None, 5]
    assert task_limits.shortest() == 5
    with task_limits.respected():
        assert not time_limits.nearly_over()
    assert time_limits._requeue_at.get() == math.inf
