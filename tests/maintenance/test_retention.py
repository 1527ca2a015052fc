"""Old ended runs are pruned in bounded batches, and nothing else is."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.maintenance import retention
from durable_jobs.models import (
    Event,
    FailedAttempt,
    IdempotencyKey,
    Run,
    Step,
    Subject,
    Wait,
)
from durable_jobs.testing import Kit
from project.shop.models import Tenant


@pytest.fixture
def work(kit: Kit) -> durable.Function:
    """Declare a function whose data says how it ends."""

    @durable.function(
        id="work",
        on=durable.Event("a/work"),
        retries=1,
        backoff=durable.Backoff.fixed("1s"),
    )
    def work(ctx):
        ctx.step.run("step", lambda: None)
        if ctx.event.data.get("end") == "failed":
            raise ValueError("no")
        if ctx.event.data.get("end") == "sleeping":
            ctx.step.sleep("long", "365d")

    return work


def left() -> set[str]:
    """Return the statuses of the remaining runs."""
    return set(Run.objects.values_list("status", flat=True))


def test_each_status_has_its_time(kit: Kit, work: durable.Function) -> None:
    durable.function(id="picky", on=durable.Event("a/b", if_=lambda event: 1 / 0))(
        lambda ctx: None
    )
    kit.send("a/b")
    for end in ("completed", "failed", "sleeping"):
        work.enqueue({"end": end})
    kit.advance("1m")
    work.enqueue().cancel()
    everything = {"completed", "failed", "cancelled", "skipped", "waiting"}
    kit.advance("29d23h")
    assert left() == everything
    kit.advance("2h")
    assert left() == {"failed", "waiting"}
    kit.advance("60d")
    assert left() == {"waiting"}


def test_rows_of_a_run_are_pruned_with_it(kit: Kit, work: durable.Function) -> None:
    tenant = Tenant.objects.create(name="Ada")
    kit.send("a/work", {"tenant": tenant, "end": "failed"}, id="order-7")
    work.using(key="k").enqueue({"tenant": tenant})
    kit.advance("100d")
    for table in (Run, Step, FailedAttempt, Subject, Wait, Event, IdempotencyKey):
        assert not table._default_manager.exists(), table


def test_live_run_keeps_all_its_rows(kit: Kit, work: durable.Function) -> None:
    run = work.using(key="k").enqueue({"end": "sleeping"})
    kit.advance("200d")
    run.refresh_from_db()
    assert run.status == "waiting"
    assert run.steps.count() == 2
    assert IdempotencyKey.objects.count() == 1


def test_child_is_kept_while_its_parent_may_need_it(kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: 5)

    @durable.function(id="parent")
    def parent(ctx):
        ctx.step.invoke("call", child)
        ctx.step.sleep("long", "60d")

    parent.enqueue()
    kit.advance("59d")
    assert Run.objects.filter(function="child").exists()
    kit.advance("40d")
    assert not Run.objects.exists()


def test_times_are_settings(
    kit: Kit, work: durable.Function, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {
        "RETENTION": {"completed": "1h", "failed": None, "events": "2h"}
    }
    kit.send("a/work")
    kit.send("a/work", {"end": "failed"})
    kit.advance("90m")
    assert left() == {"failed"}
    assert Event.objects.count() == 2
    kit.advance("1h")
    assert not Event.objects.exists()
    kit.advance("365d")
    assert left() == {"failed"}
    # The event is pruned; the run's own input is kept.
    assert Run.objects.get().data == {"end": "failed"}
    assert Run.objects.get().event_id is not None


def test_undelivered_events_are_kept(kit: Kit, settings: Settings) -> None:
    settings.DURABLE_JOBS = {"RETENTION": {"events": "1h"}}
    kit.send("a/late", ts=kit.now() + (kit.now() - kit.now()).resolution * 10**10)
    kit.send("a/now")
    kit.advance("2h")
    assert [event.name for event in Event.objects.all()] == ["a/late"]


def test_batch_is_bounded(kit: Kit, work: durable.Function, settings: Settings) -> None:
    for _ in range(7):
        work.enqueue()
    kit.run_until_idle()
    kit.advance("31d", run=False)
    assert retention.sweep(3) == 3
    assert Run.objects.count() == 4
    settings.DURABLE_JOBS = {"PRUNE_BATCH": 2}
    assert retention.sweep() == 2
    assert retention.sweep() == 2
    assert retention.sweep() == 0


def test_next_tick_continues_after_a_full_batch(
    kit: Kit, work: durable.Function, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"PRUNE_BATCH": 2}
    for _ in range(5):
        work.enqueue()
    kit.run_until_idle()
    kit.advance("31d", run=False)
    for _ in range(3):
        kit.run_until_idle()
        kit.advance("11s", run=False)
    kit.run_until_idle()
    assert not Run.objects.exists()


def test_pruned_event_id_may_be_sent_again(kit: Kit, work: durable.Function) -> None:
    kit.send("a/work", id="order-7")
    kit.advance("40d")
    assert not Event.objects.exists()
    kit.send("a/work", id="order-7")
    kit.run_until_idle()
    assert Run.objects.get().status == "completed"
