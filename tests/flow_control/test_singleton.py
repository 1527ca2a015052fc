"""Singleton: one live run for each key; the mode decides about the next run."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from tests.flow_control.conftest import Diary, count, reasons, statuses

MODES: list[Any] = ["skip", "cancel", "queue"]


def test_skip_leaves_a_skipped_run_that_names_the_live_one(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton(key="event.data.k"))
    diary.sends(3, k="a", nap="1h")
    diary.kit.run_until_idle()
    assert statuses() == ["waiting", "skipped", "skipped"]
    live = Run.objects.get(status="waiting")
    assert reasons()[1] == f'singleton: run {live.pk} is live for key "a".'
    diary.kit.advance("1h")
    diary.send(9, k="a")
    diary.kit.run_until_idle()
    assert diary.order == [0, 9]


def test_skip_is_the_default() -> None:
    assert durable.Singleton().mode == "skip"


def test_cancel_replaces_the_live_run_by_the_newest(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton(mode="cancel"))
    for n in range(3):
        diary.send(n, nap="1h")
        diary.kit.run_until_idle()
    assert statuses() == ["cancelled", "cancelled", "waiting"]
    newer = Run.objects.order_by("pk")[1]
    assert reasons()[0] == f"singleton: replaced by run {newer.pk}."
    diary.kit.advance("1h")
    assert statuses()[-1] == "completed"


def test_cancel_in_one_burst_keeps_only_the_last(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton(mode="cancel"))
    diary.sends(10, nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == [9]
    assert count("cancelled") == 9
    diary.kit.advance("1h")


def test_cancel_calls_the_handler_of_the_cancelled(diary: Diary) -> None:
    told: list[str] = []
    diary.work(
        singleton=durable.Singleton(mode="cancel"),
        on_cancel=lambda ctx: told.append(ctx.event.data["reason"]),
    )
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    diary.send(1)
    diary.kit.run_until_idle()
    assert len(told) == 1
    assert "replaced by run" in told[0]


def test_queue_runs_them_one_after_another_in_order(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton(mode="queue"))
    diary.sends(4, nap="1m")
    diary.kit.advance("10m")
    assert diary.entries == [(0, 0), (1, 60), (2, 120), (3, 180)]


@pytest.mark.parametrize("mode", MODES)
def test_keys_have_separate_live_runs(diary: Diary, mode: Any) -> None:
    diary.work(singleton=durable.Singleton(key="event.data.k", mode=mode))
    for key in ("a", "b", None, 1, "1", "x" * 10_000):
        diary.sends(2, k=key, nap="1h")
    diary.kit.run_until_idle()
    assert count("waiting") == 6
    diary.kit.advance("3h")
    assert not Run.objects.live().exists()


@pytest.mark.parametrize("mode", MODES)
def test_run_is_live_while_it_sleeps_is_retried_or_its_worker_died(
    diary: Diary, mode: Any
) -> None:
    diary.work(singleton=durable.Singleton(mode=mode))
    diary.kit.crash_at("note", "body")
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    for n, pause in enumerate(["10s", "2m", "2h"], start=1):
        diary.send(n)
        diary.kit.run_until_idle()
        assert Run.objects.live().count() <= (1 if mode != "queue" else n + 1)
        diary.kit.advance(pause)
    expected = {
        "skip": [],
        "cancel": [1, 2, 3],
        "queue": [1, 2, 3],
    }
    diary.kit.advance("1h")
    assert [n for n in diary.order if n] == expected[mode]


@pytest.mark.parametrize("end", ["fails", "cancelled", "times out"])
@pytest.mark.parametrize("mode", MODES)
def test_singleton_releases_its_slot_when_the_run_ends_in_any_status(
    diary: Diary, mode: Any, end: str
) -> None:
    @durable.function(
        id="flow.once",
        retries=0,
        singleton=durable.Singleton(mode=mode),
        timeouts=durable.Timeouts(finish="1m"),
    )
    def once(ctx):
        if end == "fails":
            raise ValueError("never")
        ctx.step.sleep("nap", "1h")

    first = once.enqueue()
    diary.kit.run_until_idle()
    if end == "cancelled":
        first.cancel()
    diary.kit.advance("2m")
    assert not Run.objects.live().exists()
    second = once.enqueue()
    diary.kit.run_until_idle()
    second.refresh_from_db()
    assert second.status == ("failed" if end == "fails" else "waiting")
    diary.kit.advance("2m")


@pytest.mark.parametrize("mode", MODES)
def test_paused_run_is_live(diary: Diary, mode: Any) -> None:
    diary.work(singleton=durable.Singleton(mode=mode))
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    first = Run.objects.get()
    first.pause()
    diary.send(1)
    diary.kit.advance("2h")
    expected = {
        "skip": ["paused", "skipped"],
        "cancel": ["cancelled", "completed"],
        "queue": ["paused", "queued"],
    }
    assert statuses() == expected[mode]
    first.resume()
    diary.kit.advance("2h")
    assert not Run.objects.live().exists()


def test_run_cancelled_while_it_executes_does_not_return(
    diary: Diary,
) -> None:
    work: list[Any] = []

    @durable.function(id="flow.self", singleton=durable.Singleton(mode="cancel"))
    def replace_me(ctx):
        if ctx.event.data["n"] == 0:
            ctx.step.start("again", work[0], {"n": 1})
        diary.note(ctx.event.data["n"])
        ctx.step.run("last", lambda: None)

    work.append(replace_me)
    replace_me.enqueue({"n": 0})
    diary.kit.run_until_idle()
    assert statuses() in (["completed", "completed"], ["cancelled", "completed"])


def test_cancelled_run_may_be_redriven_when_no_other_is_live(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton(mode="cancel"))
    for n in range(2):
        diary.send(n, nap="1h")
        diary.kit.run_until_idle()
    diary.kit.advance("1h")
    first = Run.objects.get(data__n=0)
    assert first.redrive()
    diary.kit.advance("1h")
    first.refresh_from_db()
    assert first.status == "completed"


def test_redriven_run_that_is_refused_can_be_redriven_again(diary: Diary) -> None:
    diary.work(singleton=durable.Singleton())
    diary.send(0, nap="1h")
    diary.kit.run_until_idle()
    first = Run.objects.get()
    first.cancel("by hand")
    diary.kit.run_until_idle()
    diary.send(1, nap="1h")
    diary.kit.run_until_idle()
    assert first.redrive()
    diary.kit.run_until_idle()
    first.refresh_from_db()
    assert first.status == "cancelled"
    assert "is live" in first.reason
    diary.kit.advance("2h")
    assert first.redrive()
    diary.kit.advance("2h")
    first.refresh_from_db()
    assert first.status == "completed"
