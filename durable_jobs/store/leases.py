"""Leases: claim, renew, release and expire the right to write for a run."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Case, Exists, F, Q, QuerySet, When
from django.db.models.functions import Coalesce

from durable_jobs import clock, ids
from durable_jobs.conf import settings
from durable_jobs.control_flow import EngineControl
from durable_jobs.definitions.start_options import MAX_PRIORITY
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import claim_exclusions, db, limits, pauses
from durable_jobs.store.postgres import claim as claim_statement
from durable_jobs.store.postgres.claim import ClaimRequest

#: A run that may start has a ``run_order`` at most this far in the future. A claim need
#: not read the runs after that, which are delayed.
MAX_RUN_ORDER_AHEAD = timedelta(seconds=MAX_PRIORITY)


class Lease(NamedTuple):
    """The right to write for a run. A new claim gives the run a new token."""

    run_id: uuid.UUID
    token: uuid.UUID


class LeaseLost(EngineControl):
    """The lease is not held any more, so the attempt must not write.

    Another worker has claimed the run, or it was paused or ended from outside.
    """


def claim(
    queue: str, limit: int, worker: str, *, one_per_function: bool = False
) -> list[Run]:
    """Claim up to ``limit`` of the oldest eligible runs of a queue.

    With ``one_per_function``, claim the oldest run of each function, of random
    functions if there are more than ``limit``. Then a long queue of one function does
    not delay the others.

    Functions that this process does not have, and runs that need a newer version, are
    excluded once a claim has found them.

    The claim adds one to ``crash_count``, and the end of the attempt resets it, so that
    a run which kills its worker is counted.
    """
    failpoint("claim.begin", queue)
    now = clock.now()
    request = ClaimRequest(
        token=ids.new_token(),
        lease_until=now + settings.LEASE_DURATION,
        worker=worker,
        now=now,
        latest_order=now + MAX_RUN_ORDER_AHEAD,
    )
    make = claim_statement.claim if db.is_postgres() else _claim
    claimed = make(
        queue,
        limit,
        request,
        one_per_function=one_per_function,
        excluding=claim_exclusions.excluded_functions(),
        excluding_runs=claim_exclusions.excluded_runs(),
    )
    if claimed:
        failpoint("claim.committed", queue)
    return claimed


def _claim(
    queue: str,
    limit: int,
    request: ClaimRequest,
    *,
    one_per_function: bool,
    excluding: Sequence[str],
    excluding_runs: Sequence[uuid.UUID],
) -> list[Run]:
    with db.atomic():
        ready = (
            db.rows(Run)
            .filter(queue=queue, status=RunStatus.QUEUED, backlog__isnull=True)
            .filter(due_at__lte=request.now, run_order__lte=request.latest_order)
            .exclude(started_at__isnull=True, function__in=pauses.functions())
            .exclude(Exists(pauses.of_queue(queue)))
            .order_by("run_order", "id")
        )
        if excluding:
            ready = ready.exclude(function__in=excluding)
        if excluding_runs:
            ready = ready.exclude(pk__in=excluding_runs)
        if db.lockable():
            ready = ready.select_for_update(skip_locked=True)
        chosen = (
            _first_per_function(ready, queue, limit)
            if one_per_function
            else list(ready.values_list("pk", flat=True)[:limit])
        )
        if not chosen:
            return []
        db.rows(Run).filter(pk__in=chosen).update(
            status=RunStatus.RUNNING,
            lease_token=request.token,
            lease_until=request.lease_until,
            worker=request.worker,
            claim_count=F("claim_count") + 1,
            crash_count=F("crash_count") + 1,
            wake_requested=False,
            started_at=Coalesce("started_at", request.now),
        )
        return list(db.rows(Run).filter(pk__in=chosen).order_by("run_order", "id"))


def _first_per_function(
    ready: QuerySet[Run], queue: str, limit: int
) -> list[uuid.UUID]:
    """Return the first run of each function, with one index lookup per function."""
    queued = db.rows(Run).filter(
        queue=queue, status=RunStatus.QUEUED, backlog__isnull=True
    )
    names, name = [], ""
    functions = queued.order_by("function").values_list("function", flat=True)
    while name := functions.filter(function__gt=name).first() or "":
        names.append(name)
    random.shuffle(names)
    chosen: list[uuid.UUID] = []
    for name in names:
        chosen += ready.filter(function=name).values_list("pk", flat=True)[:1]
        if len(chosen) == limit:
            break
    return chosen


def renew(leases: Iterable[tuple[uuid.UUID, uuid.UUID]]) -> set[uuid.UUID]:
    """Renew ``(run_id, token)`` leases; return the ids of the runs still held.

    A locked row is skipped and counts as held: either an ``atomic`` step of this
    process has locked it, or a transaction is changing the run.
    """
    pairs = sorted(leases)
    if not pairs:
        return set()
    wanted = Q()
    for run_id, token in pairs:
        wanted |= Q(pk=run_id, lease_token=token)
    until = clock.now() + settings.LEASE_DURATION
    failpoint("lease.renew")
    with db.atomic():
        held = db.rows(Run).filter(wanted)
        held_ids = set(held.values_list("pk", flat=True))
        if db.lockable():
            free = held.order_by("pk").select_for_update(skip_locked=True, no_key=True)
            free_ids = list(free.values_list("pk", flat=True))
        else:
            free_ids = list(held_ids)
        held.filter(pk__in=free_ids).update(lease_until=until)
    failpoint("lease.renewed")
    return held_ids


def release_leases(run_ids: Iterable[uuid.UUID], token: uuid.UUID) -> int:
    """Requeue claimed runs that have not started; return their number."""
    chosen = list(run_ids)
    with db.atomic():
        limits.release_leased_step_slots(chosen, token)
        return _requeue(chosen, token)


def _requeue(run_ids: Sequence[uuid.UUID], token: uuid.UUID) -> int:
    return (
        db.rows(Run)
        .filter(pk__in=run_ids, lease_token=token, status=RunStatus.RUNNING)
        .update(
            status=RunStatus.QUEUED,
            backlog=F("requeue_to"),
            lease_token=None,
            lease_until=None,
            crash_count=F("crash_count") - 1,
            claim_count=F("claim_count") - 1,
            started_at=Case(When(claim_count=1, then=None), default=F("started_at")),
        )
    )


def expired(limit: int) -> list[Run]:
    """Return up to ``limit`` runs whose lease has expired."""
    return list(
        db.rows(Run)
        .filter(lease_token__isnull=False, lease_until__lt=clock.now())
        .order_by("pk")[:limit]
    )


def rescue(run: Run, due_at: datetime) -> bool:
    """Requeue a run whose lease has expired; return whether this call did it."""
    with db.atomic():
        rows = db.rows(Run).filter(
            pk=run.pk, lease_token=run.lease_token, lease_until__lt=clock.now()
        )
        if db.lockable():
            # A locked row belongs to an open atomic step, so its worker is alive.
            rows = rows.select_for_update(skip_locked=True, no_key=True)
        status = rows.values_list("status", flat=True).first()
        if status is None:
            return False
        changes: dict[str, Any] = {"lease_token": None, "lease_until": None}
        changed = db.rows(Run).filter(pk=run.pk, lease_token=run.lease_token)
        limits.release_slots([run.pk], steps_only=True)
        if status == RunStatus.RUNNING:
            changes |= {
                "status": RunStatus.QUEUED,
                "due_at": due_at,
                "backlog": F("requeue_to"),
            }
        return bool(changed.update(**changes))


def held_by_worker(worker: str, limit: int) -> list[Run]:
    """Return up to ``limit`` runs held by workers whose name starts with ``worker``."""
    return list(
        db.rows(Run)
        .filter(lease_token__isnull=False, worker__startswith=worker)
        .order_by("pk")[:limit]
    )


def postpone(run: Run, until: datetime) -> None:
    """Extend an expired lease, so that a later sweep rescues the run."""
    rows = db.rows(Run).filter(
        pk=run.pk, lease_token=run.lease_token, lease_until__lt=clock.now()
    )
    rows.update(lease_until=until)


def requeue_dead_holder(run: Run, due_at: datetime | None = None) -> bool:
    """Requeue a run whose attempt did not end; return whether this call did it.

    Its worker is dead, or the engine raised. ``crash_count`` keeps the crash, so that
    ``MAX_CRASHES`` bounds such attempts. The run is eligible at ``due_at``, by default
    at once.
    """
    rows = db.rows(Run).filter(
        pk=run.pk, lease_token=run.lease_token, status=RunStatus.RUNNING
    )
    with db.atomic():
        done = rows.update(
            status=RunStatus.QUEUED,
            backlog=F("requeue_to"),
            due_at=due_at or clock.now(),
            lease_token=None,
            lease_until=None,
        )
        if done:
            limits.release_slots([run.pk], steps_only=True)
    return bool(done)
