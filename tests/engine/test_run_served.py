"""``ctx.step.run`` in a real worker's loop: with the real clock and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction

from durable_jobs import durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run, Step
from durable_jobs.worker.inline import InlineNotifier
from project.shop.models import Tenant

pytestmark = pytest.mark.exact("it serves the queue once")

Served = Callable[..., Run]


@pytest.fixture
def served(transactional_db: None) -> Iterator[Served]:
    """Start a function, serve it at once in this process, and return its run."""

    def begin(body, **options):
        function = durable.function(id=f"tests.{body.__name__}", **options)(body)
        run = function.enqueue()
        run.refresh_from_db()
        return run

    with registry.temporary(), notifier.using(InlineNotifier()):
        yield begin


def test_body_with_a_timeout_reads_and_writes(served: Served):
    def body():
        assert threading.current_thread() is not threading.main_thread()
        return Tenant.objects.create(name="Ada").name

    def writing(ctx):
        first = ctx.step.run("write", body, timeout="1m")
        return [first, ctx.step.run("count", Tenant.objects.count)]

    assert served(writing).result() == ["Ada", 1]


def test_connection_of_a_body_with_a_timeout_is_closed_after_it(served: Served):
    left = []

    def body():
        Tenant.objects.count()
        left.append(connection.connection)

    def reading(ctx):
        ctx.step.run("read", body, timeout="1m")

    assert served(reading).status == "completed"
    if connection.vendor == "postgresql":
        assert [one.closed for one in left] == [True]


def test_abandoned_body_writes_nothing_for_its_run(served: Served):
    held, ended = threading.Event(), threading.Event()

    def body():
        try:
            held.wait()
        finally:
            ended.set()
        return "too late"

    def waiting(ctx):
        try:
            ctx.step.run("hang", body, timeout="50ms", retries=0)
        except durable.StepTimeout:
            return ctx.step.run("after", lambda: "gone on")

    run = served(waiting)
    assert run.result() == "gone on"
    held.set()
    assert ended.wait(10)

    assert Step.objects.get(name="hang").status == "failed"
    assert Step.objects.get(name="hang").output is None


def test_async_body_that_takes_too_long_is_cancelled(served: Served):
    told = []

    async def body():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    def waiting(ctx):
        ctx.step.run("hang", body, timeout="50ms", retries=0)

    assert served(waiting).error["type"] == "StepTimeout"
    assert told == ["cancelled"]


def test_step_inside_a_transaction_of_the_function_is_refused(served: Served):
    def inside(ctx):
        with transaction.atomic():
            Tenant.objects.create(name="Ada")
            ctx.step.run("mail", lambda: 1)

    run = served(inside)
    assert run.error["type"] == "ConfigurationError"
    assert not Tenant.objects.exists()


def test_atomic_is_taken_back_with_its_error(served: Served):
    def write():
        Tenant.objects.create(name="Ada")
        raise LookupError("half-way")

    def writing(ctx):
        ctx.step.atomic("write", write)

    run = served(writing, retries=0)
    assert run.error["type"] == "LookupError"
    assert not Tenant.objects.exists()


def test_retry_without_a_delay_is_served_by_the_same_loop(served: Served):
    calls = []

    def body():
        calls.append(1)
        if len(calls) < 3:
            raise LookupError
        return len(calls)

    def trying(ctx):
        return ctx.step.run("try", body, backoff=durable.Backoff.fixed(0))

    run = served(trying)
    assert run.wait(timeout=30).result() == 3
