"""Concurrency: never more runs than the limit, and never fewer than fit."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Slot
from durable_jobs.testing import Kit
from tests.flow_control.conftest import Diary, count, reasons, statuses


def test_concurrent_runs_never_exceed_the_limit(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(3))
    diary.sends(10)
    diary.kit.run_until_idle()
    assert diary.peak == 3
    assert count("completed") == 10


def test_number_is_a_limit_of_steps_for_the_whole_function(diary: Diary) -> None:
    diary.work(concurrency=2)
    diary.sends(6)
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert count("completed") == 6


def test_keys_have_separate_limits(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"))
    for tenant in ("a", "b", "c"):
        diary.sends(2, tenant=tenant, nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == [0, 0, 0]
    diary.kit.advance("1h")
    assert diary.order == [0, 0, 0, 1, 1, 1]


def test_scope_runs_counts_from_the_first_step_to_the_end(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2, of="runs"))
    diary.sends(5, nap="1h")
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 0), (2, 3600), (3, 3600), (4, 7200)]


def test_sleeping_run_holds_no_step_slot(diary: Diary) -> None:
    diary.work(concurrency=1)
    diary.sends(5, nap="1h")
    diary.kit.run_until_idle()
    assert diary.times == [0] * 5
    assert count("waiting") == 5
    assert not Slot.objects.exists()
    diary.kit.advance("1h")
    assert count("completed") == 5
    assert diary.peak == 1


def test_wait_for_an_event_holds_no_step_slot(durable_kit: Kit) -> None:
    @durable.function(id="flow.wait", concurrency=1)
    def wait(ctx):
        return ctx.step.wait_for_event("go", "flow/go").data["n"]

    runs = [wait.enqueue() for _ in range(3)]
    durable_kit.run_until_idle()
    assert count("waiting") == 3
    durable_kit.send("flow/go", {"n": 7})
    durable_kit.run_until_idle()
    assert [run.wait().result() for run in runs] == [7, 7, 7]


def test_parent_waiting_for_its_child_leaves_the_slot_to_it(durable_kit: Kit) -> None:
    @durable.function(id="flow.child", concurrency=_shared(1))
    def child(ctx):
        return "child"

    @durable.function(id="flow.parent", concurrency=_shared(1))
    def parent(ctx):
        return ctx.step.invoke("ask", child)

    run = parent.enqueue()
    durable_kit.run_until_idle()
    assert run.wait().result() == "child"


def test_branches_of_a_limited_run_are_one_at_a_time(durable_kit: Kit) -> None:
    @durable.function(id="flow.branches", concurrency=1)
    def branches(ctx):
        naps = {
            name: lambda name=name: [
                ctx.step.sleep(f"nap {name}", "1m"),
                ctx.step.run(f"end {name}", lambda: name),
            ]
            for name in ("a", "b", "c")
        }
        return ctx.step.parallel("all", naps)

    first, second = branches.enqueue(), branches.enqueue()
    durable_kit.advance("1m")
    for run in (first, second):
        assert [pair[1] for pair in run.wait().result().values()] == ["a", "b", "c"]


def test_two_limits_hold_at_the_same_time(diary: Diary) -> None:
    diary.work(
        concurrency=[
            durable.Concurrency(2, key="event.data.tenant", of="runs"),
            durable.Concurrency(3, of="runs"),
        ]
    )
    diary.sends(4, tenant="a", nap="1h")
    diary.sends(4, tenant="b", nap="1h")
    diary.kit.run_until_idle()
    live = Run.objects.filter(status="waiting")
    assert live.count() == 3
    assert live.filter(data__tenant="a").count() <= 2
    assert live.filter(data__tenant="b").count() <= 2
    diary.kit.advance("4h")
    assert count("completed") == 8


def test_waiting_backlog_blocks_no_slot_of_its_other_limit(
    diary: Diary,
) -> None:
    diary.work(
        concurrency=[
            durable.Concurrency(1, key="event.data.tenant", of="runs"),
            durable.Concurrency(2, of="runs"),
        ]
    )
    diary.sends(5, tenant="a", nap="1h")
    diary.send(7, tenant="b", nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == [0, 7]


def _shared(limit: int) -> durable.Concurrency:
    return durable.Concurrency(limit, key=lambda e: "all", scope="account")


def test_functions_share_the_budget_of_an_account_key(diary: Diary) -> None:
    shared = durable.Concurrency(2, key="event.data.tenant", scope="account", of="runs")
    diary.work("flow.one", concurrency=shared)
    diary.work("flow.two", concurrency=shared)
    diary.sends(3, tenant="a", nap="1h")
    diary.send(9, tenant="b", nap="1h")
    diary.kit.run_until_idle()
    assert count("waiting", data__tenant="a") == 2
    assert count("waiting", data__tenant="b") == 2
    diary.kit.advance("5h")
    assert count("completed") == 8


def test_functions_with_one_account_key_obey_their_own_limits(
    diary: Diary,
) -> None:
    def shared(limit: int) -> durable.Concurrency:
        return durable.Concurrency(limit, key="'k'", scope="account", of="runs")

    diary.work("flow.narrow", concurrency=shared(1), on=durable.Event("n"))
    diary.work("flow.wide", concurrency=shared(3), on=durable.Event("w"))
    for n in range(5):
        diary.kit.send("w", {"n": n, "nap": "1h"})
    diary.kit.run_until_idle()
    diary.kit.send("n", {"n": 100})
    diary.kit.run_until_idle()
    assert count("waiting", function="flow.wide") == 3
    assert count("queued", function="flow.narrow") == 1
    diary.kit.advance("2h")
    assert count("completed", function="flow.wide") == 5
    assert count("completed", function="flow.narrow") == 1


def test_steps_and_runs_of_one_account_key_are_counted_apart(diary: Diary) -> None:
    for of in ("steps", "runs"):
        one = durable.Concurrency(1, key="'k'", scope="account", of=of)
        diary.work(f"flow.{of}", concurrency=one)
    diary.sends(2, nap="1h")
    diary.kit.run_until_idle()
    assert count("waiting", function="flow.steps") == 2
    assert count("waiting", function="flow.runs") == 1


# Keys

KEYS = [
    None, True, False, 0, 1, -1, 1.5, "", "a", "1", "null", "é", [], [1], [1, 2],
    {}, {"a": 1}, {"a": None}, 10**30, "x" * 300, ["x" * 300], "y" * 100_000,
]  # fmt: skip


def test_values_are_separate_keys(diary: Diary) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, key=lambda e: KEYS[e.data["n"]], of="runs")
    )
    for _ in range(2):
        diary.sends(len(KEYS), nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == list(range(len(KEYS)))
    assert count("queued") == len(KEYS)
    diary.kit.advance("1h")
    assert sorted(diary.order) == sorted([*range(len(KEYS))] * 2)


def test_missing_attribute_is_the_key_null(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, key="event.data.nobody", of="runs"))
    diary.send(0, nap="1h")
    diary.send(1, nap="1h", nobody=None)
    diary.send(2, nap="1h", nobody="somebody")
    diary.kit.run_until_idle()
    assert diary.order == [0, 2]


def test_equal_objects_are_one_key_in_any_order(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, key="event.data.k", of="runs"))
    diary.send(0, k={"a": 1, "b": [2]}, nap="1h")
    diary.send(1, k={"b": [2], "a": 1}, nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == [0]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda e: 1 / 0, id="raises"),
        pytest.param(lambda e: object(), id="no JSON"),
        pytest.param(lambda e: float("nan"), id="not a number"),
        pytest.param(lambda e: "\x00", id="cannot be stored"),
        pytest.param("event.data.n + 'text'", id="CEL of two types"),
    ],
)
def test_failing_key_raises_for_calls_and_skips_for_events(
    diary: Diary, key: Any
) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, key=key))
    diary.send(1)
    diary.kit.run_until_idle()
    assert statuses() == ["skipped"]
    assert "key" in reasons()[0]
    with pytest.raises(durable.ExpressionError):
        work.enqueue({"n": 1})
    assert Run.objects.count() == 1
    assert diary.order == []


# The backlog


def test_runs_of_one_key_start_in_the_order_of_arrival(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(20, nap="1m")
    diary.kit.advance("1h")
    assert diary.order == list(range(20))
    assert diary.times == [60 * n for n in range(20)]


def test_cancelled_backlogged_run_does_not_block_the_next(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(4, nap="1h")
    diary.kit.run_until_idle()
    for run in Run.objects.filter(data__n__in=[1, 2]):
        assert run.cancel("not needed")
    diary.kit.advance("2h")
    assert diary.order == [0, 3]


def test_cancelled_run_releases_its_slot_at_once(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(2, nap="1d")
    diary.kit.run_until_idle()
    assert Run.objects.get(data__n=0).cancel()
    diary.kit.run_until_idle()
    assert diary.entries == [(0, 0), (1, 0)]
    diary.kit.advance("1d")


def test_delayed_run_takes_no_slot_before_its_time(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, of="runs"))
    work.using(run_after="1h").enqueue({"n": 0})
    work.enqueue({"n": 1})
    diary.kit.run_until_idle()
    assert diary.order == [1]
    diary.kit.advance("1h")
    assert diary.entries == [(1, 0), (0, 3600)]


def test_start_timeout_cancels_a_backlogged_run(diary: Diary) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, of="runs"),
        timeouts=durable.Timeouts(start="10m"),
    )
    diary.sends(3, nap="1h")
    diary.kit.advance("2h")
    assert statuses() == ["completed", "cancelled", "cancelled"]
    assert diary.order == [0]


def test_run_that_times_out_releases_its_slot_to_the_next(diary: Diary) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, of="runs"),
        timeouts=durable.Timeouts(finish="10m"),
    )
    diary.sends(3, nap="1h")
    diary.kit.advance("2h")
    assert diary.entries == [(0, 0), (1, 600), (2, 1200)]
    assert set(statuses()) == {"cancelled"}
