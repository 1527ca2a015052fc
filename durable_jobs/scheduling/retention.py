"""Pruning: what ended long ago goes, in bounded batches."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.failpoints import hit
from durable_jobs.models import Event, IdempotencyKey, Run, Worker
from durable_jobs.statuses import TERMINAL
from durable_jobs.store import db, probing, steering

#: How long a worker that is gone without a word is remembered.
UNSEEN = timedelta(days=1)


def sweep(limit: int | None = None) -> int:
    """Delete up to a batch of each kind that is past its retention; count them."""
    batch = limit or settings.PRUNE_BATCH
    past = _past()
    # Mostly there is nothing: one statement tells, whatever the number of kinds.
    there = probing.evaluate({kind: Exists(rows) for kind, rows in past.items()})
    return sum(_delete(rows, batch) for kind, rows in past.items() if there[kind])


def _past() -> dict[str, QuerySet[Any]]:
    """Return what is past its retention, by kind, the earliest first."""
    past: dict[str, QuerySet[Any]] = {"keys": _keys(), "workers": _workers()}
    for kind, keep in settings.RETENTION.items():
        if keep is None:
            continue
        if kind == "events":
            past[kind] = _events(keep)
        elif kind in TERMINAL:
            past[kind] = _runs(kind, keep)
    return past


def _runs(status: str, keep: timedelta) -> QuerySet[Run]:
    """Return ended runs; one whose live parent may still ask for it stays."""
    live_parent = Run.objects.filter(pk=OuterRef("parent_id"), ended_at__isnull=True)
    return (
        Run.objects.using(db.alias())
        .filter(ended_at__lt=clock.now() - keep, status=status)
        .exclude(Exists(live_parent))
        # Under its key it is to be found for that long, whatever became of it.
        .exclude(~Q(key=""), queued_at__gt=clock.now() - settings.IDEMPOTENCY)
        .order_by("ended_at")
    )


def _events(keep: timedelta) -> QuerySet[Event]:
    rows = Event.objects.using(db.alias()).filter(
        received_at__lt=clock.now() - keep, pending=False
    )
    return rows.order_by("received_at")


def _keys() -> QuerySet[IdempotencyKey]:
    """Return keys whose time is over and whose run has ended or is gone."""
    live = Run.objects.filter(pk=OuterRef("run_id"), ended_at__isnull=True)
    rows = IdempotencyKey.objects.using(db.alias()).filter(expires_at__lt=clock.now())
    return rows.exclude(Exists(live))


def _workers() -> QuerySet[Worker]:
    rows = Worker.objects.using(db.alias()).filter(
        kind="worker", seen_at__lt=clock.now() - UNSEEN
    )
    return rows.order_by("seen_at")


def _delete(rows: QuerySet[Any], batch: int) -> int:
    chosen = list(rows.values_list("pk", flat=True)[:batch])
    table = rows.model._meta.db_table
    hit("prune.begin", table)
    if rows.model is Run:
        with db.atomic():
            steering.delete(chosen)
    else:
        old = rows.model._default_manager.using(db.alias()).filter(pk__in=chosen)
        old._raw_delete(db.alias())
    hit("prune.committed", table)
    return len(chosen)
