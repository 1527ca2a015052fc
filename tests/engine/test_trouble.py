"""A database that fails under a step ends the attempt, even if its error is caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import OperationalError

from durable_jobs import durable, failpoints
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start

pytestmark = pytest.mark.exact("it brings its own trouble")


@contextmanager
def lost_answer(place: str, step: str) -> Iterator[None]:
    """Let the database fail once at a failpoint of a step."""
    left = [(place, step)]

    def passed(*here: str) -> None:
        if here in left:
            left.remove((place, step))
            raise OperationalError("the answer was lost")

    with failpoints.watching(passed):
        yield
    assert not left


def test_commit_whose_reply_is_lost_is_no_failure_of_an_atomic_step(
    start: Start, later: Later
):
    calls: list[int] = []

    def booking(ctx):
        return ctx.step.atomic("book", lambda: calls.append(1) or len(calls))

    with lost_answer("record.committed", "book"):
        run = later(start(booking, retries=0), "2s")
    assert (run.status, run.output) == ("completed", 1)
    assert calls == [1]
    assert not run.attempts.exists()


def test_pause_after_database_errors_in_a_row_doubles(start: Start, durable_kit: Kit):
    def fail(place: str, step: str) -> None:
        if place == "record.begin":
            raise OperationalError("the database is away")

    def working(ctx):
        ctx.step.run("work", int)

    pauses = []
    with failpoints.watching(fail):
        run = start(working, retries=0)
        for _ in range(4):
            pauses.append((run.due_at - durable_kit.now()).total_seconds())
            durable_kit.travel_to(run.due_at)
            durable_kit.run_until_idle()
            run.refresh_from_db()
    assert pauses == [1, 2, 4, 8]


def test_step_in_a_finally_is_not_executed_after_a_database_failure(
    start: Start, later: Later
):
    calls: list[str] = []

    def tidying(ctx):
        try:
            ctx.step.run("work", calls.append, "work")
            ctx.step.sleep("nap", "1h")
        finally:
            ctx.step.run("tidy", calls.append, "tidy")

    with lost_answer("record.committed", "work"):
        run = later(start(tidying), "2s")
    assert (run.status, calls) == ("waiting", ["work"])
    assert later(run, "1h").status == "completed"
    assert calls == ["work", "tidy"]


def test_function_that_swallows_a_database_failure_is_retried(
    start: Start, later: Later
):
    def swallowing(ctx):
        try:
            return ctx.step.run("work", lambda: "worked")
        except BaseException as error:
            if isinstance(error, Exception):
                raise
            return "swallowed"

    with lost_answer("record.begin", "work"):
        run = later(start(swallowing), "2s")
    assert run.result() == "worked"


def test_step_in_a_finally_is_not_executed_after_a_takeover(
    start: Start, durable_kit: Kit
):
    calls: list[str] = []

    def tidying(ctx):
        try:
            ctx.step.run("cancel", lambda: ctx.run.cancel("enough"))
        finally:
            ctx.step.run("tidy", calls.append, "tidy")

    run = start(tidying)
    assert (run.status, calls) == ("cancelled", [])


def test_check_after_commit_of_a_dead_worker_is_made_later(start: Start, later: Later):
    def late(ctx):
        ctx.step.sleep("nap", "1h")
        return ctx.step.wait_for_event("w", "early/bird", since="run").data["n"]

    run = start(late)
    durable.send("early/bird", {"n": 7})
    with lost_answer("find_earlier.begin", "w"):
        run = later(run, "1h")
    assert run.status == "waiting"
    run = later(run, "5s")
    assert (run.status, run.output) == ("completed", 7)
    assert Run.objects.count() == 1
