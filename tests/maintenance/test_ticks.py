"""The tick does what is due, in any process; an idle tick is a single query."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable, notifier
from durable_jobs.maintenance import tick
from durable_jobs.models import Run, Wait, Worker
from durable_jobs.testing import Kit


class Notifications:
    """A notifier that records the queues it notifies."""

    manual_clock = True

    def __init__(self) -> None:
        self.queues: list[str] = []

    def notify(self, queue: str, work: int) -> None:
        """Record the queue."""
        self.queues.append(queue)

    def notify_at(self, moment: object, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Execute nothing."""
        return False


@pytest.fixture
def notifications(kit: Kit) -> Iterator[Notifications]:
    """Yield a notifier in place of the kit's."""
    notifications = Notifications()
    with notifier.using(notifications):
        yield notifications


def test_idle_tick_is_one_query(kit: Kit) -> None:
    kit.run_until_idle()
    for _ in range(3):
        kit.advance("1s", run=False)
        with CaptureQueriesContext(connection) as captured:
            assert tick.tick() == {}
        assert len(captured) == 1


def test_removed_cron_costs_nothing(kit: Kit) -> None:
    for text in ("0 * * * *", "30 * * * *"):
        with Kit(now=kit.now()) as code:
            durable.function(id="clock", on=durable.Cron(text))(lambda ctx: None)
            code.run_until_idle()
            code.advance("1h")
            kit.travel_to(code.now(), run=False)
            with CaptureQueriesContext(connection) as captured:
                assert tick.tick() == {}
            assert len(captured) == 1
    kit.run_until_idle()
    with CaptureQueriesContext(connection) as captured:
        assert tick.tick() == {}
    assert len(captured) == 1


def test_idle_tick_does_not_grow_with_history(kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: ctx.step.run("x", lambda: 1))
    for _ in range(30):
        look.enqueue()
    kit.run_until_idle()
    with CaptureQueriesContext(connection) as captured:
        tick.tick()
    assert len(captured) == 1


def test_tick_records_a_heartbeat(kit: Kit) -> None:
    tick.tick()
    first = Worker.objects.get()
    assert first.seen_at == kit.now()
    kit.advance("11s", run=False)
    tick.tick()
    assert Worker.objects.get().seen_at == kit.now()
    assert Worker.objects.get().started_at == first.started_at


@pytest.mark.django_db(transaction=True)
def test_lost_message_is_sent_again(kit: Kit, notifications: Notifications) -> None:
    durable.function(id="plain")(lambda ctx: None).enqueue()
    durable.function(id="slow", queue="slow")(lambda ctx: None).enqueue()
    later = durable.function(id="later", queue="later")(lambda ctx: None)
    later.using(run_after="1h").enqueue()
    notifications.queues.clear()
    tick.tick()
    assert sorted(notifications.queues) == ["default", "slow"]


@pytest.mark.django_db(transaction=True)
def test_queue_that_no_code_names_is_notified(
    kit: Kit, notifications: Notifications
) -> None:
    with Kit(now=kit.now()):
        durable.function(id="old", queue="old")(lambda ctx: None).enqueue()
    tick.tick()
    assert notifications.queues == ["old"]


@pytest.mark.django_db(transaction=True)
def test_transaction_notifies_each_queue_once(
    kit: Kit, notifications: Notifications
) -> None:
    from django.db import transaction

    look = durable.function(id="look")(lambda ctx: None)
    with transaction.atomic():
        for _ in range(5):
            look.enqueue()
        assert notifications.queues == []
    assert notifications.queues == ["default"]


def test_sweeper_that_fails_does_not_stop_the_others(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    @durable.function(id="nap", timeouts=durable.Timeouts(finish="1h"))
    def nap(ctx):
        ctx.step.sleep("long", "2h")

    durable.function(id="clock", on=durable.Cron("30 * * * *", catch_up="one"))(
        lambda ctx: 1
    )
    kit.run_until_idle()
    run = nap.enqueue()
    kit.run_until_idle()
    # A row that no code would write.
    Wait.objects.filter(run=run, kind="finish_by").update(condition=["broken"])
    other = nap.enqueue()
    kit.run_until_idle()
    kit.advance("1h30m", run=False)
    tick.tick()
    assert "Processing wait " in caplog.text
    other.refresh_from_db()
    assert other.status == "cancelled"
    assert Run.objects.filter(function="clock").exists()


@pytest.mark.exact("it counts statements")
def test_timers_end_in_few_statements(kit: Kit) -> None:
    @durable.function(id="nap")
    def nap(ctx):
        ctx.step.sleep("nap", "1h")

    for _ in range(40):
        nap.enqueue()
    kit.run_until_idle()
    kit.advance("1h", run=False)
    with CaptureQueriesContext(connection) as captured:
        assert tick.tick()["timers"] == 40
    assert len(captured) < 40
    assert Run.objects.filter(status="queued").count() == 40


def test_paused_work_wakes_no_worker(kit: Kit, notifications: Notifications) -> None:
    slow = durable.function(id="slow", queue="slow")(lambda ctx: None)
    held = durable.function(id="held", queue="held")(lambda ctx: None)
    durable.pause_queue("slow")
    for function in (slow, held):
        function.enqueue()
    held.pause()
    held.enqueue()
    notifications.queues.clear()
    assert tick.renotify() == 0
    assert notifications.queues == []
    durable.resume_queue("slow")
    assert tick.renotify() == 1
