"""``durable_runs``: its list, its timeline and its actions."""

from __future__ import annotations

import uuid

import pytest
from django.core.management import CommandError

from durable_jobs import durable
from durable_jobs.models import Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def napper(durable_kit):
    """Declare a function that sleeps between two steps."""

    @durable.function(id="t.napper")
    def napper(ctx):
        ctx.step.run("first", lambda: 1)
        ctx.step.sleep("nap", "1h")
        return ctx.step.run("last", lambda: {"n": 2})

    return napper


@pytest.fixture
def failer(durable_kit):
    """Declare a function that fails."""

    @durable.function(id="t.failer", retries=0)
    def failer(ctx):
        raise ValueError("no luck")

    return failer


@pytest.fixture
def runs(durable_kit, napper, failer):
    """Create a sleeping run, and a later one that has failed."""
    asleep, failed = napper.enqueue(), failer.enqueue()
    durable_kit.run_until_idle()
    return asleep, failed


def test_list_has_the_newest_first(runs, call):
    asleep, failed = runs
    first, second = call("durable_runs").splitlines()
    assert str(failed.pk) in first
    assert "failed" in first
    assert "t.failer" in first
    assert str(asleep.pk) in second
    assert "waiting" in second


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--function", "t.napper"], ["t.napper"]),
        (["--status", "failed"], ["t.failer"]),
        (["--limit", "1"], ["t.failer"]),
        (["--function", "t.napper", "--status", "failed"], []),
    ],
)
def test_list_can_be_filtered(runs, call_json, options, found):
    assert [row["function"] for row in call_json("durable_runs", *options)] == found


def test_empty_list_is_reported(durable_kit, call):
    assert call("durable_runs") == "No runs.\n"


def test_show_prints_a_timeline(durable_kit, runs, call):
    asleep, _ = runs
    durable_kit.advance("10m")
    shown = call("durable_runs", "show", asleep.pk)
    assert f"Run {asleep.pk} of t.napper: waiting" in shown
    rows = [line for line in shown.splitlines() if "(" in line]
    assert "first (run)" in rows[-2]
    assert "completed" in rows[-2]
    assert "nap (sleep)" in rows[-1]
    assert "sleeping until" in rows[-1]


def test_show_prints_everything_as_json(durable_kit, napper, call_json):
    run = napper.enqueue({"x": 1})
    durable_kit.advance("1h")
    shown = call_json("durable_runs", "show", run.pk)
    assert shown["id"] == str(run.pk)
    assert shown["data"] == {"x": 1}
    assert shown["output"] == {"n": 2}
    assert [(row["name"], row["status"]) for row in shown["steps"]] == [
        ("first", "completed"),
        ("nap", "completed"),
        ("last", "completed"),
    ]
    assert shown["steps"][1]["length"] == 3600


def test_cancel_cancels_a_run(runs, call):
    asleep, _ = runs
    said = call("durable_runs", "cancel", asleep.pk, "--reason", "not wanted")
    assert said == f"Run {asleep.pk} of t.napper is cancelled.\n"
    asleep.refresh_from_db()
    assert (asleep.status, asleep.reason) == ("cancelled", "not wanted")


def test_ended_runs_are_left_unchanged(runs, call, call_json):
    _, failed = runs
    assert "is unchanged: failed" in call("durable_runs", "cancel", failed.pk)
    assert call_json("durable_runs", "cancel", failed.pk)["done"] is False


def test_pause_and_resume_change_a_run(durable_kit, runs, call):
    asleep, _ = runs
    assert "is paused" in call("durable_runs", "pause", asleep.pk)
    assert "is queued" in call("durable_runs", "resume", asleep.pk)
    durable_kit.advance("1h")
    asleep.refresh_from_db()
    assert asleep.result() == {"n": 2}


def test_rerun_begins_at_a_step(durable_kit, napper, call_json):
    run = napper.enqueue()
    durable_kit.advance("1h")
    made = call_json("durable_runs", "rerun", run.pk, "--from-step", "nap")
    assert made["id"] != str(run.pk)
    new = Run.objects.get(pk=made["id"])
    assert list(new.steps.values_list("name", flat=True)) == ["first"]
    durable_kit.advance("1h")
    new.refresh_from_db()
    assert new.result() == {"n": 2}


def test_redrive_continues_failed_runs(durable_kit, runs, call):
    _, failed = runs
    assert "is queued" in call("durable_runs", "redrive", failed.pk)


@pytest.mark.parametrize("text", ["nonsense", str(uuid.UUID(int=7))])
def test_unknown_run_is_an_error(durable_kit, call, text):
    with pytest.raises(CommandError, match=text):
        call("durable_runs", "show", text)


def test_unknown_step_is_an_error(durable_kit, runs, call):
    asleep, _ = runs
    with pytest.raises(CommandError, match="has no step 'nothing'"):
        call("durable_runs", "rerun", asleep.pk, "--from-step", "nothing")


def test_limit_below_one_is_an_error(durable_kit, call):
    with pytest.raises(CommandError, match="1 or more"):
        call("durable_runs", "--limit", 0)
