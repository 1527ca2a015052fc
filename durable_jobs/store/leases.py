"""The right to write for a run: claimed, renewed, given back, and lost."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Exists, F, Q, QuerySet, When
from django.db.models.functions import Coalesce

from durable_jobs import clock, ids
from durable_jobs.conf import settings
from durable_jobs.control_flow import EngineControl
from durable_jobs.definitions.start_options import MAX_PRIORITY
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, limits, pauses, unknown_functions
from durable_jobs.store.postgres import statements

#: No run that may start has a place later than this from now: a claim need not look
#: through those that are delayed for longer.
FARTHEST_BEHIND = timedelta(seconds=MAX_PRIORITY)


class LeaseLost(EngineControl):
    """Another worker, or a person, has taken this run: nothing more may be written."""


def claim(queue: str, limit: int, worker: str, *, heads: bool = False) -> list[Run]:
    """Claim up to ``limit`` of the oldest eligible runs of a queue.

    ``heads``: the oldest of each function instead, of functions that chance chooses
    when there are more; so that the backlog of one does not hold up the others.

    Functions that this process does not have are passed over once it has met them.

    The crash is counted here and forgiven when the attempt ends, so that a run which
    kills its worker is counted too.
    """
    failpoint("claim.begin", queue)
    now, others = clock.now(), unknown_functions.names()
    until, behind = now + settings.LEASE_DURATION, now + FARTHEST_BEHIND
    lease = statements.Lease(ids.new_token(), until, worker, now, behind)
    if db.is_postgres():
        claimed = statements.claim(
            queue, limit, lease, heads=heads, passing_over=others
        )
    else:
        claimed = _claim(queue, limit, lease, heads=heads, passing_over=others)
    if claimed:
        failpoint("claim.committed", queue)
    return claimed


def _claim(
    queue: str,
    limit: int,
    lease: statements.Lease,
    *,
    heads: bool,
    passing_over: Sequence[str],
) -> list[Run]:
    with db.atomic():
        ready = (
            db.rows(Run)
            .filter(queue=queue, status=RunStatus.QUEUED, backlog__isnull=True)
            .filter(due_at__lte=lease.now, run_order__lte=lease.behind)
            .exclude(started_at__isnull=True, function__in=pauses.functions())
            .exclude(Exists(pauses.of_queue(queue)))
            .order_by("run_order", "id")
        )
        if passing_over:
            ready = ready.exclude(function__in=passing_over)
        if db.lockable():
            ready = ready.select_for_update(skip_locked=True)
        chosen = (
            _heads(ready, queue, limit)
            if heads
            else list(ready.values_list("pk", flat=True)[:limit])
        )
        if not chosen:
            return []
        db.rows(Run).filter(pk__in=chosen).update(
            status=RunStatus.RUNNING,
            lease_token=lease.token,
            lease_until=lease.until,
            worker=lease.worker,
            claim_count=F("claim_count") + 1,
            crash_count=F("crash_count") + 1,
            wake_requested=False,
            started_at=Coalesce("started_at", lease.now),
        )
        return list(db.rows(Run).filter(pk__in=chosen).order_by("run_order", "id"))


def _heads(ready: QuerySet[Run], queue: str, limit: int) -> list[uuid.UUID]:
    """Return the first of each function, by one step through the index for each."""
    line = db.rows(Run).filter(
        queue=queue, status=RunStatus.QUEUED, backlog__isnull=True
    )
    names, name = [], ""
    following = line.order_by("function").values_list("function", flat=True)
    while name := following.filter(function__gt=name).first() or "":
        names.append(name)
    random.shuffle(names)
    chosen: list[uuid.UUID] = []
    for name in names:
        chosen += ready.filter(function=name).values_list("pk", flat=True)[:1]
        if len(chosen) == limit:
            break
    return chosen


def renew(holders: Iterable[tuple[uuid.UUID, uuid.UUID]]) -> set[uuid.UUID]:
    """Renew the leases of ``(run, token)`` pairs; return the runs still held.

    A row that is locked is inside an ``atomic`` step of this very process, or is being
    changed by someone who will decide: it is left alone, and counts as held.
    """
    pairs = sorted(holders)
    if not pairs:
        return set()
    wanted = Q()
    for run_id, token in pairs:
        wanted |= Q(pk=run_id, lease_token=token)
    until = clock.now() + settings.LEASE_DURATION
    failpoint("lease.renew")
    with db.atomic():
        held = db.rows(Run).filter(wanted)
        every = set(held.values_list("pk", flat=True))
        if db.lockable():
            free = held.order_by("pk").select_for_update(skip_locked=True, no_key=True)
            every_free = list(free.values_list("pk", flat=True))
        else:
            every_free = list(every)
        held.filter(pk__in=every_free).update(lease_until=until)
    failpoint("lease.renewed")
    return every


def release(run_ids: Iterable[uuid.UUID], token: uuid.UUID) -> int:
    """Return claimed runs that were not begun to their queue; count them."""
    chosen = list(run_ids)
    with db.atomic():
        limits.release_held(chosen, token)
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
    """Return runs whose holder has let the lease run out."""
    return list(
        db.rows(Run)
        .filter(lease_token__isnull=False, lease_until__lt=clock.now())
        .order_by("pk")[:limit]
    )


def rescue(run: Run, due_at: datetime) -> bool:
    """Put a run whose lease ran out back in its queue; tell whether this call did."""
    with db.atomic():
        rows = db.rows(Run).filter(
            pk=run.pk, lease_token=run.lease_token, lease_until__lt=clock.now()
        )
        if db.lockable():
            # A locked row is inside an atomic step: its holder is alive after all.
            rows = rows.select_for_update(skip_locked=True, no_key=True)
        status = rows.values_list("status", flat=True).first()
        if status is None:
            return False
        free: dict[str, Any] = {"lease_token": None, "lease_until": None}
        changed = db.rows(Run).filter(pk=run.pk, lease_token=run.lease_token)
        limits.release([run.pk], resting=True)
        if status == RunStatus.RUNNING:
            free |= {
                "status": RunStatus.QUEUED,
                "due_at": due_at,
                "backlog": F("requeue_to"),
            }
        return bool(changed.update(**free))


def abandoned(worker: str, limit: int) -> list[Run]:
    """Return runs held by workers whose name begins with ``worker``."""
    return list(
        db.rows(Run)
        .filter(lease_token__isnull=False, worker__startswith=worker)
        .order_by("pk")[:limit]
    )


def put_off(run: Run, until: datetime) -> None:
    """Leave a lease that ran out to a later sweep."""
    rows = db.rows(Run).filter(
        pk=run.pk, lease_token=run.lease_token, lease_until__lt=clock.now()
    )
    rows.update(lease_until=until)


def requeue_dead_holder(run: Run, due_at: datetime | None = None) -> bool:
    """Take a run from a holder that is known to be dead; tell whether this call did.

    The crash stays counted: the run may be what its worker died of. ``due_at``: it may
    be claimed again then, else at once.
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
            limits.release([run.pk], resting=True)
    return bool(done)
