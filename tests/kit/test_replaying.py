"""A replay of another installation's run: recorded steps are not called again."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.queries.run_document import history
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


def test_replay_calls_only_steps_that_are_not_recorded(durable_kit: Kit):
    calls: list[str] = []

    @durable.function(id="tests.replayed", retries=0)
    def replayed(ctx):
        first = ctx.step.run("first", lambda: calls.append("first") or {"n": (1, 2)})
        with ctx.step.group("inside"):
            ctx.step.run("second", lambda: calls.append("second"))
        ctx.step.sleep("nap", "1h")
        return [first["n"], ctx.step.run("third", lambda: calls.append("third") or 3)]

    run = replayed.enqueue({"n": 1})
    durable_kit.run_until_idle()
    document = history(run)
    Run.objects.all().delete()
    again = durable_kit.replay(document)
    assert again.status == "waiting"
    durable_kit.advance("1h")
    again.refresh_from_db()
    assert again.result() == [(1, 2), 3]
    assert calls == ["first", "second", "third"]


def test_branches_continue_from_their_own_records(durable_kit: Kit):
    calls: list[int] = []

    @durable.function(id="tests.branches")
    def branches(ctx):
        def branch(n):
            ctx.step.run("before", lambda: calls.append(n))
            ctx.step.wait_for_event("go", "tests/go", if_=f"async.data.n == {n}")
            return n

        return ctx.step.map("each", branch, [1, 2])

    run = branches.enqueue()
    durable_kit.run_until_idle()
    again = durable_kit.replay(history(run))
    run.cancel()
    for n in (1, 2):
        durable_kit.send("tests/go", {"n": n})
    durable_kit.run_until_idle()
    again.refresh_from_db()
    assert again.result() == [1, 2]
    assert sorted(calls) == [1, 2]


def test_failure_is_the_same_again(durable_kit: Kit):
    @durable.function(id="tests.failed", retries=0)
    def failed(ctx):
        def body():
            raise LookupError("no such order")

        ctx.step.run("look", body)

    run = failed.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    again = durable_kit.replay(history(run))
    assert again.status == "failed"
    assert again.error["message"] == run.error["message"]


def test_code_that_has_changed_its_mind_is_found_out(durable_kit: Kit):
    @durable.function(id="tests.changed")
    def changed(ctx):
        ctx.step.sleep("pause", 1)

    run = changed.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance(1)
    document = history(run)
    document["steps"][0]["kind"] = "run"
    again = durable_kit.replay(document)
    assert again.status == "paused"
    assert "pause" in again.reason


@pytest.mark.parametrize("wrong", [{}, [], {"function": "tests.none"}, 7])
def test_invalid_history_is_refused(wrong, durable_kit: Kit):
    with pytest.raises((durable.ConfigurationError, durable.UnknownFunction)):
        durable_kit.replay(wrong)
