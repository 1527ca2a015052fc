"""A worker of several queues: the backlog of one does not delay the others."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from durable_jobs import durable
from durable_jobs.conf import settings
from durable_jobs.store import leases
from durable_jobs.worker import celery_tasks, celery_worker, queue_loop, queues
from durable_jobs.worker.queue_loop import drain_queue

pytestmark = pytest.mark.django_db(transaction=True)

#: Far more than one claim takes.
MANY = 60


@pytest.fixture(autouse=True)
def busy(unserved: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assume of each queue that its runs were served for long."""
    monkeypatch.setattr(queue_loop, "OTHER_QUEUES_INTERVAL", 0.0)


@pytest.fixture
def backlog(order: list[str]) -> Callable[[str, int], None]:
    """Return what starts runs of a queue; each run records the queue's name."""

    def start(queue: str, count: int) -> None:
        function = durable.function(id=f"of.{queue}", queue=queue)(
            lambda ctx: order.append(queue)
        )
        for _ in range(count):
            function.enqueue()

    return start


def test_other_queues_are_served_while_one_is_busy(backlog, order):
    backlog("default", MANY)
    backlog("apart", MANY // 2)
    assert drain_queue("default", others=["apart", "empty"]) == len(order)
    assert order.count("default") == MANY
    assert order.index("apart") == settings.CLAIM_BATCH, "after the first batch"
    assert order.count("apart") == MANY // 2, "batches of the two queues alternate"


def test_short_queue_costs_no_check_of_the_others(
    backlog, order, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(queue_loop, "OTHER_QUEUES_INTERVAL", 3600.0)
    asked = []
    claim = leases.claim

    def watched(queue, *args, **options):
        asked.append(queue)
        return claim(queue, *args, **options)

    monkeypatch.setattr(leases, "claim", watched)
    backlog("default", MANY)
    backlog("apart", 1)
    assert drain_queue("default", others=["apart"]) == MANY
    assert set(asked) == {"default"}


def test_celery_worker_checks_all_queues_that_it_consumes(
    backlog, order, monkeypatch: pytest.MonkeyPatch
):
    consumed = dict.fromkeys(("default", "apart", "other"))
    worker = SimpleNamespace(app=celery_of(consumed))
    monkeypatch.setattr(queues, "consumed", [])
    celery_worker._save_consumed(instance=worker)
    backlog("default", MANY)
    backlog("apart", 1)
    backlog("foreign", 1)
    consumed["foreign"] = None  # later, and by another worker
    assert celery_tasks.work("default") == MANY + 1
    assert order.count("apart") == 1
    assert "foreign" not in order, "the queue of another worker"


def celery_of(consumed: dict[str, None]) -> SimpleNamespace:
    """Return which queues a worker of a Celery app consumes."""
    queues = SimpleNamespace(consume_from=consumed)
    return SimpleNamespace(amqp=SimpleNamespace(queues=queues))
