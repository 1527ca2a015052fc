"""A worker of several queues: the backlog of one does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from celery import current_app

from durable_jobs import dispatch, durable
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.executors import celery_tasks, serving
from durable_jobs.executors.serving import serve
from durable_jobs.store import leases
from tests.engine.workers import Deaf

pytestmark = pytest.mark.django_db(transaction=True)

#: Far more than is claimed at once.
MANY = 60


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let runs wait until the test serves, as a worker does that looks all the time."""
    monkeypatch.setattr(serving, "SHORT", 3600.0)
    monkeypatch.setattr(serving, "ELSEWHERE", 0.0)
    with registry.temporary(), dispatch.using(Deaf()):
        yield


@pytest.fixture
def order() -> list[str]:
    """Give what the functions write down as they begin."""
    return []


@pytest.fixture
def backlog(order: list[str]) -> Callable[[str, int], None]:
    """Give what starts runs of a queue, each of which writes that queue down."""

    def start(queue: str, count: int) -> None:
        function = durable.function(id=f"of.{queue}", queue=queue)(
            lambda ctx: order.append(queue)
        )
        for _ in range(count):
            function.enqueue()

    return start


def test_others_get_their_turns_while_one_is_served(backlog, order):
    backlog("default", MANY)
    backlog("apart", MANY // 2)
    assert serve("default", others=["apart", "empty"]) == len(order)
    assert order.count("default") == MANY
    assert order.index("apart") == settings.CLAIM_BATCH, "after the first batch"
    assert order.count("apart") == MANY // 2, "a batch of the one, a batch of the other"


def test_a_queue_that_is_soon_done_costs_no_look_at_others(
    backlog, order, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(serving, "ELSEWHERE", 3600.0)
    asked = []
    claim = leases.claim

    def watched(queue, *args, **options):
        asked.append(queue)
        return claim(queue, *args, **options)

    monkeypatch.setattr(leases, "claim", watched)
    backlog("default", MANY)
    backlog("apart", 1)
    assert serve("default", others=["apart"]) == MANY
    assert set(asked) == {"default"}


def test_a_celery_worker_looks_at_all_that_it_consumes(
    backlog, order, monkeypatch: pytest.MonkeyPatch
):
    queues = current_app.amqp.queues
    consumed = {name: queues[name] for name in ("default", "apart", "other")}
    monkeypatch.setattr(queues, "_consume_from", consumed)
    backlog("default", MANY)
    backlog("apart", 1)
    backlog("foreign", 1)
    assert celery_tasks.work("default") == MANY + 1
    assert order.count("apart") == 1
    assert "foreign" not in order, "another worker's"
