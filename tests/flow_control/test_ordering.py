"""Ordering: strictly first in, first out, one at a time for each key."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from tests.flow_control.conftest import Diary, count, statuses


def test_runs_of_a_key_are_sequential_and_keys_are_parallel(
    diary: Diary,
) -> None:
    diary.work(ordering="event.data.k")
    for n in range(3):
        for key in ("a", "b"):
            diary.send(f"{key}{n}", k=key, nap="1m")
    diary.kit.advance("1h")
    assert [sorted(diary.order[n : n + 2]) for n in (0, 2, 4)] == [
        ["a0", "b0"],
        ["a1", "b1"],
        ["a2", "b2"],
    ]
    assert diary.times == [0, 0, 60, 60, 120, 120]


def test_null_is_a_key_like_any_other(diary: Diary) -> None:
    diary.work(ordering="event.data.nobody")
    diary.sends(3, nap="1m")
    diary.kit.advance("1h")
    assert diary.times == [0, 60, 120]


@pytest.mark.parametrize("where", ["step", "body"])
def test_next_run_waits_for_all_the_retries_of_the_first(
    diary: Diary, where: str
) -> None:
    def fail() -> None:
        raise ValueError("never")

    @durable.function(
        id="flow.ordered",
        ordering=lambda e: "k",
        retries=2,
        backoff=durable.Backoff.fixed("10m"),
    )
    def ordered(ctx):
        diary.note(ctx.event.data["n"])
        if ctx.event.data["n"] == 0:
            ctx.step.run("fail", fail) if where == "step" else fail()

    for n in range(2):
        ordered.enqueue({"n": n})
    diary.kit.advance("2h")
    assert diary.order[-1] == 1
    assert diary.times[-1] == 1200
    assert statuses() == ["failed", "completed"]


@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_next_run_waits_while_a_worker_is_dead(diary: Diary, when: Any) -> None:
    diary.work(ordering=lambda e: "k")
    diary.sends(3)
    diary.kit.crash_at("note", when)
    diary.kit.advance("10m")
    assert [n for n, _ in diary.entries if n] == [1, 2]
    assert diary.order.index(1) > max(
        place for place, n in enumerate(diary.order) if n == 0
    )
    assert count("completed") == 3


def test_paused_or_sleeping_run_blocks_the_runs_behind_it(diary: Diary) -> None:
    diary.work(ordering=lambda e: "k")
    diary.sends(2, nap="1h")
    diary.kit.run_until_idle()
    first = Run.objects.get(data__n=0)
    first.pause()
    diary.kit.advance("1d")
    assert diary.order == [0]
    first.resume()
    diary.kit.advance("1d")
    assert diary.order == [0, 1]
    assert count("completed") == 2


def test_cancelled_run_releases_the_next(diary: Diary) -> None:
    diary.work(ordering=lambda e: "k")
    diary.sends(3, nap="1h")
    diary.kit.run_until_idle()
    Run.objects.get(data__n=0).cancel()
    Run.objects.get(data__n=1).cancel()
    diary.kit.advance("2h")
    assert diary.order == [0, 2]


def test_order_is_kept_whatever_other_keys_a_run_has(diary: Diary) -> None:
    diary.work(
        ordering="event.data.k",
        concurrency=durable.Concurrency(5, key="event.data.tenant", of="runs"),
        throttle=durable.Throttle(100, "1s", key="event.data.n", burst=100),
    )
    for n, tenant in enumerate("aabbaacca"):
        diary.send(n, k="one", tenant=tenant, nap="1m")
    diary.kit.advance("1h")
    assert diary.order == list(range(9))
    assert diary.times == [60 * n for n in range(9)]


def test_first_run_waits_at_its_other_limits_for_all(diary: Diary) -> None:
    diary.work(
        ordering="event.data.k",
        concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"),
    )
    diary.send(0, k="other", tenant="busy", nap="1h")
    diary.kit.run_until_idle()
    diary.send(1, k="line", tenant="busy", nap="1m")
    diary.send(2, k="line", tenant="free", nap="1m")
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 3600), (2, 3660)]


def test_paused_key_blocks_its_backlog(diary: Diary) -> None:
    work = diary.work(
        ordering="event.data.k",
        concurrency=durable.Concurrency(9, key="event.data.tenant", of="runs"),
    )
    work.pause(key="held")
    diary.send(0, k="line", tenant="held")
    diary.send(1, k="line", tenant="free")
    diary.kit.advance("5m")
    assert diary.order == []
    work.resume(key="held")
    diary.kit.run_until_idle()
    assert diary.order == [0, 1]


def test_redriven_runs_keep_their_place_by_arrival(diary: Diary) -> None:
    diary.work(ordering=lambda e: "k")
    diary.sends(5, nap="1m")
    diary.kit.run_until_idle()
    Run.objects.all().cancel()
    diary.kit.run_until_idle()
    diary.entries.clear()
    Run.objects.order_by("-pk").redrive()
    diary.kit.advance("1h")
    assert [n for n in diary.order if n] == [1, 2, 3, 4]
    assert count("completed") == 5


def test_backlog_of_a_thousand_is_in_order(diary: Diary) -> None:
    from tests.flow_control.conftest import EVENT

    diary.work(ordering="event.data.k")
    diary.kit.send_many(
        durable.NewEvent(EVENT, {"n": n, "k": n % 10}) for n in range(300)
    )
    diary.kit.run_until_idle()
    for key in range(10):
        assert [n for n in diary.order if n % 10 == key] == list(range(key, 300, 10))
