"""Failures and changes of limits, keys and windows affect only their own runs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from durable_jobs import durable
from durable_jobs.control import limits as limit_control
from durable_jobs.lifecycle import admission
from durable_jobs.models import Backlog, Limit, Run
from durable_jobs.store import leases

pytestmark = pytest.mark.django_db(transaction=True)


def test_key_whose_query_fails_stops_only_its_own_batch(durable_kit) -> None:
    """The key is evaluated inside the admission and breaks its transaction."""

    def tenant(event):
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::int", [str(event.data["tenant"])])
            return cursor.fetchone()[0]

    @durable.function(
        id="odd.batch",
        on=durable.Event("odd/batch"),
        batch=durable.Batch(2, "1m"),
        concurrency=durable.Concurrency(1, key=tenant),
    )
    def batch(ctx):
        return None

    @durable.function(id="odd.other", concurrency=1)
    def other(ctx):
        return None

    durable_kit.send_many(
        [durable.NewEvent("odd/batch", {"tenant": "none"}) for _ in range(2)]
    )
    run = other.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"
    assert Run.objects.filter(function="odd.batch").get().status == "skipped"


def test_condition_that_fails_after_buffering_is_reported(durable_kit) -> None:
    """The same for a condition, with an error that leaves the transaction intact."""

    @durable.function(
        id="odd.batch",
        on=durable.Event("odd/batch"),
        batch=durable.Batch(2, "1m"),
        concurrency=durable.Concurrency(1, key=lambda event: 1 / 0),
    )
    def batch(ctx):
        return None

    durable_kit.send_many([durable.NewEvent("odd/batch") for _ in range(2)])
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "skipped"


@pytest.mark.parametrize("key", ["a\0b", "\ud800", 10**30, 1e20, -0.0, [1.0], {"a": 1}])
def test_key_may_be_anything_that_data_may_be(durable_kit, key) -> None:
    @durable.function(
        id="odd.keyed",
        on=durable.Event("odd/keyed"),
        concurrency=durable.Concurrency(1, key=lambda event: key),
        singleton=durable.Singleton(key=lambda event: key, mode="queue"),
    )
    def work(ctx):
        return None

    durable_kit.send("odd/keyed")
    durable_kit.run_until_idle()
    assert Run.objects.get().status in ("completed", "skipped")


@pytest.mark.parametrize("key", ["a\0b", "\ud800", 10**30, 1e20])
def test_events_may_be_buffered_by_any_key(durable_kit, key) -> None:
    @durable.function(
        id="odd.keyed",
        on=durable.Event("odd/keyed"),
        debounce=durable.Debounce("1s", key=lambda event: key),
    )
    def work(ctx):
        return None

    durable_kit.send("odd/keyed")
    durable_kit.advance("2s")
    assert Run.objects.get().status in ("completed", "skipped")


def test_backlog_that_a_promotion_did_not_reach_is_eligible_at_once(
    durable_kit,
) -> None:
    @durable.function(
        id="odd.keyed", concurrency=durable.Concurrency(5, key="event.data.k")
    )
    def keyed(ctx):
        return None

    for key in "aabb":
        keyed.enqueue({"k": key})
    assert admission.run_rounds("default", 1) == 1
    assert Backlog.objects.count() == 2
    assert not Backlog.objects.filter(eligible_at__gt=durable_kit.now()).exists()


def test_throttle_raised_by_an_operator_promotes_at_once(durable_kit) -> None:
    """``set_limit`` with a higher limit promotes runs at once."""

    @durable.function(id="odd.slow", throttle=durable.Throttle(1, per="1d"))
    def work(ctx):
        return None

    for _ in range(3):
        work.enqueue()
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 1
    limit_control.set_limit(Limit.objects.get(control="throttle"), 86_400)
    durable_kit.advance("10s")
    assert Run.objects.filter(status="completed").count() == 3


def test_throttle_raised_by_a_release_promotes_at_once(durable_kit) -> None:
    def declare(limit):
        @durable.function(id="odd.slow", throttle=durable.Throttle(limit, per="1d"))
        def work(ctx):
            return None

        return work

    from durable_jobs.definitions.registry import registry

    with registry.temporary():
        work = declare(1)
        for _ in range(3):
            work.enqueue()
        durable_kit.run_until_idle()
    declare(86_400)
    for _ in range(4):
        durable_kit.advance("10s")
    assert Run.objects.filter(status="completed").count() == 3


def test_next_in_an_order_does_not_inherit_the_wait_of_the_first(
    durable_kit,
) -> None:
    """The first waits for its throttle until tomorrow, and is cancelled."""

    @durable.function(
        id="odd.ordered",
        ordering="event.data.k",
        throttle=durable.Throttle(1, per="1d", key="event.data.t"),
    )
    def work(ctx):
        return None

    work.enqueue({"k": 0, "t": "slow"})
    durable_kit.run_until_idle()
    first = work.enqueue({"k": 1, "t": "slow"})
    second = work.enqueue({"k": 1, "t": "free"})
    durable_kit.run_until_idle()
    first.cancel()
    durable_kit.advance("1m")
    second.refresh_from_db()
    assert second.status == "completed"


def test_pause_of_a_key_blocks_an_order_only_while_its_run_is_first(
    durable_kit,
) -> None:
    @durable.function(
        id="odd.ordered",
        ordering="event.data.k",
        throttle=durable.Throttle(100, per="1s", key="event.data.t"),
    )
    def work(ctx):
        return None

    work.pause(key="paused")
    first = work.enqueue({"k": 1, "t": "paused"})
    second = work.enqueue({"k": 1, "t": "free"})
    durable_kit.run_until_idle()
    first.cancel()
    durable_kit.advance("1m")
    second.refresh_from_db()
    assert second.status == "completed"


def test_backlog_without_code_blocks_no_shared_limit(
    durable_kit,
) -> None:
    """A release opens one backlog, which needs no slot: no other backlog is woken."""
    from durable_jobs.definitions.registry import registry

    shared = durable.Concurrency(2, key="'all'", scope="account", of="runs")

    def declare(name):
        @durable.function(id=f"odd.{name}", concurrency=shared)
        def work(ctx):
            ctx.step.sleep("long", ctx.event.data["seconds"])

        return work

    here = declare("here")
    here.enqueue({"seconds": 10})
    here.enqueue({"seconds": 86_400})
    durable_kit.run_until_idle()
    with registry.temporary():
        declare("gone").enqueue({"seconds": 1})
        durable_kit.run_until_idle()
    run = here.enqueue({"seconds": 1})
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "completed"


def test_unknown_function_in_a_backlog_costs_no_other_batch(durable_kit) -> None:
    from durable_jobs.definitions.registry import registry

    def declare():
        @durable.function(
            id="odd.away",
            on=durable.Event("odd/away"),
            debounce=durable.Debounce("10m"),
        )
        def work(ctx):
            return None

    with registry.temporary():
        declare()
        durable_kit.send("odd/away")
    durable_kit.advance("1s")  # a process that lacks the code checks first
    declare()
    durable_kit.advance("2m")
    assert not Run.objects.exists()
    assert Backlog.objects.count() == 0
    durable_kit.advance(timedelta(minutes=10))
    assert Run.objects.get().status == "completed"


@pytest.mark.parametrize(("old", "new"), [("skip", "queue"), ("cancel", "queue")])
def test_singleton_changed_to_queue_does_not_wait_for_itself(
    durable_kit, old, new
) -> None:
    """A backlogged run has its slot from the start; the backlog needs another one."""
    from durable_jobs.definitions.registry import registry

    def declare(mode):
        @durable.function(
            id="odd.single",
            singleton=durable.Singleton(key="event.data.k", mode=mode),
            concurrency=1,
        )
        def work(ctx):
            ctx.step.run("nothing", lambda: None)

        return work

    with registry.temporary():
        work = declare(old)
        work.enqueue({"k": 0})
        run = work.enqueue({"k": 1})
        admission.admit("default", 1)  # the other run is promoted, this one waits
    declare(new)
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "completed"


@pytest.mark.parametrize("new", ["skip", "cancel"])
def test_singleton_changed_from_queue_still_has_one_live_run(durable_kit, new) -> None:
    from durable_jobs.definitions.registry import registry

    def declare(mode):
        @durable.function(id="odd.single", singleton=durable.Singleton(mode=mode))
        def work(ctx):
            ctx.step.sleep("long", "1h")

        return work

    with registry.temporary():
        work = declare("queue")
        for _ in range(3):
            work.enqueue()
        durable_kit.run_until_idle()
    declare(new)
    durable_kit.advance("1m")
    assert Run.objects.filter(status="waiting").count() == 1
    durable_kit.advance("61m")
    assert Run.objects.filter(status="waiting").count() <= 1


def test_run_paused_without_code_obeys_its_limit_later(
    durable_kit,
) -> None:
    """The run was promoted without a slot, and later suspensions request none."""
    from durable_jobs.definitions.registry import registry

    def declare():
        @durable.function(id="odd.parked", concurrency=1)
        def work(ctx):
            ctx.step.run("first", lambda: None)
            ctx.step.sleep("nap", "1m")
            ctx.step.run("last", lambda: None)

        return work

    with registry.temporary():
        work = declare()
        for _ in range(3):
            work.enqueue()
    durable_kit.run_until_idle()
    declare()
    for run in Run.objects.filter(status="paused"):
        run.resume()
    admission.admit("default", 10)
    assert len(leases.claim("default", 10, "test")) <= 1


def test_throttle_promotes_few_runs_on_a_busy_queue(
    durable_kit,
) -> None:
    """Each worker promotes some runs, and claims older ones.

    No more runs are ready than one worker claims at once.
    """

    @durable.function(id="odd.plain")
    def plain(ctx):
        return None

    @durable.function(id="odd.spaced", throttle=durable.Throttle(1, per="10s"))
    def spaced(ctx):
        return None

    for _ in range(12):
        plain.enqueue()
    for _ in range(6):
        spaced.enqueue()
    for _ in range(6):
        admission.admit("default", 2)
        assert {run.function for run in leases.claim("default", 2, "test")} == {
            plain.id
        }
        durable_kit._clock.moment += timedelta(seconds=10)
    admission.admit("default", 10)
    started = leases.claim("default", 10, "test")
    assert len(started) <= 3
