"""Interleavings of admissions that strand runs or exceed a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from durable_jobs import clock, durable
from durable_jobs.control import limits as limit_control
from durable_jobs.control import pauses as pause_control
from durable_jobs.definitions.function import EVERY
from durable_jobs.definitions.registry import registry
from durable_jobs.flow_control import pauses, promotion
from durable_jobs.lifecycle import admission
from durable_jobs.maintenance import stalled_backlogs, tick
from durable_jobs.models import Backlog, Pause, Run, Slot
from durable_jobs.store import leases
from tests.lab.processes import until
from tests.lab.threads import Begun, elsewhere

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """Isolate the test's declarations."""
    with registry.temporary():
        yield


def settle() -> None:
    """Do all that beat and workers do within a minute, except executing runs."""
    for _ in range(5):
        until(lambda: not any_postponed(), "postponed backlogs to be retried")
        tick.tick()
        admission.sweep()
        stalled_backlogs.sweep()
        admission.admit("default", 10)


def any_postponed() -> bool:
    """Return whether a backlog is retried soon because its first run was locked."""
    now = clock.now()
    soon = Backlog.objects.filter(
        eligible_at__gt=now, eligible_at__lte=now + promotion.LOCKED_DELAY
    )
    return soon.filter(active=True).exists()


@contextmanager
def row_locked(run: Run) -> Iterator[None]:
    """Hold the lock that e.g. the end of an invoked run takes on its parent's row."""
    with transaction.atomic():
        list(Run.objects.filter(pk=run.pk).select_for_update(no_key=True))
        yield


def test_run_whose_row_was_locked_is_still_promoted() -> None:
    """The failure: the backlog is closed as empty and never reopened."""

    @durable.function(id="backlogs.locked", concurrency=1)
    def work(ctx):
        return None

    run = work.enqueue()
    admission.admit()  # the run is screened and enters its backlog
    with row_locked(run):
        elsewhere(lambda: admission.admit("default", 10))
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]


def test_backlogged_parent_is_promoted_when_its_children_end() -> None:
    """The same with runs alone: the end of a child locks its parent."""

    @durable.function(id="backlogs.child")
    def child(ctx):
        return None

    @durable.function(id="backlogs.parent", concurrency=1)
    def parent(ctx):
        return ctx.step.parallel(
            "all",
            {
                name: lambda name=name: ctx.step.invoke(name, child, {})
                for name in ("one", "two")
            },
        )

    from durable_jobs.engine import attempt
    from durable_jobs.failpoints import watching

    run = parent.enqueue()
    admission.admit("default", 10)
    (claimed,) = leases.claim("default", 1, "test")
    attempt.execute_attempt(claimed, threads=0)
    assert Run.objects.get(pk=run.pk).status == "waiting"
    first, second = leases.claim("default", 10, "test")
    attempt.execute_attempt(first, threads=0)
    assert Run.objects.get(pk=run.pk).status == "queued"
    admission.admit()  # the parent is in the backlog for resumed runs

    def look(place: str, name: str) -> None:
        if place == "finish.ended" and name == "backlogs.child":
            elsewhere(lambda: admission.admit("default", 10))

    with watching(look):
        attempt.execute_attempt(second, threads=0)
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]


def test_first_in_an_order_is_not_overtaken_while_its_row_is_locked() -> None:
    @durable.function(id="backlogs.ordered", ordering="event.data.k")
    def work(ctx):
        return None

    first, second = work.enqueue({"k": 1}), work.enqueue({"k": 1})
    admission.admit()
    with row_locked(first):
        elsewhere(lambda: admission.admit("default", 10))
    through = list(Run.objects.filter(backlog=None).values_list("pk", flat=True))
    assert second.pk not in through


def test_first_to_arrive_is_not_overtaken_while_its_row_is_locked() -> None:
    @durable.function(id="backlogs.arriving", ordering="event.data.k")
    def work(ctx):
        return None

    first, second = work.enqueue({"k": 1}), work.enqueue({"k": 1})
    with row_locked(first):
        elsewhere(lambda: admission.admit("default", 10))
    through = list(Run.objects.filter(backlog=None).values_list("pk", flat=True))
    assert second.pk not in through


