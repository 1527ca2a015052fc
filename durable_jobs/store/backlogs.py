"""Backlogs: the queues of runs behind the same limits and keys."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Exists, F, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.models import AdmissionState, Backlog, Run, Wait
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, exists_probe, limits, pauses


def waiting(backlog: int | Iterable[int]) -> QuerySet[Run]:
    """Return the queued runs of backlogs in order."""
    rows = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__isnull=False)
    if isinstance(backlog, int):  # an index returns exactly these rows in order
        return rows.filter(backlog=backlog).order_by("run_order", "id")
    return rows.filter(backlog__in=list(backlog)).order_by("run_order", "id")


def awaiting_admission(functions: Iterable[str], now: datetime) -> QuerySet[Run]:
    """Return queued runs that wait for admission and are due, in order of arrival.

    ``functions`` are the functions that this process has.
    """
    rows = db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__lt=0,
        due_at__lte=now,
        function__in=list(functions),
    )
    return rows.order_by("due_at", "id")


def ensure(wanted: Iterable[Backlog]) -> dict[str, Backlog]:
    """Return the rows of backlogs by name; create the missing rows."""
    by_name = {backlog.name: backlog for backlog in wanted}
    rows = db.rows(Backlog).filter(name__in=list(by_name))
    found = {backlog.name: backlog for backlog in rows}
    missing = [backlog for name, backlog in by_name.items() if name not in found]
    if missing:
        db.rows(Backlog).bulk_create(missing)
        found |= {backlog.name: backlog for backlog in missing}
    return found


def get_or_create(backlog: Backlog) -> Backlog:
    """Return the row of a backlog, which another process may create concurrently."""
    rows = db.rows(Backlog)
    rows.bulk_create([backlog], ignore_conflicts=True)
    return rows.get(name=backlog.name)


def assign(runs: Sequence[Run]) -> None:
    """Write the backlogs of locked runs, and activate the backlogs that were empty."""
    if not runs:
        return
    values = {(run.backlog, run.requeue_to) for run in runs}
    rows = db.rows(Run)
    if len(values) == 1:
        [(backlog, requeue_to)] = values
        chosen = rows.filter(pk__in=[run.pk for run in runs])
        chosen.update(backlog=backlog, requeue_to=requeue_to)
    else:
        rows.bulk_update(runs, ["backlog", "requeue_to"])
    empty = db.rows(Backlog).filter(
        pk__in={backlog for backlog, _ in values}, active=False, blocked_on__isnull=True
    )
    empty.update(active=True, eligible_at=clock.now())


def eligible(functions: Iterable[str], now: datetime) -> QuerySet[Backlog]:
    """Return the active backlogs of functions that are due, without paused queues."""
    rows = db.rows(Backlog).filter(
        active=True, eligible_at__lte=now, function__in=list(functions)
    )
    return rows.exclude(Exists(pauses.of_queue(OuterRef("queue"))))


def active(
    queue: str, functions: Iterable[str], limit: int, *, excluding: Iterable[int] = ()
) -> list[Backlog]:
    """Return up to ``limit`` due backlogs of a queue, in round-robin order.

    Exclude the ids in ``excluding``.
    """
    rows = db.rows(Backlog).filter(
        queue=queue,
        active=True,
        eligible_at__lte=clock.now(),
        function__in=list(functions),
    )
    rows = rows.exclude(pk__in=list(excluding))
    return list(rows.order_by("eligible_at", "promoted_count", "id")[:limit])


def eligible_queues(functions: Iterable[str]) -> set[str]:
    """Return the queues that have a due backlog.

    Each queue costs one index lookup, however many backlogs it has.
    """
    return set(exists_probe.walk(_probe, [clock.now()], tuple(functions)))


def _make_queries(
    now: datetime, queue: str, functions: Iterable[str]
) -> exists_probe.Queries:
    others = db.rows(Backlog).filter(active=True, queue__gt=queue)
    return {
        "here": Exists(eligible(functions, now).filter(queue=queue)),
        "next": others.order_by("queue").values_list("queue", flat=True)[:1],
    }


_probe = exists_probe.Probe(_make_queries)


def next_eligible_at() -> datetime | None:
    """Return the earliest future ``eligible_at`` of an active backlog."""
    rows = db.rows(Backlog).filter(active=True, eligible_at__gt=clock.now())
    return rows.order_by("eligible_at").values_list("eligible_at", flat=True).first()


def unblock(limit_id: int, count: int, *, excluding: Iterable[int] = ()) -> int:
    """Activate up to ``count`` backlogs that wait for a limit; return their number."""
    rows = db.rows(Backlog).filter(blocked_on_id=limit_id)
    rows = rows.exclude(pk__in=list(excluding))
    # A backlog of a paused queue would take the free slot and not use it.
    rows = rows.exclude(Exists(pauses.of_queue(OuterRef("queue"))))
    first = list(
        rows.order_by("eligible_at", "promoted_count").values_list("pk", flat=True)[
            :count
        ]
    )
    if not first:
        return 0
    chosen = db.rows(Backlog).filter(pk__in=first)
    return chosen.update(active=True, blocked_on=None)


def blocked_on(
    limit_id: int, functions: Iterable[str], *, excluding: Iterable[int]
) -> list[Backlog]:
    """Return the first backlog of each function that waits for a limit, in order."""
    rows = db.rows(Backlog).filter(blocked_on_id=limit_id)
    rows = rows.exclude(pk__in=list(excluding)).order_by(
        "eligible_at", "promoted_count"
    )
    first = [rows.filter(function=one).first() for one in functions]
    found = [backlog for backlog in first if backlog is not None]
    return sorted(
        found, key=lambda backlog: (backlog.eligible_at, backlog.promoted_count)
    )


def first_runs(backlog: Backlog, limit: int) -> tuple[list[Run], bool]:
    """Lock the first runs of a backlog; return them and whether there may be more.

    Runs that another transaction has locked are skipped, and count as more.
    """
    rows = waiting(backlog.pk).only("id", "backlog")
    found = list(locked(rows)[:limit])
    if len(found) == limit:
        return found, True
    return found, rows.exclude(pk__in=[run.pk for run in found]).exists()


def blocking_limits(limit_ids: Iterable[int]) -> set[int]:
    """Return those of the limits that a backlog waits for."""
    rows = db.rows(Backlog).filter(blocked_on__in=list(limit_ids))
    return set(rows.order_by().values_list("blocked_on", flat=True).distinct())


def first_run(backlog: Backlog) -> tuple[Run | None, bool]:
    """Lock the first run of a strictly ordered backlog; return whether there is one.

    Return ``(None, True)`` while another transaction has locked the first run, because
    the next run must not overtake it.
    """
    rows = waiting(backlog.pk).only("id", "backlog", "flow")
    first = rows.first()
    if first is None:
        return None, False
    return locked(rows.filter(pk=first.pk)).first(), True


def locked(rows: QuerySet[Run]) -> QuerySet[Run]:
    """Return rows with a lock, without the rows that are locked already.

    Waiting could deadlock: a transaction that ends a run holds the lock of the parent
    while it waits for the lock of the run.
    """
    if not db.lockable():
        return rows
    return rows.select_for_update(skip_locked=True, no_key=True)


def promote(run_ids: Sequence[uuid.UUID], requeue_to: int | None) -> None:
    """Move queued runs from their backlogs to ready, and set their ``requeue_to``."""
    if run_ids:
        rows = db.rows(Run).filter(pk__in=list(run_ids), status=RunStatus.QUEUED)
        rows.update(backlog=None, requeue_to=requeue_to)


def write(changed: Sequence[Backlog]) -> None:
    """Write the state of backlogs after a round."""
    if changed:
        fields = ["active", "eligible_at", "promoted_count", "blocked_on"]
        db.rows(Backlog).bulk_update(changed, fields)


def not_admitted() -> Q:
    """Return the condition of runs that are neither in a backlog nor promoted."""
    return Q(backlog__in=AdmissionState.values) | Q(
        backlog__isnull=True, flow__isnull=True
    )


def skip(run_ids: Sequence[uuid.UUID], reason: str) -> list[Run]:
    """End queued runs as skipped, without resolving a parent; return them."""
    rows = db.rows(Run).filter(
        not_admitted(), pk__in=list(run_ids), status=RunStatus.QUEUED
    )
    with db.atomic():
        chosen = list(locked(rows.order_by("pk").only("pk", "function")))
        ended = [run.pk for run in chosen]
        db.rows(Wait).filter(run_id__in=ended)._raw_delete(db.alias())
        db.rows(Run).filter(pk__in=ended).update(
            status=RunStatus.SKIPPED, reason=reason, ended_at=clock.now()
        )
    return chosen


def has_executed(run: Run) -> bool:
    """Return whether an earlier attempt of a claimed run ended without a crash.

    The end of an attempt resets ``crash_count``. If every attempt crashed, the run
    counts as new for its limits.
    """
    return run.claim_count > run.crash_count


def requeue_claimed(
    claimed: Sequence[Run], flows: Mapping[uuid.UUID, dict[str, Any]]
) -> None:
    """Return claimed runs that have not started to admission, with new keys.

    Their slots are released, because the admission checks all limits again.
    """
    with db.atomic():
        for run in claimed:
            held = db.rows(Run).filter(
                pk=run.pk, lease_token=run.lease_token, status=RunStatus.RUNNING
            )
            resumed = has_executed(run)
            state = AdmissionState.RESUMED if resumed else AdmissionState.REQUEUED
            done = held.update(
                status=RunStatus.QUEUED,
                flow=flows[run.pk],
                backlog=state,
                requeue_to=state,
                lease_token=None,
                lease_until=None,
                crash_count=F("crash_count") - 1,
                claim_count=F("claim_count") - 1,
                started_at=run.started_at if run.claim_count > 1 else None,
            )
            if done:
                limits.release_slots([run.pk], steps_only=resumed)


def requeue_promoted(rows: QuerySet[Run], limit: int) -> int:
    """Return promoted runs without a claim to admission; return their number.

    Their slots are released.
    """
    with db.atomic():
        chosen = list(locked(rows.only("pk", "started_at"))[:limit])
        started = [run.pk for run in chosen if run.started_at is not None]
        new = [run.pk for run in chosen if run.started_at is None]
        every = db.rows(Run)
        every.filter(pk__in=started).update(
            backlog=AdmissionState.RESUMED, requeue_to=AdmissionState.RESUMED
        )
        every.filter(pk__in=new).update(
            backlog=AdmissionState.REQUEUED, requeue_to=AdmissionState.REQUEUED
        )
        limits.release_slots(started, steps_only=True)
        limits.release_slots(new)
    return len(chosen)


def promoted_in(queue: str) -> QuerySet[Run]:
    """Return the promoted runs of a queue that are not claimed."""
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        flow__isnull=False,
        queue=queue,
    )


def promoted_unstarted(function: str) -> QuerySet[Run]:
    """Return the promoted runs of a function that have never started."""
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        flow__isnull=False,
        function=function,
        started_at__isnull=True,
    )


def runs_without_backlog() -> QuerySet[Run]:
    """Return queued runs whose backlog no longer exists."""
    existing = db.rows(Backlog).filter(pk=OuterRef("backlog"))
    rows = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__gt=0)
    return rows.exclude(Exists(existing))


def make_eligible(rows: QuerySet[Backlog]) -> int:
    """Make active backlogs eligible now. The caller holds the admission lock."""
    now = clock.now()
    return rows.filter(active=True, eligible_at__gt=now).update(eligible_at=now)


def activate(backlogs: QuerySet[Backlog]) -> int:
    """Activate inactive backlogs; return their number."""
    return backlogs.filter(active=False).update(active=True, blocked_on=None)


def set_aside_paused(
    function: str, backlog: Backlog, limit: int, before: datetime | None
) -> int:
    """Move ready runs of a paused function to a backlog, so that claims skip them.

    Return the number of moved runs.
    """
    rows = ready_unstarted(function).filter(queue=backlog.queue)
    if before is not None:
        rows = rows.filter(queued_at__lt=before)
    with db.atomic():
        first = locked(rows.order_by("run_order", "id"))
        chosen = list(first.values_list("pk", flat=True)[:limit])
        every = db.rows(Run).filter(pk__in=chosen)
        return every.filter(status=RunStatus.QUEUED).update(backlog=backlog.pk)


def ready_queues(function: str) -> list[str]:
    """Return the queues with ready runs of a function that have not started."""
    rows = ready_unstarted(function).order_by("queue").values_list("queue", flat=True)
    found: list[str] = []
    # One index lookup per queue, not per run.
    while queue := rows.filter(queue__gt=found[-1] if found else "").first():
        found.append(queue)
    return found


def ready_unstarted(function: str) -> QuerySet[Run]:
    """Return the ready runs of a function without flow control that have not started.

    Promoted runs are excluded: they hold slots, and are few.
    """
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        flow__isnull=True,
        function=function,
        started_at__isnull=True,
        due_at__lte=clock.now(),
    )


def restore_paused(backlog: Backlog, limit: int) -> int:
    """Move up to ``limit`` set-aside runs of a backlog back to ready, in order."""
    rows = waiting(backlog.pk).filter(requeue_to__isnull=True)
    with db.atomic():
        chosen = list(locked(rows).values_list("pk", flat=True)[:limit])
        every = db.rows(Run).filter(pk__in=chosen)
        return every.filter(status=RunStatus.QUEUED).update(backlog=None)


def postpone(backlog: int, until: datetime) -> None:
    """Set a later ``eligible_at``."""
    db.rows(Backlog).filter(pk=backlog).update(eligible_at=until)


def postpone_run(run_id: uuid.UUID, until: datetime) -> None:
    """Delay the admission of a run."""
    rows = db.rows(Run).filter(pk=run_id, status=RunStatus.QUEUED, backlog__lt=0)
    rows.update(due_at=until)
