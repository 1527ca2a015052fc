"""Backlogs: where queued runs stand in line, and how they move."""

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
    """Return the queued runs of backlogs, in line."""
    rows = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__isnull=False)
    if isinstance(backlog, int):  # an index gives these in order, and no others
        return rows.filter(backlog=backlog).order_by("run_order", "id")
    return rows.filter(backlog__in=list(backlog)).order_by("run_order", "id")


def awaiting_admission(functions: Iterable[str], now: datetime) -> QuerySet[Run]:
    """Return queued runs that no admission has looked at, in the order of arrival.

    Of the functions that this process knows, and whose time has come by ``now``.
    """
    rows = db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__lt=0,
        due_at__lte=now,
        function__in=list(functions),
    )
    return rows.order_by("due_at", "id")


def ensure(wanted: Iterable[Backlog]) -> dict[str, Backlog]:
    """Return the rows of backlogs by name; those that are new are written."""
    by_name = {backlog.name: backlog for backlog in wanted}
    rows = db.rows(Backlog).filter(name__in=list(by_name))
    found = {backlog.name: backlog for backlog in rows}
    missing = [backlog for name, backlog in by_name.items() if name not in found]
    if missing:
        db.rows(Backlog).bulk_create(missing)
        found |= {backlog.name: backlog for backlog in missing}
    return found


def get_or_create(backlog: Backlog) -> Backlog:
    """Return the row of a backlog, which somebody else may be making too."""
    rows = db.rows(Backlog)
    rows.bulk_create([backlog], ignore_conflicts=True)
    return rows.get(name=backlog.name)


def assign(runs: Sequence[Run]) -> None:
    """Write the backlogs of locked runs, and let the backlogs that were empty try."""
    if not runs:
        return
    places = {(run.backlog, run.requeue_to) for run in runs}
    rows = db.rows(Run)
    if len(places) == 1:
        [(backlog, entry)] = places
        chosen = rows.filter(pk__in=[run.pk for run in runs])
        chosen.update(backlog=backlog, requeue_to=entry)
    else:
        rows.bulk_update(runs, ["backlog", "requeue_to"])
    empty = db.rows(Backlog).filter(
        pk__in={backlog for backlog, _ in places}, active=False, blocked_on__isnull=True
    )
    empty.update(active=True, eligible_at=clock.now())


def eligible(functions: Iterable[str], now: datetime) -> QuerySet[Backlog]:
    """Return the backlogs of functions whose turn has come, of queues not paused."""
    rows = db.rows(Backlog).filter(
        active=True, eligible_at__lte=now, function__in=list(functions)
    )
    return rows.exclude(Exists(pauses.of_queue(OuterRef("queue"))))


def active(
    queue: str, functions: Iterable[str], limit: int, *, leaving: Iterable[int] = ()
) -> list[Backlog]:
    """Return backlogs of a queue whose turn has come, in turn."""
    rows = db.rows(Backlog).filter(
        queue=queue,
        active=True,
        eligible_at__lte=clock.now(),
        function__in=list(functions),
    )
    rows = rows.exclude(pk__in=list(leaving))
    return list(rows.order_by("eligible_at", "promoted_count", "id")[:limit])


def eligible_queues(functions: Iterable[str]) -> set[str]:
    """Return the queues that have a backlog whose turn has come.

    One look into the index for each queue, however many backlogs it has.
    """
    return set(exists_probe.walk(_probe, [clock.now()], tuple(functions)))


def _questions(
    now: datetime, queue: str, functions: Iterable[str]
) -> exists_probe.Queries:
    others = db.rows(Backlog).filter(active=True, queue__gt=queue)
    return {
        "here": Exists(eligible(functions, now).filter(queue=queue)),
        "next": others.order_by("queue").values_list("queue", flat=True)[:1],
    }


_probe = exists_probe.Probe(_questions)


def next_eligible_at() -> datetime | None:
    """Return the earliest turn of a backlog that is still to come."""
    rows = db.rows(Backlog).filter(active=True, eligible_at__gt=clock.now())
    return rows.order_by("eligible_at").values_list("eligible_at", flat=True).first()


