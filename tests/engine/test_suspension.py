"""Suspension in the middle of a function: what the function may and may not do."""

from __future__ import annotations

import contextlib

from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


def test_except_exception_does_not_swallow_a_suspension(start: Start, later: Later):
    caught = []

    def catching(ctx):
        try:
            ctx.step.sleep("nap", "1h")
            ctx.step.run("after", lambda: 1)
        except Exception as error:  # noqa: BLE001  # the case under test
            caught.append(error)
        return "done"

    run = start(catching)
    assert run.status == "waiting"
    assert later(run, "1h").result() == "done"
    assert not caught


def test_function_that_swallows_its_suspension_is_suspended(start: Start, later: Later):
    calls = []

    def swallowing(ctx):
        with contextlib.suppress(BaseException):
            ctx.step.sleep("nap", "1h")
        ctx.step.run("after", lambda: calls.append(1))
        return "done"

    run = start(swallowing)
    assert run.status == "waiting"
    assert not calls, "the nap is not over"

    assert later(run, "1h").result() == "done"
    assert calls == [1]


def test_return_value_during_a_suspension_is_ignored(start: Start, later: Later):
    def swallowing(ctx):
        try:
            return ctx.step.wait_for_event("wait", "shop/paid", timeout="1h")
        except BaseException:  # noqa: BLE001  # the case under test
            return "swallowed"

    run = start(swallowing)
    assert run.status == "waiting"
    assert later(run, "1h").result() is None


def test_error_raised_from_a_suspension_is_ignored(start: Start, later: Later):
    def turning(ctx):
        try:
            ctx.step.sleep("nap", "1h")
        except BaseException as error:
            raise ValueError("turned") from error
        return "done"

    run = start(turning)
    assert run.status == "waiting"
    assert later(run, "1h").result() == "done"


def test_step_in_a_finally_is_executed_in_its_order(start: Start, later: Later):
    calls: list[str] = []

    def tidying(ctx):
        try:
            ctx.step.run("work", lambda: calls.append("work"))
            ctx.step.sleep("nap", "1h")
            ctx.step.run("more work", lambda: calls.append("more work"))
        finally:
            ctx.step.run("tidy", lambda: calls.append("tidy"))

    run = start(tidying)
    assert run.status == "waiting"
    assert calls == ["work"]

    assert later(run, "1h").status == "completed"
    assert calls == ["work", "more work", "tidy"]


def test_generator_of_the_functions_own_is_closed_in_peace(
    start: Start, later: Later, durable_kit: Kit
):
    closed = []

    def pages(ctx):
        try:
            for page in range(3):
                yield ctx.step.run(f"page {page}", lambda page=page: page)
                ctx.step.sleep(f"pause {page}", 1)
        finally:
            closed.append(1)

    def reading(ctx):
        return list(pages(ctx))

    assert later(start(reading), "1m").result() == [0, 1, 2]
    assert closed


def test_waiting_run_occupies_nothing(start: Start, durable_kit: Kit):
    def waiting(ctx):
        ctx.step.sleep("nap", "366d")

    run = start(waiting)

    assert run.status == "waiting"
    assert (run.lease_token, run.lease_until) == (None, None)
    assert durable_kit.run_until_idle() == 0, "no sweep checks it in between"
