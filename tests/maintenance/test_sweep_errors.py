"""One item's error stops no sweep: the item is retried later, the others proceed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db import models as django_models

from durable_jobs import clock, durable
from durable_jobs.engine import attempt
from durable_jobs.events import routing
from durable_jobs.flow_control import keys
from durable_jobs.lifecycle import admission, event_windows
from durable_jobs.maintenance import (
    missing_functions,
    rescue,
    retention,
    run_stats,
    stalled_backlogs,
    tick,
    timers,
)
from durable_jobs.models import (
    Backlog,
    BufferedEvent,
    Event,
    Limit,
    Pause,
    RateLimitHit,
    Run,
    RunStats,
    Schedule,
    Slot,
    SweepError,
    Wait,
)
from durable_jobs.schedules import fire, sync
from durable_jobs.store import item_errors
from durable_jobs.store import leases as claim_count
from durable_jobs.testing import Kit
from durable_jobs.worker import orphans, queue_loop
from durable_jobs.worker.claimed_batch import ClaimedBatch

pytestmark = pytest.mark.django_db(transaction=True)

Undo = Callable[[], object]


def _refuse(model: type[django_models.Model], event: str, when: str) -> Undo:
    """Make the database refuse to write some rows; return what undoes that."""
    table = model._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute(
                f"CREATE TRIGGER sick BEFORE {event} ON {table} WHEN {when} "
                f"BEGIN SELECT RAISE(ABORT, 'sick'); END"
            )
        else:
            cursor.execute(
                "CREATE OR REPLACE FUNCTION sick() RETURNS trigger AS "
                "$$ BEGIN RAISE EXCEPTION 'sick'; END $$ LANGUAGE plpgsql"
            )
            cursor.execute(
                f"CREATE TRIGGER sick BEFORE {event} ON {table} FOR EACH ROW "
                f"WHEN ({when}) EXECUTE FUNCTION sick()"
            )

    def undo() -> None:
        on = "" if connection.vendor == "sqlite" else f" ON {table}"
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TRIGGER IF EXISTS sick{on}")

    return undo


def _literal(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    text = getattr(value, "hex", None) if connection.vendor == "sqlite" else None
    return f"'{text or value}'"


@dataclass
class Case:
    """Two items of one sweep: the sick item fails, the well item does not."""

    sweep: Callable[[], object]
    #: Make the sick item fail; return what heals it.
    poison: Callable[[], Undo]
    #: Whether the sick and the well item are done.
    done: Callable[[], tuple[bool, bool]]


def _nap(kit: Kit, **options: Any) -> list[Run]:
    nap = durable.function(id="nap", **options)(lambda ctx: ctx.step.sleep("s", "1h"))
    runs = [nap.enqueue() for _ in range(2)]
    kit.run_until_idle()
    return runs


def _gone(model: type[django_models.Model], items: list[Any]) -> tuple[bool, bool]:
    sick, well = (not model._default_manager.filter(pk=pk).exists() for pk in items)
    return sick, well


def sleeps(kit: Kit) -> Case:
    runs = _nap(kit)
    items = [Wait.objects.get(run=run).pk for run in runs]
    kit.advance("1h", run=False)
    return Case(
        timers.sweep,
        lambda: _refuse(Wait, "DELETE", f"OLD.id = {items[0]}"),
        lambda: _gone(Wait, items),
    )


def timeouts(kit: Kit) -> Case:
    @durable.function(id="waits")
    def waits(ctx):
        ctx.step.wait_for_event("w", "a/never", timeout="1h")

    runs = [waits.enqueue() for _ in range(2)]
    kit.run_until_idle()
    items = [Wait.objects.get(run=run, kind="timeout").pk for run in runs]
    kit.advance("1h", run=False)
    return Case(
        timers.sweep,
        lambda: _refuse(Wait, "DELETE", f"OLD.id = {items[0]}"),
        lambda: _gone(Wait, items),
    )


def _claimed(kit: Kit, worker: str) -> list[Run]:
    work = durable.function(id="work")(lambda ctx: None)
    runs = [work.enqueue() for _ in range(2)]
    claim_count.claim("default", 8, worker)
    return runs


def _held(runs: list[Run]) -> tuple[bool, bool]:
    sick, well = (Run.objects.get(pk=run.pk).lease_token is None for run in runs)
    return sick, well


def _held_fast(runs: list[Run]) -> Undo:
    own = f"OLD.id = {_literal(runs[0].pk)}"
    return _refuse(Run, "UPDATE", f"{own} AND NEW.lease_token IS NULL")


def expired_leases(kit: Kit) -> Case:
    runs = _claimed(kit, "dead")
    kit.advance("1h", run=False)
    return Case(rescue.sweep, lambda: _held_fast(runs), lambda: _held(runs))


def dead_workers(kit: Kit) -> Case:
    runs = _claimed(kit, f"{socket.gethostname()}:{2**22 + os.getpid()}")
    return Case(orphans.requeue_orphans, lambda: _held_fast(runs), lambda: _held(runs))


@contextmanager
def _patched(target: Any, name: str, sick: Callable[..., bool]) -> Iterator[None]:
    """Make calls about the sick item raise."""
    with pytest.MonkeyPatch.context() as patch:
        original = getattr(target, name)

        def call(*args: Any, **options: Any) -> Any:
            if sick(*args):
                raise ZeroDivisionError("sick")
            return original(*args, **options)

        patch.setattr(target, name, call)
        yield


def _break(target: Any, name: str, sick: Callable[..., bool]) -> Undo:
    manager = _patched(target, name, sick)
    manager.__enter__()
    return lambda: manager.__exit__(None, None, None)


def claimed_runs(kit: Kit) -> Case:
    work = durable.function(id="work")(lambda ctx: None)
    runs = [work.enqueue() for _ in range(2)]

    def done() -> tuple[bool, bool]:
        sick, well = (Run.objects.get(pk=run.pk).ended_at is not None for run in runs)
        return sick, well

    return Case(
        lambda: queue_loop.drain_queue("default"),
        lambda: _break(attempt, "execute_attempt", lambda run: run.pk == runs[0].pk),
        done,
    )


def _schedules(kit: Kit) -> list[str]:
    names = ["tests.sick", "tests.well"]
    for name in names:
        durable.function(id=name, on=durable.Cron("0 * * * *"))(lambda ctx: None)
    return names


def schedules(kit: Kit) -> Case:
    names = _schedules(kit)
    sync.sync()
    kit.advance("1h", run=False)

    def done() -> tuple[bool, bool]:
        sick, well = (Run.objects.filter(function=name).exists() for name in names)
        return sick, well

    return Case(
        fire.sweep, lambda: _refuse(Run, "INSERT", "NEW.function = 'tests.sick'"), done
    )


def declared_crons(kit: Kit) -> Case:
    names = _schedules(kit)

    def done() -> tuple[bool, bool]:
        sick, well = (Schedule.objects.filter(function=name).exists() for name in names)
        return sick, well

    return Case(
        sync.sync,
        lambda: _break(sync, "_create", lambda function, _: function.id[6:] == "sick"),
        done,
    )


def arrivals(kit: Kit) -> Case:
    work = durable.function(id="work", concurrency=5)(lambda ctx: None)
    runs = [work.enqueue() for _ in range(2)]

    def done() -> tuple[bool, bool]:
        sick, well = (Run.objects.get(pk=run.pk).backlog != -1 for run in runs)
        return sick, well

    return Case(
        admission.run_rounds,
        lambda: _break(keys, "build_backlog", lambda run: run.pk == runs[0].pk),
        done,
    )


def backlogs(kit: Kit) -> Case:
    runs = []
    for name in ("tests.sick", "tests.well"):
        work = durable.function(id=name, concurrency=5)(lambda ctx: None)
        runs.append(work.enqueue())
    admission.run_rounds()

    def done() -> tuple[bool, bool]:
        sick, well = (Run.objects.get(pk=run.pk).backlog is None for run in runs)
        return sick, well

    return Case(
        lambda: admission.run_rounds("default", 8),
        lambda: _break(
            keys, "keyed_limits", lambda function, _: function.id[6:] == "sick"
        ),
        done,
    )


def _gathering(kit: Kit) -> list[str]:
    names = ["tests.sick", "tests.well"]
    for name in names:
        durable.function(
            id=name, on=durable.Event("a/b"), debounce=durable.Debounce("1m")
        )(lambda ctx: None)
    kit.send("a/b")
    return names


def _started(names: list[str]) -> tuple[bool, bool]:
    sick, well = (Run.objects.filter(function=name).exists() for name in names)
    return sick, well


def windows(kit: Kit) -> Case:
    names = _gathering(kit)
    admission.run_rounds()
    kit.advance("1m", run=False)
    return Case(
        admission.run_rounds,
        lambda: _refuse(Run, "INSERT", "NEW.function = 'tests.sick'"),
        lambda: _started(names),
    )


def buffered_events(kit: Kit) -> Case:
    names = _gathering(kit)

    def done() -> tuple[bool, bool]:
        fresh = BufferedEvent.objects.filter(window__isnull=True, run__isnull=True)
        sick, well = (not fresh.filter(function=name).exists() for name in names)
        return sick, well

    return Case(
        admission.run_rounds,
        lambda: _break(
            event_windows, "_extend", lambda _, one: one.function[6:] == "sick"
        ),
        done,
    )


def pruned_runs(kit: Kit) -> Case:
    work = durable.function(id="work")(lambda ctx: None)
    items = [work.enqueue().pk for _ in range(2)]
    kit.run_until_idle()
    kit.advance("400d", run=False)
    sick = f"OLD.id = {_literal(items[0])}"
    return Case(
        retention.sweep,
        lambda: _refuse(Run, "DELETE", sick),
        lambda: _gone(Run, items),
    )


def tallies(kit: Kit) -> Case:
    kit.travel_to(run_stats.begin_of(kit.now()) + timedelta(minutes=5))
    sick = run_stats.begin_of(kit.now())
    well = sick - run_stats.LENGTH
    kit.advance("7m", run=False)
    stored = connection.ops.adapt_datetimefield_value(sick)

    def done() -> tuple[bool, bool]:
        counted = set(RunStats.objects.values_list("since", flat=True))
        return sick in counted, well in counted

    return Case(
        run_stats.sweep,
        lambda: _refuse(RunStats, "INSERT", f"NEW.since = '{stored}'"),
        done,
    )


def lost_slots(kit: Kit) -> Case:
    run = durable.function(id="work")(lambda ctx: None).enqueue()
    kit.run_until_idle()
    now = clock.now()
    limit_row = Limit.objects.create(name="g", control="concurrency", used_at=now)
    items = [
        Slot.objects.create(limit=limit_row, run_id=run.pk, since=now).pk
        for _ in range(2)
    ]

    def done() -> tuple[bool, bool]:
        rows = Slot.objects.filter(released_at__isnull=True)
        sick, well = (not rows.filter(pk=pk).exists() for pk in items)
        return sick, well

    return Case(
        stalled_backlogs._release_lost,
        lambda: _refuse(Slot, "UPDATE", f"OLD.id = {items[0]}"),
        done,
    )


def old_admissions(kit: Kit) -> Case:
    now = clock.now()
    limit_row = Limit.objects.create(name="g", control="rate_limit", used_at=now)
    past = now - timedelta(days=1)
    items = [
        RateLimitHit.objects.create(limit=limit_row, at=past, expires_at=past).pk
        for _ in range(2)
    ]
    return Case(
        stalled_backlogs._delete_hits,
        lambda: _refuse(RateLimitHit, "DELETE", f"OLD.id = {items[0]}"),
        lambda: _gone(RateLimitHit, items),
    )


def idle_backlogs(kit: Kit) -> Case:
    past = clock.now() - timedelta(days=9)
    made = [
        Backlog.objects.create(
            name=name,
            function="f",
            queue="q",
            keys={},
            for_new_runs=True,
            eligible_at=past,
        )
        for name in ("one", "two")
    ]
    items = [backlog.pk for backlog in made]
    Backlog.objects.update(active=False)
    return Case(
        stalled_backlogs._delete_backlogs,
        lambda: _refuse(Backlog, "DELETE", f"OLD.id = {items[0]}"),
        lambda: _gone(Backlog, items),
    )


def events(kit: Kit) -> Case:
    @durable.function(id="waits")
    def waits(ctx):
        ctx.step.wait_for_event("w", ctx.event.data["name"])

    for name in ("a/sick", "a/well"):
        waits.enqueue({"name": name})
    kit.run_until_idle()
    items = [kit.send(name) for name in ("a/sick", "a/well")]
    Event.objects.filter(name="a/sick").update(
        data=durable_payload({"$durable": "enum", "value": ["no.such:Thing", "A"]})
    )

    def done() -> tuple[bool, bool]:
        sick, well = (not Event.objects.get(pk=pk).pending for pk in items)
        return sick, well

    def poison() -> Undo:
        return lambda: Event.objects.filter(name="a/sick").update(data={})

    return Case(routing.route_pending, poison, done)


def waits_of_one_event(kit: Kit) -> Case:
    @durable.function(id="waits")
    def waits(ctx):
        ctx.step.wait_for_event("w", "a/come")

    runs = [waits.enqueue() for _ in range(2)]
    kit.run_until_idle()
    items = [Wait.objects.get(run=run).pk for run in runs]
    kit.send("a/come")
    return Case(
        routing.route_pending,
        lambda: _refuse(Wait, "DELETE", f"OLD.id = {items[0]}"),
        lambda: _gone(Wait, items),
    )


def durable_payload(tree: Any) -> Any:
    from durable_jobs.serialization.stored import StoredPayload

    return StoredPayload(tree)


def runs_paused_before(kit: Kit) -> Case:
    runs = _nap(kit)
    reason = f"{missing_functions.PAUSED_BEFORE}'nap'."
    Run.objects.update(status="paused", reason=reason)

    def done() -> tuple[bool, bool]:
        sick, well = (Run.objects.get(pk=run.pk).status != "paused" for run in runs)
        return sick, well

    return Case(
        lambda: missing_functions.resume(["nap"]),
        lambda: _refuse(Run, "UPDATE", f"OLD.id = {_literal(runs[0].pk)}"),
        done,
    )


CASES = [
    runs_paused_before,
    sleeps,
    timeouts,
    expired_leases,
    dead_workers,
    claimed_runs,
    schedules,
    declared_crons,
    arrivals,
    backlogs,
    windows,
    buffered_events,
    pruned_runs,
    tallies,
    lost_slots,
    old_admissions,
    idle_backlogs,
    events,
    waits_of_one_event,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_failing_item_is_postponed_and_the_others_are_done(
    kit: Kit, case: Callable[[Kit], Case]
) -> None:
    made = case(kit)
    heal = made.poison()
    try:
        made.sweep()
        assert made.done() == (False, True)
        [error] = SweepError.objects.all()
        assert error.count == 1
        assert error.until > clock.now()
        assert error.message
        made.sweep()
        error.refresh_from_db()
        assert error.count == 1, "the item is postponed"
        kit.advance(item_errors.FIRST_PAUSE + timedelta(seconds=1), run=False)
        made.sweep()
        error.refresh_from_db()
        assert error.count == 2
        assert error.until - error.last_at == 2 * item_errors.FIRST_PAUSE
    finally:
        heal()
    kit.advance("30s", run=False)
    made.sweep()
    assert made.done() == (True, True)


#: The sweeps over items. A new sweep needs a case, and its name here.
SWEEPS = {
    "timers",
    "leases",
    "events",
    "schedules",
    "crons",
    "rate_limit_hits",
    "backlogs",
    "queues",
    "missing_functions",
    "retention",
    "run_stats",
}
UPKEEP = {
    "lost_slots",
    "changed_limits",
    "limits_with_backlogs",
    "inactive_backlogs",
    "runs_without_backlog",
    "paused",
    "rate_limit_hits",
    "backlogs",
    "limits",
}


def test_sweeps_all_have_a_case() -> None:
    assert set(tick._SWEEPS) == SWEEPS
    assert set(stalled_backlogs._UPKEEP) == UPKEEP


@pytest.mark.parametrize("name", sorted(UPKEEP))
def test_failing_sweep_leaves_the_others_running(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    done: list[str] = []

    def fail() -> int:
        raise ZeroDivisionError(name)

    for other in stalled_backlogs._UPKEEP:
        monkeypatch.setitem(
            stalled_backlogs._UPKEEP, other, lambda other=other: done.append(other) or 1
        )
    monkeypatch.setitem(stalled_backlogs._UPKEEP, name, fail)
    monkeypatch.setattr(
        stalled_backlogs._probe,
        "evaluate",
        lambda *args: dict.fromkeys(stalled_backlogs._UPKEEP, True),
    )
    stalled_backlogs.sweep()
    assert set(done) == UPKEEP - {name}
    assert SweepError.objects.get().item == name


def test_failing_pause_leaves_the_others_running(kit: Kit) -> None:
    for name in ("sick", "well"):
        durable.function(id=name)(lambda ctx: None).enqueue()
        Pause.objects.create(kind="function", name=name, paused_at=clock.now())
    heal = _break(admission, "_set_aside_batch", lambda pause: pause.name == "sick")
    try:
        admission.set_aside_paused()
    finally:
        heal()
    assert Run.objects.get(function="well").backlog is not None
    assert Run.objects.get(function="sick").backlog is None


def test_outage_of_the_database_is_no_error_of_an_item(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "is_usable", lambda: False)

    def work() -> None:
        raise OperationalError("the connection is lost")

    with pytest.raises(OperationalError):
        item_errors.guarded("wait", 1, work)
    assert not SweepError.objects.exists()


def test_run_that_another_loop_has_put_off_is_executed(kit: Kit) -> None:
    def fail() -> None:
        raise ValueError("sick")

    run = durable.function(id="work")(lambda ctx: "done").enqueue()
    assert not item_errors.guarded("run", run.pk, fail)
    claimed = claim_count.claim(run.queue, 1, queue_loop.worker_name())
    queue_loop._execute_all(ClaimedBatch(claimed))
    run.refresh_from_db()
    assert run.result() == "done"


def test_items_that_were_deleted_after_an_error_are_forgotten(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_errors, "MOST_POSTPONED", 10)

    def fail() -> None:
        raise ValueError("no")

    for number in range(10):
        item_errors.guarded("thing", number, fail)
    kit.advance("5s", run=False)
    item_errors.guarded("thing", 10, fail)
    # The item that is due first gets the free slot.
    assert item_errors.postponed("thing") == {str(number) for number in range(1, 11)}
    kit.advance("6s", run=False)
    item_errors.guarded("thing", 11, fail)
    assert item_errors.postponed("thing") == {"10", "11"}
    assert len(item_errors._retry_times) == 2