def unblock(limit_id: int, count: int, *, leaving: Iterable[int] = ()) -> int:
    """Let backlogs that wait for a limit try again, the first in turn first."""
    rows = db.rows(Backlog).filter(blocked_on_id=limit_id)
    rows = rows.exclude(pk__in=list(leaving))
    # One that cannot go on would keep the room from the others.
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
    limit_id: int, functions: Iterable[str], *, leaving: Iterable[int]
) -> list[Backlog]:
    """Return the first backlog of each function that waits for a limit, in turn."""
    rows = db.rows(Backlog).filter(blocked_on_id=limit_id)
    rows = rows.exclude(pk__in=list(leaving)).order_by("eligible_at", "promoted_count")
    first = [rows.filter(function=one).first() for one in functions]
    found = [backlog for backlog in first if backlog is not None]
    return sorted(
        found, key=lambda backlog: (backlog.eligible_at, backlog.promoted_count)
    )


def first_runs(backlog: Backlog, limit: int) -> tuple[list[Run], bool]:
    """Return the first runs in line in a backlog; tell whether there may be others.

    Those that somebody is just changing are passed over, and may be.
    """
    line = waiting(backlog.pk).only("id", "backlog")
    found = list(locked(line)[:limit])
    if len(found) == limit:
        return found, True
    return found, line.exclude(pk__in=[run.pk for run in found]).exists()


def blocking_limits(limit_ids: Iterable[int]) -> set[int]:
    """Return those of some limits that a backlog waits for."""
    rows = db.rows(Backlog).filter(blocked_on__in=list(limit_ids))
    return set(rows.order_by().values_list("blocked_on", flat=True).distinct())


def first_run(backlog: Backlog) -> tuple[Run | None, bool]:
    """Return the first run in line where the order is strict; tell if there is one.

    None, while somebody is just changing it: the next one may not go before it.
    """
    rows = waiting(backlog.pk).only("id", "backlog", "flow")
    first = rows.first()
    if first is None:
        return None, False
    return locked(rows.filter(pk=first.pk)).first(), True


def locked(rows: QuerySet[Run]) -> QuerySet[Run]:
    """Return rows under a lock, without those that somebody else has.

    Whoever ends a run holds its parent's row and waits for its own: an admission that
    waited for rows would deadlock with that.
    """
    if not db.lockable():
        return rows
    return rows.select_for_update(skip_locked=True, no_key=True)


def promote(run_ids: Sequence[uuid.UUID], entry: int | None) -> None:
    """Let queued runs be claimed; ``entry`` is where they stand when queued again."""
    if run_ids:
        rows = db.rows(Run).filter(pk__in=list(run_ids), status=RunStatus.QUEUED)
        rows.update(backlog=None, requeue_to=entry)


def write(changed: Sequence[Backlog]) -> None:
    """Write where backlogs stand after a round."""
    if changed:
        fields = ["active", "eligible_at", "promoted_count", "blocked_on"]
        db.rows(Backlog).bulk_update(changed, fields)


def not_admitted() -> Q:
    """Return the condition of runs that no admission has put in line or let through."""
    return Q(backlog__in=AdmissionState.values) | Q(
        backlog__isnull=True, flow__isnull=True
    )


def skip(run_ids: Sequence[uuid.UUID], reason: str) -> list[Run]:
    """End queued runs that are not to start and that nobody invoked; return them."""
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
    """Tell whether an attempt of a run that was just claimed has come to its end.

    That forgives the crashes before it. A run that lost its worker each time has begun
    nothing that others would have to wait for.
    """
    return run.claim_count > run.crash_count


def requeue_claimed(
    claimed: Sequence[Run], flows: Mapping[uuid.UUID, dict[str, Any]]
) -> None:
    """Put claimed runs in line that nobody has begun to execute, with these keys.

    What they hold for limits that they have passed is released: they pass all again.
    """
    with db.atomic():
        for run in claimed:
            held = db.rows(Run).filter(
                pk=run.pk, lease_token=run.lease_token, status=RunStatus.RUNNING
            )
            again = has_executed(run)
            entry = AdmissionState.RESUMED if again else AdmissionState.REQUEUED
            done = held.update(
                status=RunStatus.QUEUED,
                flow=flows[run.pk],
                backlog=entry,
                requeue_to=entry,
                lease_token=None,
                lease_until=None,
                crash_count=F("crash_count") - 1,
                claim_count=F("claim_count") - 1,
                started_at=run.started_at if run.claim_count > 1 else None,
            )
            if done:
                limits.release([run.pk], steps_only=again)


