"""``durable_tick``: a tick by hand."""

from __future__ import annotations

from datetime import datetime

import pytest

from durable_jobs import durable, notifier
from durable_jobs.models import Run, Worker

pytestmark = pytest.mark.django_db


class Listener:
    """A notifier that records the queues it notifies."""

    manual_clock = True

    def __init__(self) -> None:
        self.queues: list[str] = []

    def notify(self, queue: str, work: int) -> None:
        """Record the queue."""
        self.queues.append(queue)

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Do nothing."""
        return False


def test_tick_does_what_is_due_and_reports_it(durable_kit, call):
    @durable.function(id="t.sleeper")
    def sleeper(ctx):
        ctx.step.sleep("nap", "1h")

    run = sleeper.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("1h", run=False)
    assert "timers 1" in call("durable_tick")
    run.refresh_from_db()
    assert run.status == "queued"


def test_tick_records_a_heartbeat_and_reports_when_nothing_is_due(durable_kit, call):
    call("durable_tick")
    assert Worker.objects.get(name="tick").seen_at == durable_kit.now()
    assert call("durable_tick") == "Nothing was due.\n"


@pytest.mark.django_db(transaction=True)
def test_tick_notifies_every_queue_with_work(durable_kit, call):
    @durable.function(id="t.one")
    def one(ctx):
        ctx.step.run("there", lambda: 1, queue="named by a step")

    one.enqueue()
    one.using(run_after="1h").enqueue()
    runs = [one.enqueue(), one.enqueue()]
    for run, queue in zip(runs, ("named by a step", "old"), strict=True):
        Run.objects.filter(pk=run.pk).update(queue=queue)
    listener = Listener()
    with notifier.using(listener):
        call("durable_tick")
    assert sorted(listener.queues) == ["default", "named by a step", "old"]
