"""Concurrency when runs fail, are paused, killed or redriven: no slot leaks."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.lifecycle import admission
from durable_jobs.models import Backlog, Run, Slot
from durable_jobs.store import leases
from durable_jobs.testing import Kit
from tests.flow_control.conftest import Diary, count


@pytest.mark.parametrize("of", ["steps", "runs"])
def test_failed_run_releases_its_slot(durable_kit: Kit, of: Any) -> None:
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
def test_run_waiting_for_a_retry_holds_only_its_run_slot(
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
def test_slot_of_a_dead_worker_is_released_with_its_lease(
    diary: Diary, of: Any, when: Any
) -> None:
    diary.work(concurrency=durable.Concurrency(1, of=of))
    diary.sends(3)
    diary.kit.crash_at("note", when)
    diary.kit.run_until_idle()
    assert count("running") == 1, "the lease has not expired"
    assert set(diary.order) <= {0}
    diary.kit.advance("2m")
    assert count("completed") == 3
    assert diary.peak <= 1
    assert [n for n in diary.order if n] == [1, 2]


def test_worker_that_dies_before_its_claim_leaves_its_runs_to_others(
    diary: Diary,
) -> None:
    diary.work(concurrency=2)
    diary.sends(5)
    assert admission.admit("default", 10) == 2
    assert Slot.objects.count() == 2
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert count("completed") == 5


def test_runs_released_before_they_begin_release_their_slots(diary: Diary) -> None:
    diary.work(concurrency=durable.Concurrency(2))
    diary.sends(4)
    admission.admit("default", 10)
    claimed = leases.claim("default", 10, "leaving")
    assert len(claimed) == 2
    leases.release_leases([run.pk for run in claimed], claimed[0].lease_token)
    assert not Slot.objects.filter(released_at__isnull=True).exists()
    diary.kit.run_until_idle()
    assert diary.peak <= 2
    assert count("completed") == 4


def test_paused_run_holds_its_run_slot_and_no_step_slot(diary: Diary) -> None:
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


def test_run_paused_in_the_backlog_blocks_no_other(diary: Diary) -> None:
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


def test_rerun_joins_the_backlog(diary: Diary) -> None:
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
def test_redriven_run_joins_the_backlog(diary: Diary, of: Any) -> None:
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


def test_bulk_redrive_obeys_the_limit(diary: Diary) -> None:
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


def test_event_that_is_rolled_back_takes_no_slot(diary: Diary) -> None:
    from django.db import transaction

    diary.work(concurrency=1)
    with transaction.atomic():
        diary.sends(3)
        transaction.set_rollback(True)
    diary.kit.run_until_idle()
    assert diary.order == []
    assert not Slot.objects.exists()


def test_removed_limit_holds_as_long_as_a_deploy_may_take(
    diary: Diary,
) -> None:
    from durable_jobs.definitions.registry import registry

    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.sends(4, nap="1h")
    diary.kit.run_until_idle()
    registry._functions.pop("flow.work", None)
    diary.work()
    diary.kit.advance("9m")
    assert diary.order == [0]
    diary.kit.advance("2m")
    assert sorted(diary.order) == [0, 1, 2, 3]
    diary.kit.advance("2h")


def test_queues_have_separate_backlogs_and_share_the_limit(diary: Diary) -> None:
    shared = durable.Concurrency(1, key="'k'", scope="account", of="runs")
    diary.work("flow.a", concurrency=shared, queue="default")
    diary.work("flow.b", concurrency=shared, queue="slow")
    diary.sends(2, nap="1h")
    diary.kit.run_until_idle()
    assert len(diary.order) == 1
    assert set(Backlog.objects.values_list("queue", flat=True)) == {"default", "slow"}
    diary.kit.advance("5h")
    assert diary.times == [0, 3600, 7200, 10800]
