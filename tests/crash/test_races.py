"""Races of two transactions: one wins, both get the outcome, and nothing is lost.

Each docstring names the guard, and what happens without it.
"""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, transaction

from durable_jobs import clock, durable
from durable_jobs.control import approval_decisions
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import attempt
from durable_jobs.events import routing
from durable_jobs.maintenance import timers
from durable_jobs.models import Event, Run, Schedule, Step, Wait
from durable_jobs.schedules import fire, sync
from durable_jobs.statuses import StepStatus
from durable_jobs.store import leases, steps, waits
from durable_jobs.store.leases import LeaseLost
from durable_jobs.store.steps import StepRecord
from tests.lab.processes import until
from tests.lab.threads import together

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

ROUNDS = 60


@pytest.fixture(autouse=True)
def apart():
    """Isolate the test's declarations, on PostgreSQL."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer: races are tested on PostgreSQL")
    with registry.temporary():
        yield


def claimed(count: int = 1) -> list[Run]:
    """Claim what is queued."""
    runs = leases.claim("default", count, "test")
    assert len(runs) == count
    return runs


def advance(run: Run) -> None:
    """Execute a claimed run in this thread."""
    attempt.execute_attempt(run, threads=0)


def test_queued_run_is_claimed_by_one_worker_only() -> None:
    """Without the lock in the claim, two workers return the same run."""

    @durable.function(id="race.claimed")
    def idle(ctx):
        return None

    for _ in range(ROUNDS // 4):
        for _ in range(8):
            idle.enqueue()
        batches = together(*[lambda: leases.claim("default", 3, "test")] * 4)
        taken = [run.pk for batch in batches for run in batch]
        assert len(taken) == len(set(taken))
        Run.objects.all().delete()


def test_late_result_is_void() -> None:
    """I4. Without ``lease_token`` in the fence, the first worker's record is kept."""

    @durable.function(id="race.fenced")
    def idle(ctx):
        return None

    idle.enqueue()
    (stale,) = claimed()
    Run.objects.update(lease_until=clock.now() - timedelta(seconds=1))
    assert leases.rescue(leases.expired(10)[0], clock.now())
    (fresh,) = claimed()
    step_record = StepRecord(
        "k", "late", "run", StepStatus.COMPLETED, 0, output='"late"'
    )
    with pytest.raises(LeaseLost):
        steps.record(leases.Lease(stale.pk, stale.lease_token), [step_record])
    steps.record(
        leases.Lease(fresh.pk, fresh.lease_token), [step_record.but(output='"fresh"')]
    )
    assert Step.objects.get().output == "fresh"


def test_record_waits_for_a_takeover_that_is_about_to_commit() -> None:
    """I4. Without the row lock in ``record``, the old lease's record is written."""

    @durable.function(id="race.overlap")
    def idle(ctx):
        return None

    idle.enqueue()
    (stale,) = claimed()
    step_record = StepRecord("k", "x", "run", StepStatus.COMPLETED, 0, output="1")
    outcome: list[Any] = []
    taken = threading.Event()

    def record() -> None:
        assert taken.wait(10)
        try:
            outcome.append(
                steps.record(leases.Lease(stale.pk, stale.lease_token), [step_record])
            )
        except LeaseLost as lost:
            outcome.append(lost)

    def take_over() -> None:
        with transaction.atomic():
            Run.objects.filter(pk=stale.pk).update(lease_token=uuid.uuid4())
            taken.set()
            until(lambda: outcome or blocked(), "the record to wait for the lock")

    together(record, take_over)
    assert isinstance(outcome[0], LeaseLost)
    assert not Step.objects.exists()


