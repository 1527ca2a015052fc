"""A long queue: no function waits until the backlog of another is done."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from durable_jobs import clock, durable
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Pause, Run, Wait
from durable_jobs.store import leases
from durable_jobs.worker import queue_loop
from durable_jobs.worker.queue_loop import drain_queue

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("unserved"),
]

#: Far more than one claim takes.
MANY = 60


@pytest.fixture
def works(order: list[str]) -> Callable[[str], durable.Function]:
    """Return a factory for functions that record their names."""

    def declare(name: str) -> durable.Function:
        return durable.function(id=name)(lambda ctx: order.append(name))

    return declare


def send(function: durable.Function, count: int, ago: float = 0) -> None:
    """Start runs, as if it had been a while ago."""
    runs = [function.enqueue().pk for _ in range(count)]
    then = clock.now() - timedelta(seconds=ago)
    Run.objects.filter(pk__in=runs).update(due_at=then, run_order=then, queued_at=then)


def test_function_starts_beside_the_long_backlog_of_another(works, order):
    send(works("hot"), MANY, ago=60)
    send(works("other"), 3)
    while drain_queue("default"):
        pass
    assert len(order) == MANY + 3
    found = [place for place, name in enumerate(order) if name == "other"]
    assert found[0] <= settings.CLAIM_BATCH + 1, "started at the second claim"
    assert found[-1] <= 4 * (settings.CLAIM_BATCH + 1), "one run at every second claim"


def test_function_starts_beside_many_due_sleeps(works, order):
    @durable.function(id="hot")
    def hot(ctx):
        ctx.step.sleep("nap", "1h")
        order.append("hot")

    for _ in range(MANY):
        hot.enqueue()
    while drain_queue("default"):
        pass
    Wait.objects.update(due_at=clock.now() - timedelta(seconds=60))
    send(works("other"), 1)
    while drain_queue("default"):
        pass
    assert order.count("hot") == MANY
    assert order.index("other") <= 2 * settings.CLAIM_BATCH


def test_queue_that_keeps_up_is_first_in_first_out(works, order):
    hot, other = works("hot"), works("other")
    send(hot, MANY)
    send(other, 1)
    send(hot, 1)
    while drain_queue("default"):
        pass
    assert order == ["hot"] * MANY + ["other", "hot"]


def test_function_keeps_its_own_order():
    seen: dict[str, list[int]] = {"a": [], "b": []}
    for name in seen:

        @durable.function(id=name)
        def work(ctx):
            seen[ctx.run.function].append(ctx.event.data["n"])

        for n in range(MANY):
            work.enqueue({"n": n})
    Run.objects.update(due_at=clock.now() - timedelta(seconds=60))
    while drain_queue("default"):
        pass
    assert seen == {"a": list(range(MANY)), "b": list(range(MANY))}


def test_single_function_is_seldom_checked_for_others(works, order, monkeypatch):
    monkeypatch.setattr(queue_loop, "ALONE", 3600.0)
    asked = []
    claim = leases.claim

    def watched(*args, one_per_function=False):
        asked.append(one_per_function)
        return claim(*args, one_per_function=one_per_function)

    monkeypatch.setattr(leases, "claim", watched)
    send(works("hot"), MANY, ago=60)
    while drain_queue("default"):
        pass
    assert len(order) == MANY
    assert asked.count(True) == 1


def test_fair_claim_takes_one_run_of_each_function_then_any(works):
    for number in range(4):
        send(works(f"f{number}"), 2, ago=60 - number)
    oldest = {run.pk: run.function for run in Run.objects.order_by("run_order")[::2]}
    chosen = set()
    while len(chosen) < 4:  # shuffled, so that each function has its share
        runs = leases.claim("default", 2, "test", one_per_function=True)
        assert len({run.function for run in runs}) == 2
        assert {run.pk: run.function for run in runs}.items() <= oldest.items()
        chosen |= {run.function for run in runs}
        leases.release_leases([run.pk for run in runs], runs[0].lease_token)


def test_fair_claim_takes_only_what_any_claim_may(works):
    for name in ("delayed", "paused", "elsewhere", "free"):
        works(name)
    send(registry.get("free"), 1)
    send(registry.get("paused"), 1)
    send(registry.get("delayed"), 1, ago=-3600)
    send(registry.get("elsewhere"), 1)
    Run.objects.filter(function="elsewhere").update(queue="elsewhere")
    Pause.objects.create(kind=Pause.FUNCTION, name="paused", paused_at=clock.now())
    assert [
        run.function for run in leases.claim("default", 8, "a", one_per_function=True)
    ] == ["free"]
    assert leases.claim("default", 8, "b", one_per_function=True) == []
    Pause.objects.create(kind=Pause.QUEUE, name="elsewhere", paused_at=clock.now())
    assert leases.claim("elsewhere", 8, "c", one_per_function=True) == []