def requeue_promoted(rows: QuerySet[Run], limit: int) -> int:
    """Put runs that were let through and not begun back in line, without slots."""
    with db.atomic():
        chosen = list(locked(rows.only("pk", "started_at"))[:limit])
        begun = [run.pk for run in chosen if run.started_at is not None]
        fresh = [run.pk for run in chosen if run.started_at is None]
        every = db.rows(Run)
        every.filter(pk__in=begun).update(
            backlog=AdmissionState.RESUMED, requeue_to=AdmissionState.RESUMED
        )
        every.filter(pk__in=fresh).update(
            backlog=AdmissionState.REQUEUED, requeue_to=AdmissionState.REQUEUED
        )
        limits.release(begun, steps_only=True)
        limits.release(fresh)
    return len(chosen)


def promoted_in(queue: str) -> QuerySet[Run]:
    """Return the runs of a queue that were let through and that nobody has claimed."""
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        flow__isnull=False,
        queue=queue,
    )


def promoted_unstarted(function: str) -> QuerySet[Run]:
    """Return the runs of a function that were let through, and have not begun."""
    return db.rows(Run).filter(
        status=RunStatus.QUEUED,
        backlog__isnull=True,
        flow__isnull=False,
        function=function,
        started_at__isnull=True,
    )


def runs_without_backlog() -> QuerySet[Run]:
    """Return queued runs whose backlog is none."""
    there = db.rows(Backlog).filter(pk=OuterRef("backlog"))
    rows = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__gt=0)
    return rows.exclude(Exists(there))


def make_eligible(rows: QuerySet[Backlog]) -> int:
    """Let backlogs whose turn is to come try now; the lock is held."""
    now = clock.now()
    return rows.filter(active=True, eligible_at__gt=now).update(eligible_at=now)


def activate(backlogs: QuerySet[Backlog]) -> int:
    """Let backlogs that stand still try again."""
    return backlogs.filter(active=False).update(active=True, blocked_on=None)


def set_aside_paused(
    function: str, backlog: Backlog, limit: int, before: datetime | None
) -> int:
    """Take runs that have not begun out of the way of claims; count them."""
    rows = ready_unstarted(function).filter(queue=backlog.queue)
    if before is not None:
        rows = rows.filter(queued_at__lt=before)
    with db.atomic():
        first = locked(rows.order_by("run_order", "id"))
        chosen = list(first.values_list("pk", flat=True)[:limit])
        every = db.rows(Run).filter(pk__in=chosen)
        return every.filter(status=RunStatus.QUEUED).update(backlog=backlog.pk)


def ready_queues(function: str) -> list[str]:
    """Return the queues in which runs of a function stand that have not begun."""
    rows = ready_unstarted(function).order_by("queue").values_list("queue", flat=True)
    found: list[str] = []
    # From queue to queue in the index, not from run to run.
    while queue := rows.filter(queue__gt=found[-1] if found else "").first():
        found.append(queue)
    return found


def ready_unstarted(function: str) -> QuerySet[Run]:
    """Return the runs of a function that may be claimed and have not begun.

    Not those that were let through limits: they have slots, and are few.
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
    """Let up to ``limit`` runs of a backlog be claimed again, the first ones first."""
    rows = waiting(backlog.pk).filter(requeue_to__isnull=True)
    with db.atomic():
        chosen = list(locked(rows).values_list("pk", flat=True)[:limit])
        every = db.rows(Run).filter(pk__in=chosen)
        return every.filter(status=RunStatus.QUEUED).update(backlog=None)


def put_off(backlog: int, until: datetime) -> None:
    """Let a backlog have its next turn later."""
    db.rows(Backlog).filter(pk=backlog).update(eligible_at=until)


def put_off_run(run_id: uuid.UUID, until: datetime) -> None:
    """Let a run that has arrived be looked at later."""
    rows = db.rows(Run).filter(pk=run_id, status=RunStatus.QUEUED, backlog__lt=0)
    rows.update(due_at=until)