def test_function_resumed_during_an_admission_continues(monkeypatch) -> None:
    """The admission has read the pause, and closes the backlog after the resume."""

    @durable.function(id="backlogs.resumed", concurrency=1)
    def work(ctx):
        return None

    run = work.enqueue()
    admission.admit()
    pause_control.pause_function(work, key=EVERY, skip=False, reason="")
    load = pauses.load

    resuming: list[Begun] = []

    def read() -> Any:
        found = load()
        monkeypatch.setattr(pauses, "load", load)
        resuming.append(Begun(lambda: pause_control.resume_function(work, key=EVERY)))
        until(lambda: not Pause.objects.exists(), "the pause to end")
        return found

    monkeypatch.setattr(pauses, "load", read)
    admission.admit("default", 10)
    resuming[0].result()
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]


@pytest.mark.parametrize("skip", [False, True])
def test_function_resumed_while_its_runs_are_set_aside_continues(
    monkeypatch, skip: bool
) -> None:
    """The sweep has read the pause, and sets aside runs that stay there."""

    @durable.function(id="backlogs.shelved")
    def work(ctx):
        return None

    pauses.pause("function", work.id, skip=skip, reason="")
    for _ in range(6):
        work.enqueue()
    monkeypatch.setattr(admission, "PAUSED_BATCH", 2)
    shelve, rounds = admission._set_aside_batch, []

    def one(pause: Any) -> int:
        moved = shelve(pause)
        if not rounds:  # the operator resumes between two batches
            rounds.append(moved)
            pause_control.resume_function(work, key=EVERY)
            admission.sweep()  # as any tick or worker does at that moment
        return moved

    monkeypatch.setattr(admission, "_set_aside_batch", one)
    admission.set_aside_paused()
    settle()
    assert not Run.objects.filter(status="queued", backlog__isnull=False).exists()


def test_resume_in_an_open_transaction_stops_no_admission() -> None:
    """With ATOMIC_REQUESTS each click on Resume locks rows that admissions write."""

    @durable.function(id="backlogs.host", concurrency=1)
    def work(ctx):
        return None

    @durable.function(id="backlogs.other", concurrency=1)
    def other(ctx):
        return None

    pause_control.pause_function(work, key=EVERY, skip=False, reason="")
    work.enqueue()
    other.enqueue()
    admission.admit("default", 10)  # work's backlog is closed by the pause
    work.enqueue()
    other.enqueue()

    def admit() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        return admission.admit("default", 10)

    with transaction.atomic():
        pause_control.resume_function(work, key=EVERY)
        try:
            elsewhere(admit)
        except OperationalError as error:
            pytest.fail(f"all admissions wait for an open transaction: {error}")


def test_process_without_a_function_promotes_none_of_its_runs() -> None:
    """In a rolling deploy the old worker also admits the new function's runs."""
    with registry.temporary():

        @durable.function(id="backlogs.new", concurrency=1)
        def work(ctx):
            return None

        for _ in range(5):
            work.enqueue()

    @durable.function(id="backlogs.old", concurrency=1)
    def old(ctx):
        return None

    admission.admit("default", 10)
    free = Run.objects.filter(function="backlogs.new", backlog=None).count()
    assert free <= Slot.objects.filter(released_at=None).count()


def test_beat_without_limits_exceeds_none_of_the_workers_limits(
    monkeypatch,
) -> None:
    """Workers are deployed with the project's first limit, and beat later."""

    def declare(**limits: Any) -> durable.Function:
        @durable.function(id="backlogs.deployed", **limits)
        def work(ctx):
            return None

        return work

    with registry.temporary():
        work = declare(concurrency=1)
        for _ in range(5):
            work.enqueue()
    with registry.temporary():
        declare()
        monkeypatch.setattr(registry, "needs_admission", False)
        for _ in range(3):
            tick.tick()
    through = Run.objects.filter(function="backlogs.deployed", backlog=None).count()
    assert through <= 1


