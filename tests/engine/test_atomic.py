"""``ctx.step.atomic``: the body's writes and its record are one commit."""

from __future__ import annotations

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken


def add(name: str) -> int:
    """Write a row and return the number of rows."""
    Tenant.objects.create(name=name)
    return Tenant.objects.count()


def names() -> list[str]:
    """Return the names of the rows."""
    return list(Tenant.objects.order_by("pk").values_list("name", flat=True))


def test_atomic_step_returns_the_result_of_its_body(start: Start, later: Later):
    seen = []

    def writing(ctx):
        seen.append(ctx.step.atomic("add", add, name="Ada"))
        ctx.step.sleep("nap", 1)
        return seen[-1]

    assert later(start(writing), 1).result() == 1
    assert seen == [1] * len(seen)
    assert len(seen) >= 2
    assert names() == ["Ada"]


@pytest.mark.exact("it counts calls of the body")
@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_atomic_writes_happen_exactly_once_whatever_dies(
    start: Start, later: Later, durable_kit: Kit, when
):
    calls = []

    def write():
        calls.append(1)
        return add(f"call {len(calls)}")

    def writing(ctx):
        return ctx.step.atomic("write", write)

    durable_kit.crash_at("write", when=when, times=2)
    run = start(writing)
    assert run.status == "running"
    assert len(names()) == (1 if when == "after" else 0)

    assert later(run, "3m").result() == 1
    assert names() == [f"call {len(calls)}"]
    assert len(calls) == (3 if when == "body" else 1)


def test_error_takes_its_writes_back(start: Start, later: Later):
    calls = []

    def write():
        calls.append(1)
        add(f"call {len(calls)}")
        if len(calls) < 3:
            raise Broken("half-way")

    def writing(ctx):
        ctx.step.atomic("write", write)

    run = start(writing, backoff=durable.Backoff.fixed("10s"))
    assert names() == []

    run = later(run, "1m")
    assert run.status == "completed"
    assert names() == ["call 3"]


def test_error_after_all_attempts_is_raised_and_writes_nothing(
    start: Start, later: Later
):
    seen = []

    def write():
        add("never")
        raise Broken("each time")

    def writing(ctx):
        try:
            ctx.step.atomic("write", write)
        except durable.StepFailed as error:
            seen.append((error.error_type, str(error), type(error.__cause__)))
        ctx.step.sleep("nap", "1h")

    run = later(start(writing, retries=1, backoff=durable.Backoff.fixed(1)), "2h")

    assert run.status == "completed"
    assert set(seen) == {("Broken", "each time", Broken)}
    assert names() == []


def test_result_that_cannot_be_stored_takes_its_writes_back(start: Start):
    def write():
        add("never")
        return object()

    def writing(ctx):
        ctx.step.atomic("write", write)

    run = start(writing)

    assert run.error["type"] == "PayloadError"
    assert names() == []


def test_sends_and_starts_in_the_body_are_part_of_the_transaction(
    start: Start, later: Later
):
    started = []

    @durable.function(id="tests.listening", on=durable.Event("tests/written"))
    def listening(ctx):
        started.append(ctx.event.data["by"])

    calls = []

    def write():
        calls.append(1)
        durable.send("tests/written", {"by": len(calls)})
        if len(calls) == 1:
            raise Broken

    def writing(ctx):
        ctx.step.atomic("write", write)

    later(start(writing, backoff=durable.Backoff.fixed(1)), "1m")

    assert started == [2]


def test_body_may_have_nested_transactions(start: Start):
    def write():
        with transaction.atomic():
            add("kept")
        try:
            with transaction.atomic():
                add("not kept")
                raise Broken
        except Broken:
            pass

    def writing(ctx):
        ctx.step.atomic("write", write)

    assert start(writing).status == "completed"
    assert names() == ["kept"]


def test_steps_inside_an_atomic_step_are_refused(start: Start):
    def nesting(ctx):
        ctx.step.atomic("outer", lambda: ctx.step.run("inner", lambda: 1))

    run = start(nesting)
    assert run.error["type"] == "NestedStepError"


def test_atomic_step_inside_an_open_transaction_is_refused(start: Start):
    def inside(ctx):
        with transaction.atomic():
            ctx.step.atomic("write", add, "Ada")

    run = start(inside)
    assert run.error["type"] == "ConfigurationError"
    assert "transaction.atomic()" in run.error["message"]
    assert names() == []


def test_atomic_step_on_another_database_is_refused(start: Start):
    def elsewhere(ctx):
        ctx.step.atomic("write", add, "Ada", using="archive")

    run = start(elsewhere)
    assert run.error["type"] == "ConfigurationError"
    assert "'archive'" in run.error["message"]


def test_async_body_is_refused(start: Start):
    async def body():
        return 1

    def asynchronous(ctx):
        ctx.step.atomic("write", body)

    run = start(asynchronous)
    assert run.error["type"] == "ConfigurationError"
    assert "async def" in run.error["message"]


def test_database_of_the_runs_may_be_named(start: Start):
    def named(ctx):
        return ctx.step.atomic("write", add, "Ada", using="default")

    assert start(named).result() == 1
