"""``ctx.step.run(timeout=)``: a body that takes too long does not block its run."""

from __future__ import annotations

import asyncio
import threading

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def test_body_that_takes_too_long_fails(start: Start, later: Later):
    held = threading.Event()
    seen = []

    def waiting(ctx):
        try:
            ctx.step.run("hang", held.wait, timeout="50ms", retries=0)
        except durable.StepTimeout as error:
            seen.append((error.error_type, str(error)))
        ctx.step.sleep("nap", 1)
        return "went on"

    try:
        run = later(start(waiting), 1)
    finally:
        held.set()

    assert run.result() == "went on"
    assert len(seen) >= 2
    assert set(seen) == {("StepTimeout", "Step 'hang' did not end within 50ms.")}


def test_timed_out_body_is_retried(start: Start, later: Later):
    held = threading.Event()
    calls = []

    def body():
        calls.append(1)
        if len(calls) == 1:
            held.wait()
        return len(calls)

    def waiting(ctx):
        backoff = durable.Backoff.fixed("1s")
        return ctx.step.run("hang", body, timeout="50ms", backoff=backoff)

    try:
        run = later(start(waiting), "1s")
    finally:
        held.set()

    assert run.result() == 2


@pytest.mark.parametrize(
    ("retry_on", "calls"), [(durable.StepTimeout, 2), (Refused, 1)], ids=["yes", "no"]
)
def test_retry_on_may_name_the_timeout(start: Start, later: Later, retry_on, calls):
    held = threading.Event()
    made = []

    def body():
        made.append(1)
        held.wait()

    def waiting(ctx):
        options = {"retries": 1, "backoff": durable.Backoff.fixed("1s")}
        ctx.step.run("hang", body, timeout="50ms", retry_on=retry_on, **options)

    try:
        run = later(start(waiting), "1m")
    finally:
        held.set()

    assert run.error["type"] == "StepTimeout"
    assert len(made) == calls


def test_result_after_the_timeout_is_void(start: Start, later: Later):
    held, ended = threading.Event(), threading.Event()

    def body():
        held.wait()
        ended.set()
        return "too late"

    def waiting(ctx):
        try:
            return ctx.step.run("hang", body, timeout="50ms", retries=0)
        except durable.StepTimeout:
            ctx.step.sleep("nap", 1)
            return "timed out"

    run = start(waiting)
    held.set()
    # The abandoned body ends at its next instruction, or its result is ignored.
    run = later(run, 1)

    assert run.result() == "timed out"
    assert run.steps.get(name="hang").status == "failed"


def test_async_body_that_takes_too_long_fails(start: Start):
    async def body():
        await asyncio.Event().wait()

    def waiting(ctx):
        ctx.step.run("hang", body, timeout="50ms", retries=0)

    assert start(waiting).error["type"] == "StepTimeout"


def test_body_that_ends_in_time_is_not_disturbed(start: Start):
    def in_time(ctx):
        return ctx.step.run("quick", lambda: Run.objects.count(), timeout="1h")

    assert start(in_time).result() == 1


def test_error_within_the_timeout_is_the_bodys_own(start: Start):
    def body():
        raise Refused("at once")

    def in_time(ctx):
        ctx.step.run("quick", body, timeout="1h", retries=0)

    assert start(in_time).error["type"] == "Refused"