def test_slots_of_a_paused_function_are_released() -> None:
    """A worker dies between admission and claim; then an operator pauses for days."""
    shared = durable.Concurrency(1, key="'all'", scope="account")

    @durable.function(id="backlogs.paused", concurrency=shared)
    def paused(ctx):
        return None

    @durable.function(id="backlogs.waits", concurrency=shared)
    def waits(ctx):
        return None

    paused.enqueue()
    admission.admit("default", 10)
    pause_control.pause_function(paused, key=EVERY, skip=False, reason="")
    run = waits.enqueue()
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]


def test_backlog_of_a_paused_queue_blocks_no_shared_limit() -> None:
    """A release wakes one backlog, which is paused; no other backlog is woken."""
    shared = durable.Concurrency(2, key="'all'", scope="account", of="runs")

    def declare(name: str, queue: str) -> durable.Function:
        @durable.function(id=f"backlogs.{name}", queue=queue, concurrency=shared)
        def work(ctx):
            return None

        return work

    first, away, here = (
        declare("holds", "default"),
        declare("away", "slow"),
        declare("here", "default"),
    )
    first.enqueue()
    first.enqueue()
    admission.admit("default", 10)
    held = leases.claim("default", 10, "test")
    assert len(held) == 2
    away.enqueue()
    admission.admit("slow", 10)
    run = here.enqueue()
    admission.admit("default", 10)
    assert Backlog.objects.filter(blocked_on__isnull=False).count() == 2
    pause_control.pause_queue("slow", "")
    stalled_backlogs._declared.clear()
    stalled_backlogs._declared.update({one.id: one.flow_control for one in registry})
    from durable_jobs.engine import attempt

    attempt.execute_attempt(held[0], threads=0)
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]


def test_late_release_by_a_worker_releases_no_slot_of_the_next_attempt(
    monkeypatch,
) -> None:
    """I4, I7. The worker stalls in ``release`` until its lease has expired."""
    from datetime import timedelta

    from durable_jobs import clock
    from durable_jobs.store import limits as limit_rows

    @durable.function(id="backlogs.given", concurrency=1)
    def work(ctx):
        return None

    run = work.enqueue()
    admission.admit("default", 10)
    (stale,) = leases.claim("default", 1, "stalls")

    Run.objects.update(lease_until=clock.now() - timedelta(seconds=1))

    def others() -> None:
        assert not leases.rescue(leases.expired(10)[0], clock.now())

    release = limit_rows.release_slots

    def late(*args: Any, **options: Any) -> int:
        monkeypatch.setattr(limit_rows, "release_slots", release)
        elsewhere(others)
        return release(*args, **options)

    monkeypatch.setattr(limit_rows, "release_slots", late)
    assert leases.release_leases([stale.pk], stale.lease_token) == 1
    admission.admit("default", 10)
    assert leases.claim("default", 1, "next")
    assert leases.release_leases([stale.pk], stale.lease_token) == 0
    run.refresh_from_db()
    assert run.worker == "next"
    assert Slot.objects.filter(run=run, released_at=None).count() == 1


def test_admission_and_the_sweep_of_backlogs_never_deadlock(monkeypatch) -> None:
    """Backlogs are also written outside of admissions, in another order."""
    from durable_jobs.store import backlogs
    from tests.crash.test_deadlocks import deadlocks

    @durable.function(
        id="backlogs.crossed", concurrency=durable.Concurrency(1, key="event.data.k")
    )
    def work(ctx):
        return None

    # The limit of "one" comes first, the backlog of "two" does.
    holders = []
    for k in ("one", "two"):
        work.enqueue({"k": k})
        admission.admit("default", 10)
        holders += leases.claim("default", 1, "test")
    work.enqueue({"k": "one"})
    work.enqueue({"k": "two"})
    admission.admit("default", 10)
    one = (
        Backlog.objects.filter(blocked_on__isnull=False).order_by("blocked_on").first()
    )
    Backlog.objects.filter(pk=one.pk).update(
        promoted_count=9
    )  # its row moves behind the other's
    from durable_jobs.engine import attempt

    for run in holders:
        attempt.execute_attempt(run, threads=0)
    before, revive = deadlocks(), backlogs.unblock
    sweeps: list[Begun] = []
    stalled_backlogs._declared.clear()

    def sweep() -> None:
        with suppress(OperationalError):  # the database aborted the admission
            stalled_backlogs._restart_changed()

    def blocked() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            return cursor.fetchone() is not None

    def first(*args: Any, **options: Any) -> int:
        monkeypatch.setattr(backlogs, "unblock", revive)
        done = revive(*args, **options)
        sweeps.append(Begun(sweep))
        until(blocked, "the sweep to wait for the admission")
        return done

    monkeypatch.setattr(backlogs, "unblock", first)
    try:
        admission.run_rounds()
    finally:
        sweeps[0].result()
    assert deadlocks() == before


