"""Concurrency: never more at the same time than the limit, and never fewer than fit."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.events import admitting
from durable_jobs.models import Lane, Run, Slot
from durable_jobs.store import leases
from durable_jobs.testing import Kit
from tests.flow.conftest import Diary, count, reasons, statuses


def test_no_more_runs_execute_at_once_than_the_limit(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(3))
    diary.sends(10)
    diary.kit.run_until_idle()
    assert diary.peak == 3
    assert count("completed") == 10


def test_a_number_is_a_limit_of_steps_for_the_whole_function(diary: Diary) -> None:
    diary.work(concurrency=2)
    diary.sends(6)
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert count("completed") == 6


def test_each_key_has_a_limit_of_its_own(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"))
    for tenant in ("a", "b", "c"):
        diary.sends(2, tenant=tenant, nap="1h")
    diary.kit.run_until_idle()
    assert diary.order == [0, 0, 0]
    diary.kit.advance("1h")
    assert diary.order == [0, 0, 0, 1, 1, 1]


def test_of_runs_counts_from_the_first_step_to_the_end(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2, of="runs"))
    diary.sends(5, nap="1h")
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 0), (2, 3600), (3, 3600), (4, 7200)]


def test_a_sleeping_run_holds_no_slot_of_steps(diary: Diary) -> None:
    diary.work(concurrency=1)
    diary.sends(5, nap="1h")
    diary.kit.run_until_idle()
    assert diary.times == [0] * 5
    assert count("waiting") == 5
    assert not Slot.objects.exists()
    diary.kit.advance("1h")
    assert count("completed") == 5
    assert diary.peak == 1


def test_waiting_for_an_event_holds_no_slot_of_steps(durable_kit: Kit) -> None:
    @durable.function(id="flow.wait", concurrency=1)
    def wait(ctx):
        return ctx.step.wait_for_event("go", "flow/go").data["n"]

    runs = [wait.enqueue() for _ in range(3)]
    durable_kit.run_until_idle()
    assert count("waiting") == 3
    durable_kit.send("flow/go", {"n": 7})
    durable_kit.run_until_idle()
    assert [run.wait().result() for run in runs] == [7, 7, 7]


def test_a_parent_that_waits_for_its_child_leaves_it_the_slot(durable_kit: Kit) -> None:
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


def test_a_lane_that_waits_leaves_the_room_of_its_other_gate_to_others(
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


def test_of_two_limits_on_one_account_key_each_function_goes_by_its_own(
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


def test_every_value_is_a_key_of_its_own(diary: Diary) -> None:
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


def test_a_missing_attribute_is_the_key_null(diary: Diary) -> None:
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
def test_a_key_that_fails_is_told_to_who_enqueues_and_kept_for_who_sent(
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


# The line


def test_runs_of_one_key_start_in_the_order_in_which_they_came(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(20, nap="1m")
    diary.kit.advance("1h")
    assert diary.order == list(range(20))
    assert diary.times == [60 * n for n in range(20)]


def test_a_run_that_is_cancelled_in_line_lets_the_next_one_by(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(4, nap="1h")
    diary.kit.run_until_idle()
    for run in Run.objects.filter(data__n__in=[1, 2]):
        assert run.cancel("not needed")
    diary.kit.advance("2h")
    assert diary.order == [0, 3]


def test_a_run_that_is_cancelled_gives_its_slot_back_at_once(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(2, nap="1d")
    diary.kit.run_until_idle()
    assert Run.objects.get(data__n=0).cancel()
    diary.kit.run_until_idle()
    assert diary.entries == [(0, 0), (1, 0)]
    diary.kit.advance("1d")


def test_a_delayed_run_takes_no_slot_before_its_time(diary: Diary) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, of="runs"))
    work.using(run_after="1h").enqueue({"n": 0})
    work.enqueue({"n": 1})
    diary.kit.run_until_idle()
    assert diary.order == [1]
    diary.kit.advance("1h")
    assert diary.entries == [(1, 0), (0, 3600)]


def test_waiting_in_line_for_too_long_cancels(diary: Diary) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, of="runs"),
        timeouts=durable.Timeouts(start="10m"),
    )
    diary.sends(3, nap="1h")
    diary.kit.advance("2h")
    assert statuses() == ["completed", "cancelled", "cancelled"]
    assert diary.order == [0]


def test_a_run_that_takes_too_long_gives_its_slot_to_the_next(diary: Diary) -> None:
    diary.work(
        concurrency=durable.Concurrency(1, of="runs"),
        timeouts=durable.Timeouts(finish="10m"),
    )
    diary.sends(3, nap="1h")
    diary.kit.advance("2h")
    assert diary.entries == [(0, 0), (1, 600), (2, 1200)]
    assert set(statuses()) == {"cancelled"}


# Trouble


@pytest.mark.parametrize("of", ["steps", "runs"])
def test_a_run_that_fails_gives_its_slot_back(durable_kit: Kit, of: Any) -> None:
    @durable.function(
        id="flow.fails", retries=0, concurrency=durable.Concurrency(1, of=of)
    )
    def fails(ctx):
        raise ValueError("never")

    for _ in range(5):
        fails.enqueue()
    durable_kit.run_until_idle()
    assert count("failed") == 5


@pytest.mark.parametrize("where", ["step", "body"])
@pytest.mark.parametrize("of", ["steps", "runs"])
def test_a_run_that_is_to_be_retried_holds_its_slot_of_runs_alone(
    diary: Diary, of: Any, where: str
) -> None:
    def fail() -> None:
        raise ValueError("never")

    @durable.function(
        id="flow.retried",
        retries=1,
        backoff=durable.Backoff.fixed("10m"),
        concurrency=durable.Concurrency(1, of=of),
    )
    def retried(ctx):
        ctx.step.run("note", diary.note, ctx.event.data["n"])
        ctx.step.run("fail", fail) if where == "step" else fail()

    for n in range(2):
        retried.enqueue({"n": n})
    diary.kit.advance("1h")
    assert diary.times == ([0, 0] if of == "steps" else [0, 600])
    assert count("failed") == 2


@pytest.mark.parametrize("when", ["before", "body", "after"])
@pytest.mark.parametrize("of", ["steps", "runs"])
def test_the_slot_of_a_dead_worker_comes_back_with_its_lease(
    diary: Diary, of: Any, when: Any
) -> None:
    diary.work(concurrency=durable.Concurrency(1, of=of))
    diary.sends(3)
    diary.kit.crash_at("note", when)
    diary.kit.run_until_idle()
    assert count("running") == 1, "its lease has not run out"
    assert set(diary.order) <= {0}
    diary.kit.advance("2m")
    assert count("completed") == 3
    assert diary.peak <= 1
    assert [n for n in diary.order if n] == [1, 2]


def test_a_worker_that_dies_before_its_claim_leaves_its_runs_to_others(
    diary: Diary,
) -> None:
    diary.work(concurrency=2)
    diary.sends(5)
    assert admitting.admit("default", 10) == 2
    assert Slot.objects.count() == 2
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert count("completed") == 5


def test_runs_that_are_given_back_unbegun_give_their_slots_back(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2))
    diary.sends(4)
    admitting.admit("default", 10)
    claimed = leases.claim("default", 10, "leaving")
    assert len(claimed) == 2
    leases.give_back([run.pk for run in claimed], claimed[0].lease_token)
    assert not Slot.objects.filter(released_at__isnull=True).exists()
    diary.kit.run_until_idle()
    assert diary.peak <= 2
    assert count("completed") == 4


def test_a_paused_run_holds_its_slot_of_runs_and_none_of_steps(diary: Diary) -> None:
    diary.work("flow.steps", concurrency=1, on=durable.Event("s"))
    diary.work(
        "flow.runs",
        concurrency=durable.Concurrency(1, of="runs"),
        on=durable.Event("r"),
    )
    for name in ("s", "r"):
        for n in range(2):
            diary.kit.send(name, {"n": f"{name}{n}", "nap": "1h"})
    diary.kit.run_until_idle()
    for run in Run.objects.filter(data__n__in=["s0", "r0"]):
        assert run.pause()
    diary.kit.advance("1d")
    assert diary.order == ["s0", "r0", "s1"] or diary.order == ["s0", "s1", "r0"]
    for run in Run.objects.filter(status="paused"):
        assert run.resume()
    diary.kit.advance("2h")
    assert count("completed") == 4


def test_a_run_that_is_paused_in_line_keeps_nobody_waiting(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(3, nap="1h")
    diary.kit.run_until_idle()
    assert Run.objects.get(data__n=1).pause()
    diary.kit.advance("2h")
    assert diary.order == [0, 2]
    assert Run.objects.get(data__n=1).resume()
    diary.kit.advance("2h")
    assert diary.order == [0, 2, 1]
    assert count("completed") == 3


def test_a_run_that_is_rerun_stands_in_line_again(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(2, nap="1h")
    diary.kit.advance("1h")
    again = Run.objects.get(data__n=0).rerun()
    diary.kit.run_until_idle()
    again.refresh_from_db()
    assert again.status == "queued"
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 3600), (0, 7200)]


@pytest.mark.parametrize("of", ["steps", "runs"])
def test_a_run_that_is_redriven_stands_in_line_again(diary: Diary, of: Any) -> None:
    work = diary.work(concurrency=durable.Concurrency(1, of=of))
    runs = [work.enqueue({"n": n, "nap": "1h"}) for n in range(3)]
    diary.kit.run_until_idle()
    assert Run.objects.all().cancel() == 3
    diary.kit.run_until_idle()
    assert Run.objects.all().redrive() == 3
    diary.kit.run_until_idle()
    assert count("waiting") == (3 if of == "steps" else 1)
    diary.kit.advance("5h")
    assert [run.wait().result() for run in runs] == [0, 1, 2]


def test_redriving_at_a_rate_keeps_to_the_limit_too(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(4, nap="3m")
    Run.objects.all().cancel()
    rate = durable.Throttle(1, "1m")
    assert Run.objects.all().redrive(rate=rate) == 4
    diary.kit.advance("1h")
    assert diary.entries == [(0, 0), (1, 180), (2, 360), (3, 540)]


def test_handlers_need_no_slot(durable_kit: Kit) -> None:
    told: list[str] = []

    @durable.function(
        id="flow.fails",
        retries=0,
        concurrency=durable.Concurrency(1, of="runs"),
        on_failure=lambda ctx: told.append(ctx.event.data["status"]),
    )
    def fails(ctx):
        raise ValueError("never")

    for _ in range(3):
        fails.enqueue()
    durable_kit.run_until_idle()
    assert told == ["failed"] * 3


def test_an_event_that_is_rolled_back_takes_no_slot(diary: Diary) -> None:
    from django.db import transaction

    diary.work(concurrency=1)
    with transaction.atomic():
        diary.sends(3)
        transaction.set_rollback(True)
    diary.kit.run_until_idle()
    assert diary.order == []
    assert not Slot.objects.exists()


def test_a_limit_that_the_code_has_no_more_lets_everything_through(
    diary: Diary,
) -> None:
    from durable_jobs.definitions.registry import registry

    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(4, nap="1h")
    diary.kit.run_until_idle()
    registry._functions.pop("flow.work", None)
    diary.work()
    diary.kit.advance("1m")
    assert sorted(diary.order) == [0, 1, 2, 3]
    diary.kit.advance("2h")


def test_every_queue_has_lanes_of_its_own_and_shares_the_gate(diary: Diary) -> None:
    shared = durable.Concurrency(1, key="'k'", scope="account", of="runs")
    diary.work("flow.a", concurrency=shared, queue="default")
    diary.work("flow.b", concurrency=shared, queue="slow")
    diary.sends(2, nap="1h")
    diary.kit.run_until_idle()
    assert len(diary.order) == 1
    assert set(Lane.objects.values_list("queue", flat=True)) == {"default", "slow"}
    diary.kit.advance("5h")
    assert diary.times == [0, 3600, 7200, 10800]
