"""Pausing a run: no step starts until it is resumed, and nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.conf import settings
from durable_jobs.models import Run, Slot
from durable_jobs.store import runs
from durable_jobs.testing import Kit


def declared(calls: list[str]) -> durable.Function:
    """Declare a function of two steps with a wait between them."""

    @durable.function(id="work")
    def work(ctx):
        ctx.step.run("one", lambda: calls.append("one"))
        event = ctx.step.wait_for_event("go", "a/go", timeout="1d")
        ctx.step.run("two", lambda: calls.append("two"))
        return None if event is None else event.data["n"]

    return work


def test_paused_queued_run_waits_for_the_resume(durable_kit: Kit) -> None:
    calls: list[str] = []
    run = declared(calls).enqueue()
    assert run.pause(reason="the bank is closed") is True
    assert (run.status, run.reason) == ("paused", "the bank is closed")
    durable_kit.advance("1h")
    assert calls == []
    assert run.resume() is True
    assert (run.status, run.reason) == ("queued", "")
    durable_kit.run_until_idle()
    assert calls == ["one"]


def test_action_returns_whether_this_call_changed_the_run(durable_kit: Kit) -> None:
    run = declared([]).enqueue()
    other = Run.objects.get(pk=run.pk)
    assert run.resume() is False
    assert run.pause("first") is True
    assert other.pause("second") is False
    assert other.reason == "first"
    assert other.resume() is True
    assert run.resume() is False
    run.cancel()
    assert run.pause() is False
    assert run.resume() is False
    assert run.status == "cancelled"


def test_events_during_a_pause_are_not_lost(durable_kit: Kit) -> None:
    calls: list[str] = []
    run = declared(calls).enqueue()
    durable_kit.run_until_idle()
    run.pause()
    durable_kit.send("a/go", {"n": 5})
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, calls) == ("paused", ["one"])
    run.resume()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 5
    assert calls == ["one", "two"]


def test_timers_continue_during_a_pause(durable_kit: Kit) -> None:
    calls: list[str] = []
    run = declared(calls).enqueue()
    durable_kit.run_until_idle()
    run.pause()
    durable_kit.advance("2d")
    assert calls == ["one"]
    run.resume()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"
    assert run.output is None


def test_resumed_wait_still_waits(durable_kit: Kit) -> None:
    calls: list[str] = []
    run = declared(calls).enqueue()
    durable_kit.run_until_idle()
    for _ in range(2):
        run.pause()
        run.resume()
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "waiting"
    durable_kit.send("a/go", {"n": 5})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 5


def test_step_executing_at_a_pause_is_recorded_and_no_next_step_begins(
    durable_kit: Kit,
) -> None:
    calls: list[str] = []

    @durable.function(id="work")
    def work(ctx):
        def one() -> int:
            calls.append("one")
            assert Run.objects.get(pk=ctx.run_id).pause("look at this") is True
            return 1

        first = ctx.step.run("one", one)
        second = ctx.step.run("two", lambda: calls.append("two") or 2)
        return [first, second]

    run = work.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, run.reason) == ("paused", "look at this")
    assert (run.lease_token, calls) == (None, ["one"])
    assert run.steps.get().status == "completed"
    run.resume()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == [1, 2]
    assert calls == ["one", "two"]


def test_run_paused_in_its_last_step_ends_at_the_resume(
    durable_kit: Kit,
) -> None:
    calls: list[str] = []

    @durable.function(id="work", on_complete=lambda ctx: calls.append("told"))
    def work(ctx):
        def only() -> int:
            calls.append("only")
            Run.objects.get(pk=ctx.run_id).pause()
            return 1

        return ctx.step.run("only", only)

    run = work.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, calls) == ("paused", ["only"])
    run.resume()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 1
    assert calls == ["only", "told"]


@pytest.mark.exact("it counts calls of the function")
def test_failing_run_that_is_paused_fails_at_the_resume(
    durable_kit: Kit,
) -> None:
    calls: list[int] = []

    @durable.function(id="work", retries=1, backoff=durable.Backoff.fixed("1m"))
    def work(ctx):
        calls.append(ctx.attempt)
        if len(calls) == 1:
            Run.objects.get(pk=ctx.run_id).pause()
        raise ValueError("no")

    run = work.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "paused"
    run.resume()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, calls) == ("failed", [0, 1])


def test_delay_survives_a_pause(durable_kit: Kit) -> None:
    calls: list[str] = []
    run = declared(calls).using(run_after="1h").enqueue()
    run.pause()
    run.resume()
    durable_kit.advance("59m")
    assert calls == []
    run.refresh_from_db()
    assert run.due_at == run.queued_at + timedelta(hours=1)
    durable_kit.advance("1m")
    assert calls == ["one"]


def test_pause_longer_than_the_delay_ends_with_the_resuming(
    durable_kit: Kit,
) -> None:
    calls: list[str] = []
    run = declared(calls).using(run_after="1h").enqueue()
    run.pause()
    durable_kit.advance("1d")
    run.resume()
    durable_kit.run_until_idle()
    assert calls == ["one"]


def test_paused_child_lets_its_parent_wait(durable_kit: Kit) -> None:
    @durable.function(id="child")
    def child(ctx):
        ctx.step.run("stop", Run.objects.get(pk=ctx.run_id).pause)
        return 5

    @durable.function(id="parent")
    def parent(ctx):
        return ctx.step.invoke("call", child)

    run = parent.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "waiting"
    paused = Run.objects.get(function="child")
    assert paused.status == "paused"
    paused.resume()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 5


@pytest.mark.parametrize("seen", [False, True])
def test_run_resumed_during_a_step_continues_after_it(
    durable_kit: Kit, seen: bool
) -> None:
    """Also if the attempt has seen the pause and starts no further step."""
    if seen and settings.ALWAYS_SUSPEND:
        pytest.skip("the function is suspended after its first step, before the resume")
    calls: list[str] = []

    @durable.function(id="work", concurrency=1)
    def work(ctx):
        run = Run.objects.get(pk=ctx.run_id)
        ctx.step.run("one", body, "one", run.pause, None if seen else run.resume)
        try:
            ctx.step.run("two", body, "two")
        finally:
            if seen:
                run.resume()
        return calls

    def body(name, *changes):
        calls.append(name)
        for change in changes:
            if change is not None:
                assert change() is True

    run = work.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == calls == ["one", "two"]


def test_run_resumed_during_a_step_does_not_overlap_itself(
    durable_kit: Kit,
) -> None:
    peak, inside = [], []

    @durable.function(id="work", concurrency=1)
    def work(ctx):
        ctx.step.run("body", body)

    def body():
        inside.append(1)
        peak.append(len(inside))
        if len(inside) == 1:
            run.pause()
            run.resume()
            # other runs are executed meanwhile, where the settings allow it
            durable_kit.advance("20s")
        inside.pop()

    run = work.enqueue()
    durable_kit.run_until_idle()
    assert peak == [1]


def test_run_resumed_after_its_worker_died_is_queued(
    durable_kit: Kit,
) -> None:
    @durable.function(id="work", concurrency=1)
    def work(ctx):
        return ctx.step.run("only", lambda: Run.objects.get(pk=ctx.run_id).pause())

    durable_kit.crash_at("only")
    run = work.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("2m", run=False)
    run.resume()
    assert (run.status, run.lease_token) == ("queued", None)
    assert not Slot.objects.filter(run=run, released_at=None).exists()
    durable_kit.stub("only", "done")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "done"


def test_run_paused_in_its_last_step_has_no_step_slot(
    durable_kit: Kit,
) -> None:

    @durable.function(id="work", concurrency=1)
    def work(ctx):
        run = Run.objects.get(pk=ctx.run_id)
        ctx.step.run("only", run.pause)
        return 1

    run, other = work.enqueue(), work.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    other.refresh_from_db()
    assert (run.status, other.status) == ("paused", "paused")
    assert not Slot.objects.filter(released_at=None).exists()


def test_run_resumed_before_its_lease_is_released_continues_at_once(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt finds the pause; a user resumes the run before its release."""
    suspend, resumed = runs.suspend, []

    def after_resuming(*args: Any, **options: Any) -> str:
        if not resumed:
            resumed.append(run.resume())
        return suspend(*args, **options)

    @durable.function(id="work", concurrency=1)
    def work(ctx):
        if not resumed:
            run.pause()
            monkeypatch.setattr(runs, "suspend", after_resuming)
        return "done"

    run = work.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert resumed == [True]
    assert run.result() == "done"
