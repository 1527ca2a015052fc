"""``Step.logs``: log lines of a step's body, if the project has the handler."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import datetime, timedelta

import pytest

from durable_jobs import clock, durable
from durable_jobs.logs import LINES, MAX_MESSAGE, Lines, StepHandler
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken, failing

#: The project's ``LOGGING`` has the handler on the loggers above this one.
logger = logging.getLogger("project.tests")


def say(text, *args):
    logger.info(text, *args)


async def soon_say(text):
    await asyncio.sleep(0)
    logger.info(text)


@pytest.fixture
def alone():
    """Yield a logger with the handler, or with another, and no other handlers."""
    own = logging.getLogger("tests.alone")
    own.setLevel(logging.DEBUG)
    own.propagate = False

    def make(handler=None):
        own.handlers[:] = [handler or StepHandler()]
        return own

    yield make
    own.handlers.clear()


def messages(row):
    return None if row.logs is None else [line["message"] for line in row.logs["lines"]]


def of_steps(run):
    return {step.name: messages(step) for step in run.steps.order_by("position")}


def test_step_stores_the_log_lines_of_its_body(start: Start, durable_kit: Kit):
    def talking(ctx):
        logger.info("outside of any step")
        ctx.step.run("talk", say, "charge %d for %s", 7, "Ann")
        ctx.step.run("silent", lambda: None)

    run = start(talking)

    step = run.steps.get(name="talk")
    [line] = step.logs["lines"]
    at = datetime.fromisoformat(line.pop("at"))
    assert line == {
        "level": "INFO",
        "logger": "project.tests",
        "message": "charge 7 for Ann",
    }
    # By the clock of the run, which is fixed here and is not the machine's.
    assert timedelta() <= at - step.started_at < timedelta(minutes=2)
    assert step.logs["left_out"] == 0
    assert run.steps.get(name="silent").logs is None


def test_each_step_has_its_own(start: Start):
    @durable.step
    def charge(number):
        logger.info("decorated %d", number)

    def talking(ctx):
        ctx.step.run("one", say, "1")
        logger.info("between")
        ctx.step.run("two", say, "2")
        ctx.step.atomic("three", say, "3")
        charge(4)

    assert of_steps(start(talking)) == {
        "one": ["1"], "two": ["2"], "three": ["3"], "charge": ["decorated 4"]
    }  # fmt: skip


def test_async_bodies_and_threads_store_their_log_lines(start: Start):
    def plain(ctx):
        ctx.step.run("async", soon_say, "a")
        ctx.step.run("limited", say, "b", timeout="1m")
        ctx.step.run("both", soon_say, "c", timeout="1m")

    assert of_steps(start(plain)) == {"async": ["a"], "limited": ["b"], "both": ["c"]}


def test_concurrent_async_steps_keep_their_log_lines_apart(start: Start):
    async def talk(name):
        for number in range(3):
            await asyncio.sleep(0)
            logger.info("%s %d", name, number)

    async def talking(ctx):
        await asyncio.gather(
            *(ctx.step.run(name, talk, name) for name in "ab"),
            ctx.step.run("thread", say, "t"),
            ctx.step.atomic("atomic", say, "u"),
        )

    assert of_steps(start(talking)) == {
        "a": ["a 0", "a 1", "a 2"],
        "b": ["b 0", "b 1", "b 2"],
        "thread": ["t"],
        "atomic": ["u"],
    }


def test_branches_and_their_steps_store_separate_log_lines(start: Start):
    def branch(item):
        logger.info("branch %d", item)
        durable_step(item)
        logger.info("branch %d ends", item)

    @durable.step
    def durable_step(item):
        logger.info("step %d", item)

    def mapping(ctx):
        ctx.step.map("all", branch, [1, 2])
        ctx.step.parallel("async", [lambda: None, lambda: say("plain"), _soon])

    async def _soon():
        logger.info("soon")

    run = start(mapping)
    found = sorted(
        (step.kind, *messages(step)) for step in run.steps.exclude(logs__isnull=True)
    )
    assert found == [
        ("branch", "branch 1", "branch 1 ends"),
        ("branch", "branch 2", "branch 2 ends"),
        ("branch", "plain"),
        ("branch", "soon"),
        ("run", "step 1"),
        ("run", "step 2"),
    ]


def test_async_branches_store_their_log_lines(start: Start):
    async def mapping(ctx):
        async def branch(item):
            logger.info("branch %d", item)
            await ctx.step.run("inside", say, f"step {item}")

        await ctx.step.map("all", branch, [1, 2])

    run = start(mapping)
    assert sorted(messages(step)[-1] for step in run.steps.exclude(kind="map")) == [
        "branch 1", "branch 2", "step 1", "step 2"
    ]  # fmt: skip


def test_failed_attempt_has_its_own_log_lines(start: Start, later: Later):
    calls: list[int] = []
    fail = failing(calls, until=3)

    def body():
        logger.info("attempt %d", len(calls))
        return fail()

    def flaky(ctx):
        ctx.step.run("try", body)

    run = start(flaky)
    assert messages(run.steps.get()) is None
    run = later(run, "1h")

    assert run.status == "completed"
    attempts = run.attempts.order_by("number")
    assert [messages(one) for one in attempts] == [["attempt 0"], ["attempt 1"]]
    assert messages(run.steps.get()) == ["attempt 2"]


def test_failed_step_has_the_log_lines_of_its_last_attempt(start: Start):
    def body():
        logger.warning("it will fail")
        raise Broken

    def refusing(ctx):
        ctx.step.run("fail", body, retries=0)

    run = start(refusing, retries=0)
    assert of_steps(run) == {"fail": ["it will fail"]}


def test_result_that_is_refused_leaves_the_lines(start: Start):
    def body():
        logger.warning("here is a thing")
        return object()

    def refused(ctx):
        ctx.step.run("run", body)

    run = start(refused, retries=0)
    assert run.steps.get().status == "failed"
    assert of_steps(run) == {"run": ["here is a thing"]}


def test_failed_atomic_body_keeps_its_log_lines_and_nothing_else(
    start: Start, later: Later
):
    fail = failing([], until=2)

    def body():
        logger.info("writing")
        Tenant.objects.create(name="Ann")
        return fail()

    def writing(ctx):
        ctx.step.atomic("write", body)

    run = start(writing)
    assert not Tenant.objects.exists()
    assert messages(run.attempts.get()) == ["writing"]

    run = later(run, "1h")
    assert of_steps(run) == {"write": ["writing"]}
    assert Tenant.objects.count() == 1


def test_timed_out_body_keeps_the_log_lines_so_far(start: Start):
    never = threading.Event()

    def body():
        logger.info("before")
        never.wait()
        logger.info("after")

    def slow(ctx):
        ctx.step.run("slow", body, timeout=0.2, retries=0)

    try:
        run = start(slow, retries=0)
    finally:
        never.set()
    assert run.steps.get().error["type"] == "StepTimeout"
    assert of_steps(run) == {"slow": ["before"]}


@pytest.mark.exact("a lost answer interrupts it")
def test_at_most_once_step_has_its_log_lines(start: Start):
    def once(ctx):
        ctx.step.run("once", say, "hello", at_most_once=True)

    assert of_steps(start(once)) == {"once": ["hello"]}


def test_condition_has_the_lines_of_its_last_check(start: Start, later: Later):
    def check(state):
        logger.info("asked %s", state)
        return durable.Done(1) if state == 2 else (state or 0) + 1

    def asking(ctx):
        ctx.step.wait_for_condition("met", check, every="1m")

    run = start(asking)
    assert of_steps(run) == {"met": ["asked None"]}
    assert of_steps(later(run, "5m")) == {"met": ["asked 2"]}


def test_callback_has_the_log_lines_of_its_submission(start: Start):
    def asking(ctx):
        ctx.step.wait_for_callback("answer", lambda callback: say("submitted"))

    assert of_steps(start(asking)) == {"answer": ["submitted"]}


def test_log_lines_of_an_awaited_run_stay_with_that_run(start: Start, durable_kit: Kit):
    @durable.function(id="tests.inner")
    def inner(ctx):
        logger.info("of no step")
        ctx.step.run("inner", say, "inside")

    def body():
        logger.info("before")
        inner.enqueue()
        durable_kit.run_until_idle()
        logger.info("after")

    def outer(ctx):
        ctx.step.run("outer", body)

    run = start(outer)
    assert of_steps(run) == {"outer": ["before", "after"]}


def test_last_lines_are_kept_and_the_others_counted(start: Start):
    def talking(ctx):
        ctx.step.run("talk", lambda: [say("%d", n) for n in range(LINES + 5)] and None)

    [step] = start(talking).steps.all()
    assert messages(step) == [str(n) for n in range(5, LINES + 5)]
    assert step.logs["left_out"] == 5


def test_long_message_is_cut(start: Start):
    def talking(ctx):
        ctx.step.run("talk", lambda: say("x" * 10_000))

    [message] = messages(start(talking).steps.get())
    assert len(message) == MAX_MESSAGE
    assert message.endswith("x…")


def test_error_is_its_type_and_message_without_its_locals(start: Start):
    def body():
        secret = "hunter2"
        try:
            raise Broken("no such order")
        except Broken:
            logger.exception("it went %s", "wrong" + "!" * 5_000)
            logger.exception("again")
        return len(secret)

    def talking(ctx):
        ctx.step.run("talk", body)

    step = start(talking).steps.get()
    long, short = messages(step)
    assert long.startswith("it went wrong!")
    assert len(long) <= MAX_MESSAGE
    error = "tests.engine.failures.Broken: no such order"
    assert long.endswith(f"!\n{error}")
    assert short == f"again\n{error}"
    assert [line["level"] for line in step.logs["lines"]] == ["ERROR", "ERROR"]


def test_characters_that_no_database_stores_are_escaped(start: Start, alone):
    def talking(ctx):
        ctx.step.run("talk", lambda: alone().warning("a\x00b \ud800"))

    assert of_steps(start(talking)) == {"talk": ["a\\x00b \\ud800"]}


def test_unreadable_log_record_breaks_nothing(start: Start, monkeypatch):
    class Odd:
        def __str__(self):
            raise Broken

    monkeypatch.setattr(logging, "raiseExceptions", False)

    def talking(ctx):
        return ctx.step.run("talk", lambda: [say("%s", Odd()), say("fine")] and 7)

    run = start(talking)
    assert run.result() == 7
    assert of_steps(run) == {"talk": ["fine"]}


def test_levels_and_filters_of_the_handler_count(start: Start, alone):
    handler = StepHandler(level=logging.WARNING)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    own = alone(handler)

    def body():
        own.info("too low")
        own.warning("a secret")
        own.warning("kept")

    def talking(ctx):
        ctx.step.run("talk", body)

    assert of_steps(start(talking)) == {"talk": ["kept"]}


def test_loggers_without_the_handler_store_nothing(start: Start):
    def talking(ctx):
        ctx.step.run("talk", lambda: logging.getLogger("tests.bare").warning("no"))

    assert of_steps(start(talking)) == {"talk": None}


def test_handler_ignores_lines_outside_of_steps():
    record = logging.makeLogRecord({"msg": "%s", "args": (1, 2)})
    StepHandler().handle(record)  # would raise if it were read


def test_lines_are_taken_once():
    lines = Lines(clock.now())
    assert lines.take() is None
    lines.add("INFO", "x", "one")
    assert [line["message"] for line in lines.take()["lines"]] == ["one"]
    lines.add("INFO", "x", "two")
    assert [line["message"] for line in lines.take()["lines"]] == ["two"]
    assert lines.take() is None