def blocked() -> bool:
    """Return whether a statement waits for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def test_cancel_and_complete_at_the_same_moment_end_a_run_once() -> None:
    """I9. Without the expected status in the WHERE, both report that they ended it."""

    @durable.function(id="race.ended")
    def idle(ctx):
        return "done"

    for _ in range(ROUNDS):
        run = idle.enqueue()
        (held,) = claimed()
        mine = Run.objects.get(pk=run.pk)
        _, cancelled = together(
            lambda held=held: advance(held), lambda mine=mine: mine.cancel("test")
        )
        run.refresh_from_db()
        assert run.status == ("cancelled" if cancelled else "completed")
        assert (run.output is None) == cancelled
        assert run.cancel("too late") is False
        assert Run.objects.get(pk=run.pk).status == run.status


def test_event_that_commits_after_the_wait_ends_it() -> None:
    """I8. Matching waits before the event's commit loses this wake-up."""

    @durable.function(id="race.waiter")
    def waiter(ctx):
        return ctx.step.wait_for_event("w", "race/go").data["n"]

    run = waiter.enqueue()
    sent, registered = threading.Event(), threading.Event()

    def sender() -> None:
        with transaction.atomic():
            durable.send("race/go", {"n": 7})
            sent.set()
            assert registered.wait(10)
        routing.route_pending()

    def waits() -> None:
        assert sent.wait(10)
        (held,) = claimed()
        advance(held)
        registered.set()

    together(sender, waits)
    (held,) = claimed()
    advance(held)
    run.refresh_from_db()
    assert run.result() == 7


def test_wait_and_event_at_the_same_moment_match_once() -> None:
    """I8. Whichever commits first, the check after the commit finds the other."""

    @durable.function(id="race.meets")
    def meets(ctx):
        event = ctx.step.wait_for_event("w", "race/meet", match="data.n", since="run")
        return event.data["n"]

    for number in range(ROUNDS):
        run = meets.enqueue({"n": number})
        (held,) = claimed()

        def send(number: int = number) -> None:
            durable.send("race/meet", {"n": number})
            routing.route_pending()

        together(send, lambda held=held: advance(held))
        routing.route_pending()
        assert not Wait.objects.filter(run=run).exists(), f"round {number}"
        run.refresh_from_db()
        if run.is_live:
            (again,) = claimed()
            advance(again)
            run.refresh_from_db()
        assert run.result() == number
        assert Step.objects.filter(run=run).count() == 1


