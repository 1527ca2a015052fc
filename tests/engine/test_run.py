"""``ctx.step.run``: executed at least once, recorded exactly once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.models import Run
from tests.engine.conftest import Later, Start


def test_body_is_called_once_though_the_function_is_called_again(
    start: Start, later: Later
):
    calls, entries = [], []

    def twice(ctx):
        entries.append(1)
        first = ctx.step.run("one", lambda: calls.append("one") or 1)
        ctx.step.sleep("nap", "1h")
        second = ctx.step.run("two", lambda: calls.append("two") or 2)
        ctx.step.sleep("another nap", "1h")
        return [first, second]

    run = later(start(twice), "3h")

    assert run.result() == [1, 2]
    assert calls == ["one", "two"]
    assert len(entries) >= 3


def test_arguments_reach_the_body(start: Start):
    def take(*args, **named):
        return [list(args), named]

    def giving(ctx):
        return ctx.step.run("take", take, 1, "two", fn="a", id="b", using=None)

    assert start(giving).result() == [[1, "two"], {"fn": "a", "id": "b", "using": None}]


def test_record_of_a_step_can_be_read(start: Start):
    def recorded(ctx):
        return ctx.step.run("read me", lambda: {"a": 1})

    run = start(recorded)

    step = run.steps.get()
    assert (step.name, step.kind, step.status) == ("read me", "run", "completed")
    assert step.output == {"a": 1}
    assert step.started_at is not None
    assert step.ended_at is not None


def test_async_body_in_a_plain_function(start: Start):
    async def body(number):
        return number + 1

    def plain(ctx):
        return ctx.step.run("async", body, 1)

    assert start(plain).result() == 2


def test_body_may_wait_for_another_run(start: Start):
    @durable.function(id="tests.other")
    def other(ctx):
        return ctx.step.run("inside the other", lambda: ctx.attempt)

    def waiting(ctx):
        return ctx.step.run("wait", lambda: other.enqueue().wait(timeout=10).result())

    assert start(waiting).result() == 0


# Queues


def test_step_may_run_on_its_own_queue(start: Start):
    queues = []

    def note():
        queues.append(Run.objects.get().queue)

    def moving(ctx):
        ctx.step.run("here", note)
        ctx.step.run("there", note, queue="big-machines")
        ctx.step.run("here again", note)
        return "done"

    assert start(moving).result() == "done"
    assert queues == ["default", "big-machines", "default"]


# Invalid calls


def test_step_inside_a_steps_body_is_refused(start: Start):
    def nesting(ctx):
        ctx.step.run("outer", lambda: ctx.step.run("inner", lambda: 1))

    run = start(nesting)

    assert run.error["type"] == "NestedStepError"
    assert "'inner'" in run.error["message"]
    assert "'outer'" in run.error["message"]
    assert not run.steps.filter(name="inner").exists()


def test_step_inside_a_transaction_is_refused(start: Start):
    calls = []

    def in_transaction(ctx):
        with transaction.atomic():
            ctx.step.run("mail", lambda: calls.append(1))

    run = start(in_transaction)

    assert run.error["type"] == "ConfigurationError"
    assert "transaction.atomic()" in run.error["message"]
    assert not calls


def test_step_in_a_thread_of_the_functions_own_is_refused(start: Start):
    told = []

    def threading_itself(ctx):
        def elsewhere():
            try:
                ctx.step.run("inside", lambda: 1)
            except durable.ConfigurationError as error:
                told.append(error.message)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    run = start(threading_itself)

    assert run.status == "completed"
    assert "parallel" in told[0]


WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no callable": (("x", "not a function"), {}, "callable"),
    "an empty id": (("", print), {}, "step id"),
    "an id that is no text": ((7, print), {}, "step id"),
    "an id that is too long": (("x" * 256, print), {}, "255"),
    "an id of two lines": (("line\nbreak", print), {}, "printable"),
    "negative retries": (("x", print), {"retries": -1}, "retries"),
    "too many retries": (("x", print), {"retries": 21}, "20"),
    "retries that are no number": (("x", print), {"retries": "many"}, "retries"),
    "a backoff that is none": (("x", print), {"backoff": 3}, "backoff"),
    "no time at all": (("x", print), {"timeout": 0}, "timeout"),
    "a time that is no duration": (("x", print), {"timeout": "soon"}, "timeout"),
    "a negative time": (("x", print), {"timeout": -1}, "timeout"),
    "an error that is none": (("x", print), {"retry_on": "ValueError"}, "retry_on"),
    "an empty queue": (("x", print), {"queue": ""}, "queue"),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_call_fails_at_once_and_is_not_retried(start: Start, case):
    args, options, expected = WRONG[case]
    entries = []

    def mistaken(ctx):
        entries.append(1)
        ctx.step.run(*args, **options)

    run = start(mistaken)

    assert run.status == "failed"
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
    assert len(entries) == 1
