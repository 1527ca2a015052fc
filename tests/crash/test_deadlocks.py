"""All writers of a run's state at once: one wins, and none deadlocks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from durable_jobs import clock, durable
from durable_jobs.definitions.registry import registry
from durable_jobs.events import routing
from durable_jobs.maintenance import tick, timers
from durable_jobs.models import Event, Run, Wait
from durable_jobs.store import leases
from tests.crash.test_races import advance, claimed
from tests.lab.threads import elsewhere, together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

ROUNDS = 3


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """Check after each test that the database detected no deadlock."""
    before = deadlocks()
    with registry.temporary():
        yield
    assert deadlocks() == before


def deadlocks() -> int:
    """Return how many deadlocks the database has detected."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(cursor.fetchone()[0])


class Family:
    """A parent that waits for a child, which waits for an event or a timeout."""

    def __init__(self) -> None:
        @durable.function(id="pair.child", on_cancel=lambda ctx: None, retries=0)
        def child(ctx):
            ctx.step.wait_for_event("go", "pair/go", match="data.n", timeout="1h")
            return "child"

        @durable.function(
            id="pair.parent", cancel_on=durable.CancelOn("pair/stop", match="data.n")
        )
        def parent(ctx):
            return ctx.step.invoke("child", child, ctx.event.data)

        self.parent, self.child = parent, child

    def begin(self, number: int) -> tuple[Run, Run]:
        """Return a waiting parent and its waiting child."""
        run = self.parent.enqueue({"n": number})
        advance(claimed()[0])
        advance(claimed()[0])
        return run, Run.objects.get(parent=run)


def cancel_parent(parent: Run, child: Run) -> Any:
    return Run.objects.get(pk=parent.pk).cancel("test")


def cancel_child(parent: Run, child: Run) -> Any:
    return Run.objects.get(pk=child.pk).cancel("test")


def pause_child(parent: Run, child: Run) -> Any:
    return Run.objects.get(pk=child.pk).pause("test")


def send_event(parent: Run, child: Run) -> Any:
    durable.send("pair/go", parent.data)
    return routing.route_pending()


def send_stop(parent: Run, child: Run) -> Any:
    durable.send("pair/stop", parent.data)
    return routing.route_pending()


def time_out(parent: Run, child: Run) -> Any:
    past = clock.now() - timedelta(seconds=1)
    Wait.objects.filter(run=child, kind="timeout").update(due_at=past)
    return timers.sweep()


def work(parent: Run, child: Run) -> None:
    for run in leases.claim("default", 2, "test"):
        advance(run)


WRITERS: tuple[Callable[[Run, Run], Any], ...] = (
    cancel_parent,
    cancel_child,
    pause_child,
    send_event,
    send_stop,
    time_out,
    work,
)


@pytest.mark.parametrize("one", WRITERS[:-1])
def test_two_concurrent_writers_agree(one: Callable[[Run, Run], Any]) -> None:
    family = Family()
    others = WRITERS[WRITERS.index(one) + 1 :]
    for number, other in enumerate(others * ROUNDS):
        parent, child = family.begin(number)
        together(lambda: one(parent, child), lambda: other(parent, child))  # noqa: B023  # at once
        settle(child)
        parent.refresh_from_db()
        child.refresh_from_db()
        assert not parent.is_live, (parent.status, child.status)
        assert not child.is_live
        if parent.status == "completed":
            assert child.status == "completed"


def test_all_concurrent_writers_agree() -> None:
    family = Family()
    seed = random.randrange(10**6)  # noqa: S311  # no secret
    print("seed", seed)
    order = random.Random(seed)  # noqa: S311  # no secret
    for number in range(2 * ROUNDS):
        parent, child = family.begin(number)
        writers = order.sample(WRITERS, len(WRITERS))
        together(*[lambda w=w: w(parent, child) for w in writers])  # noqa: B023  # at once
        settle(child)
        parent.refresh_from_db()
        assert not parent.is_live
    assert not Wait.objects.exists()


def settle(child: Run) -> None:
    """Let all remaining runs end."""
    Run.objects.get(pk=child.pk).resume()
    durable.send("pair/go", child.data)
    for _ in range(6):
        tick.tick()
        for run in leases.claim("default", 10, "test"):
            advance(run)


def test_event_that_commits_after_later_ones_is_not_skipped() -> None:
    """A reader that continues from the highest id it has seen would lose the event."""
    got = []

    @durable.function(id="gap.waiter")
    def waiter(ctx):
        return ctx.step.wait_for_event("go", "gap/go", match="data.n").data["n"]

    runs = [waiter.enqueue({"n": n}) for n in range(2)]
    for run in claimed(2):
        advance(run)

    def early() -> None:
        with transaction.atomic():
            got.append(durable.send("gap/go", {"n": 0}))
            elsewhere(late)
        routing.route_pending()

    def late() -> None:
        got.append(durable.send("gap/go", {"n": 1}))
        routing.route_pending()
        assert not Event.objects.filter(pk=got[0]).exists(), (
            "the first transaction has not committed"
        )

    early()
    assert got == sorted(got), "the last commit has the lower id"
    for run in claimed(2):
        advance(run)
    assert [Run.objects.get(pk=run.pk).result() for run in runs] == [0, 1]