def test_new_process_makes_no_admission_long() -> None:
    """Its first sweep opens all blocked backlogs; one admission visits them all."""
    from django.test.utils import CaptureQueriesContext

    @durable.function(
        id="backlogs.keys", concurrency=durable.Concurrency(1, key="event.data.k")
    )
    def work(ctx):
        return None

    for k in range(200):
        work.enqueue({"k": k})
        work.enqueue({"k": k})
    while admission.admit("default", 500):
        pass
    assert Backlog.objects.filter(blocked_on__isnull=False).count() == 200
    stalled_backlogs._declared.clear()  # as in a worker's new child process
    stalled_backlogs.sweep()
    with CaptureQueriesContext(connection) as made:
        assert admission.admit("default", 10) == 0
    assert len(made) < 100


def test_limits_are_exact_under_repeatable_read() -> None:
    """The snapshot is as old as the wait for the lock, so newer rows are unseen."""
    shared = durable.Concurrency(1, key="'all'", scope="account")
    from durable_jobs.store import limits as limit_rows

    for queue in ("default", "other"):

        @durable.function(id=f"backlogs.{queue}", queue=queue, concurrency=shared)
        def work(ctx):
            return None

        work.enqueue()
    admission.admit("default", 1)
    (first,) = leases.claim("default", 1, "test")  # the limit is there
    from durable_jobs.engine import attempt

    attempt.execute_attempt(first, threads=0)
    registry.get("backlogs.default").enqueue()
    admission.admit()

    def repeatably() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL "
                "REPEATABLE READ"
            )
        admission.admit("other", 10)

    def waits() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )
            return cursor.fetchone() is not None

    with transaction.atomic():
        limit_rows.lock()
        other = Begun(repeatably)
        until(waits, "the other admission to wait")
        admission.run_rounds("default", 10)
    other.result()
    assert Slot.objects.filter(released_at=None).count() == 1


def test_limit_raised_during_an_admission_promotes_more(
    monkeypatch,
) -> None:
    """The admission uses the old limit and blocks the backlog after the reopening."""
    from durable_jobs.models import Limit
    from durable_jobs.store import limits as limit_rows

    @durable.function(
        id="backlogs.raised", concurrency=durable.Concurrency(1, of="runs")
    )
    def work(ctx):
        return None

    work.enqueue()
    admission.admit("default", 10)
    assert leases.claim("default", 10, "test")  # it takes three days
    run = work.enqueue()
    stalled_backlogs.sweep()  # this process knows the declared limit
    ensure = limit_rows.ensure
    raising: list[Begun] = []

    def read(wanted: Any) -> Any:
        found = ensure(wanted)
        monkeypatch.setattr(limit_rows, "ensure", ensure)
        limit_row = Limit.objects.get(key="")
        raising.append(Begun(lambda: limit_control.set_limit(limit_row, 10)))
        raised = Limit.objects.filter(override=10)
        until(raised.exists, "the limit to be raised")
        return found

    monkeypatch.setattr(limit_rows, "ensure", read)
    admission.admit("default", 10)
    raising[0].result()
    settle()
    assert [one.pk for one in leases.claim("default", 10, "test")] == [run.pk]