def test_event_and_timeout_have_one_winner() -> None:
    """G7. Without the wait's deletion and the open step as guards, both end it."""

    @durable.function(id="race.timeout")
    def waiter(ctx):
        event = ctx.step.wait_for_event("w", "race/late", match="data.n", timeout="1h")
        return None if event is None else event.data["n"]

    for number in range(ROUNDS // 2):
        run = waiter.enqueue({"n": number})
        advance(claimed()[0])
        past = clock.now() - timedelta(seconds=1)
        Wait.objects.filter(run=run, kind="timeout").update(due_at=past)
        durable.send("race/late", {"n": number})
        together(routing.route_pending, timers.sweep)
        step = Step.objects.get(run=run)
        advance(claimed()[0])
        run.refresh_from_db()
        won = number if step.status == "completed" else None
        assert run.result() == won
        assert not Wait.objects.filter(run=run).exists()
    assert not Event.objects.filter(pending=True).exists()


def test_key_used_concurrently_starts_one_run() -> None:
    """Without the unique index, each caller finds no run and starts one."""

    @durable.function(id="race.keyed")
    def keyed(ctx):
        return None

    for number in range(ROUNDS // 4):
        start = keyed.using(key=f"k{number}")
        runs = together(*[lambda start=start: start.enqueue({"n": 1})] * 6)
        assert len({run.pk for run in runs}) == 1
    assert Run.objects.count() == ROUNDS // 4


def test_event_id_sent_concurrently_starts_one_run() -> None:
    """I1. Without the unique index, each caller starts the function."""

    @durable.function(id="race.heard", on=durable.Event("race/same"))
    def heard(ctx):
        return None

    for number in range(ROUNDS // 4):
        send = lambda number=number: durable.send("race/same", id=f"e{number}")  # noqa: E731  # called six times at once
        together(*[send] * 6)
    assert Run.objects.count() == ROUNDS // 4
    assert Event.objects.count() == ROUNDS // 4


def test_cron_fires_once_with_two_beats() -> None:
    """Without the lock on the schedule's row, both fire it."""

    @durable.function(id="race.cron", on=durable.Cron("* * * * *", catch_up="one"))
    def minutely(ctx):
        return None

    sync.sync()
    for number in range(ROUNDS // 4):
        # Otherwise the id of the occurrence's event would prevent the second fire.
        Event.objects.filter(source="cron").delete()
        slot = clock.now().replace(second=0, microsecond=0)
        Schedule.objects.filter(function="race.cron").update(
            next_occurrence=slot, due_at=slot
        )
        together(fire.sweep, fire.sweep)
        assert Run.objects.filter(function="race.cron").count() == number + 1


def test_signal_wakes_one_run_once() -> None:
    """Without the deletion of the wait as the decision, two senders wake it twice."""

    @durable.function(id="race.signal")
    def signalled(ctx):
        return ctx.step.wait_for_signal("s", "race-signal")

    for _ in range(ROUNDS // 4):
        run = signalled.enqueue()
        advance(claimed()[0])
        woken = together(*[lambda: durable.signal("race-signal", 1)] * 4)
        assert [one.pk for one in woken if one is not None] == [run.pk]
        advance(claimed()[0])
        run.refresh_from_db()
        assert run.result() == 1


def test_concurrent_decisions_have_one_winner_whom_the_other_learns() -> None:
    """Without the deletion of the wait as the decision, both callers win."""

    @durable.function(id="race.approve")
    def asking(ctx):
        try:
            return ctx.step.approve("a", "Pay", "durable_jobs.answer_run")
        except durable.ApprovalRejected as rejected:
            return rejected.by

    ann, bob = (User.objects.create_superuser(name) for name in ("ann", "bob"))
    for _ in range(ROUNDS // 4):
        run = asking.enqueue()
        advance(claimed()[0])
        key = run.steps.get().key
        came = together(
            lambda run=run, key=key: approval_decisions.approve(
                Actor(ann), run, key, {}
            ),
            lambda run=run, key=key: approval_decisions.reject(
                Actor(bob), run, key, "no"
            ),
            but=(durable.ActionNotAllowed,),
        )
        (refused,) = [one for one in came if one is not None]
        winner = run.steps.get().detail["name"]
        assert f"by {winner}" in str(refused)
        assert LogEntry.objects.get(object_id=run.pk).user.username == winner
        advance(claimed()[0])
        run.refresh_from_db()
        assert run.result() == ({} if winner == "ann" else str(bob.pk))


def test_late_decision_during_another_learns_its_winner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without reading the wait first, the step read is older than the decision."""

    @durable.function(id="race.late")
    def asking(ctx):
        return ctx.step.approve("a", "Pay", "durable_jobs.answer_run")

    ann, bob = (User.objects.create_superuser(name) for name in ("ann", "bob"))
    run = asking.enqueue()
    advance(claimed()[0])
    key = run.steps.get().key
    look = waits.get

    def outrun(*args: object) -> object:
        monkeypatch.setattr(waits, "get", look)
        approval_decisions.approve(Actor(ann), run, key, {})
        return look(*args)

    monkeypatch.setattr(waits, "get", outrun)
    with pytest.raises(durable.ActionNotAllowed, match="approved by ann"):
        approval_decisions.reject(Actor(bob), run, key, "no")


def test_parents_and_children_that_end_at_once_do_not_wait_for_each_other() -> None:
    """Without one order of locks, the database aborts one of them as a deadlock."""

    @durable.function(id="race.child")
    def child(ctx):
        return "child"

    @durable.function(id="race.parent")
    def parent(ctx):
        return ctx.step.invoke("child", child)

    for _ in range(ROUNDS // 2):
        run = parent.enqueue()
        advance(claimed()[0])
        (held,) = claimed()
        mine = Run.objects.get(pk=run.pk)
        together(lambda held=held: advance(held), lambda mine=mine: mine.cancel("test"))
        run.refresh_from_db()
        assert run.status == "cancelled"
        assert not Run.objects.filter(status="running").exists()
        assert Run.objects.filter(parent=run, ended_at__isnull=True).count() == 0
