"""The timeline of a run, for screens and ``durable_runs show``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.queries.timeline import render_text, timeline

pytestmark = pytest.mark.django_db


def test_rows_follow_the_tree_and_have_times(durable_kit):
    @durable.function(id="t.tree")
    def tree(ctx):
        ctx.step.sleep("wait", "10s")
        with ctx.step.group("outer"):
            ctx.step.run("inside", lambda: 1)

        def branch(item):
            ctx.step.sleep("pause", item)

        ctx.step.map("each", branch, [5, 20])
        ctx.step.run("last", lambda: 2)

    run = tree.enqueue()
    durable_kit.advance("1m")
    run.refresh_from_db()
    rows = timeline(run)
    assert [(row.depth, row.name, row.kind) for row in rows] == [
        (0, "wait", "sleep"),
        (0, "outer", "group"),
        (1, "inside", "run"),
        (0, "each", "map"),
        (1, "0", "branch"),
        (2, "pause", "sleep"),
        (1, "1", "branch"),
        (2, "pause", "sleep"),
        (0, "last", "run"),
    ]
    assert all(row.ended and row.status == "completed" for row in rows)
    assert (rows[0].offset, rows[0].length) == (timedelta(0), timedelta(seconds=10))
    assert (rows[3].offset, rows[3].length) == (
        timedelta(seconds=10),
        timedelta(seconds=20),
    )
    assert rows[-1].offset == timedelta(seconds=30)


def test_open_step_has_taken_the_time_until_now(durable_kit):
    @durable.function(id="t.open")
    def opened(ctx):
        ctx.step.wait_for_event("answer", "t/answer", timeout="1d")

    run = opened.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("2h")
    (row,) = timeline(run)
    assert not row.ended
    assert row.length == timedelta(hours=2)
    assert row.due_at == durable_kit.now() + timedelta(hours=22)
    run.refresh_from_db()
    assert "2h00m" in render_text(run)
    assert "waiting until" in render_text(run)


def test_failures_are_below_their_step(durable_kit):
    tries = []

    def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise ValueError(f"not yet\n{len(tries)}")

    @durable.function(id="t.flaky", backoff=durable.Backoff.fixed("10s"))
    def function(ctx):
        ctx.step.run("shaky", flaky)
        ctx.step.run("doomed", lambda: 1 / 0, retries=0)

    run = function.enqueue()
    durable_kit.advance("1m")
    run.refresh_from_db()
    shaky, doomed = timeline(run)
    assert (shaky.attempt, shaky.status) == (2, "completed")
    assert doomed.error is not None
    lines = render_text(run).splitlines()
    place = next(i for i, line in enumerate(lines) if "shaky" in line)
    assert "attempt 1 failed: ValueError: not yet 1" in lines[place + 1]
    assert "attempt 2 failed: ValueError: not yet 2" in lines[place + 2]
    assert "ZeroDivisionError" in lines[-1]
    assert lines[0].endswith("failed")


def test_copied_steps_have_no_place_on_the_new_run(durable_kit):
    @durable.function(id="t.copied")
    def copied(ctx):
        ctx.step.run("kept", lambda: 1)
        ctx.step.run("again", lambda: 2)

    run = copied.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("1h")
    new = run.rerun(from_step="again")
    (row,) = timeline(new)
    assert (row.name, row.offset) == ("kept", None)
    assert "copied" in render_text(new)


def test_run_that_has_not_begun_says_so(durable_kit):
    @durable.function(id="t.fresh")
    def fresh(ctx):
        return None

    text = render_text(fresh.enqueue())
    assert "not started yet" in text
    assert "no step recorded" in text


def test_lines_are_never_wider_than_a_terminal(durable_kit):
    @durable.function(id="t.wide")
    def wide(ctx):
        with ctx.step.group("g" * 40):
            ctx.step.run("x" * 200, lambda: 1)
        ctx.step.sleep("s", "100d")

    run = wide.enqueue()
    durable_kit.advance("120d")
    run.refresh_from_db()
    assert all(len(line) <= 80 for line in render_text(run).splitlines())


def test_results_are_not_read(durable_kit, django_assert_num_queries):
    @durable.function(id="t.big")
    def big(ctx):
        for number in range(20):
            ctx.step.run(f"s{number}", lambda: "x" * 1000)

    run = big.enqueue()
    durable_kit.run_until_idle()
    with django_assert_num_queries(1) as queries:
        assert len(timeline(run)) == 20
    assert '"output"' not in queries[0]["sql"]
