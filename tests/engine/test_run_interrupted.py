"""``ctx.step.run``: workers that die inside it, and at-most-once bodies."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import failing


@pytest.mark.exact("an answer that is lost interrupts the body as well")
@pytest.mark.parametrize(("when", "times"), [("before", 1), ("body", 2), ("after", 1)])
def test_worker_that_dies_at_a_step(
    start: Start, later: Later, durable_kit: Kit, when, times
):
    calls = []

    def charging(ctx):
        ctx.step.run("first", lambda: calls.append("first"))
        ctx.step.run("charge", lambda: calls.append("charge"))
        return "done"

    durable_kit.crash_at("charge", when=when)
    run = start(charging)
    assert run.status == "running", "the worker is dead, and its lease is still valid"

    assert later(run, "61s").result() == "done"
    assert calls.count("first") == 1
    assert calls.count("charge") == times


# At most once


@pytest.mark.exact("an answer that is lost interrupts the body as well")
def test_at_most_once_body_is_never_repeated_after_an_interruption(
    start: Start, later: Later, durable_kit: Kit
):
    calls, seen = [], []

    def paying(ctx):
        try:
            return ctx.step.run("pay", lambda: calls.append(1), at_most_once=True)
        except durable.StepInterrupted as error:
            seen.append((error.error_type, str(error)))
        ctx.step.sleep("nap", 1)
        return "not known"

    durable_kit.crash_at("pay", when="body")
    run = later(start(paying), "2m")

    assert run.result() == "not known"
    assert len(calls) == 1
    assert len(seen) >= 2
    assert len(set(seen)) == 1
    assert "'pay'" in seen[0][1]


@pytest.mark.exact("an answer that is lost interrupts the body as well")
def test_at_most_once_body_that_is_recorded_is_done(
    start: Start, later: Later, durable_kit: Kit
):
    calls = []

    def paying(ctx):
        return ctx.step.run("pay", lambda: calls.append(1) or 7, at_most_once=True)

    durable_kit.crash_at("pay", when="after")

    assert later(start(paying), "61s").result() == 7
    assert len(calls) == 1


@pytest.mark.exact("an answer that is lost interrupts the body as well")
def test_at_most_once_body_that_raises_is_not_retried(start: Start, later: Later):
    calls: list[int] = []

    def paying(ctx):
        ctx.step.run("pay", failing(calls), at_most_once=True)

    run = later(start(paying, retries=4), "1d")

    assert run.error["type"] == "Broken"
    assert len(calls) == 1


def test_at_most_once_step_refuses_retries(start: Start):
    def contradicting(ctx):
        ctx.step.run("pay", lambda: None, at_most_once=True, retries=2)

    run = start(contradicting)
    assert run.error["type"] == "ConfigurationError"
    assert "at most once" in run.error["message"]
