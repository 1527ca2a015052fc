"""Delete what is past its retention, in bounded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Event, IdempotencyKey, Run, SweepError, Worker
from durable_jobs.statuses import TERMINAL
from durable_jobs.store import (
    db,
    exists_probe,
    item_errors,
    left_work,
    run_changes,
)

#: How long the row of a worker without heartbeats is kept.
UNSEEN = timedelta(days=1)


def sweep(limit: int | None = None) -> int:
    """Delete up to a batch of each kind past its retention; return how many rows."""
    batch = limit or settings.PRUNE_BATCH
    times = _times()
    kinds = tuple(times)
    # Usually there is nothing: one query checks all kinds.
    there = _probe.evaluate(list(times.values()), kinds)
    past = _past(times) if any(there.values()) else {}
    return sum(_delete(past[kind], batch) for kind in past if there[kind])


def _times() -> dict[str, datetime]:
    """Return the retention cutoff by kind."""
    now = clock.now()
    kept = {kind: keep for kind, keep in settings.RETENTION.items() if keep is not None}
    return {
        "keys": now,
        "workers": now - UNSEEN,
        "errors": now - UNSEEN,
        "named": now - settings.IDEMPOTENCY_PERIOD,
        **{kind: now - keep for kind, keep in kept.items()},
    }


def _past(times: Mapping[str, datetime]) -> dict[str, QuerySet[Any]]:
    """Return the rows past their retention, by kind, the earliest first."""
    past: dict[str, QuerySet[Any]] = {
        "keys": _keys(times["keys"]),
        "workers": _workers(times["workers"]),
        "errors": _errors(times["errors"]),
    }
    for kind, until in times.items():
        if kind == "events":
            past[kind] = _events(until)
        elif kind in TERMINAL:
            past[kind] = _runs(kind, until, times["named"])
    return past


def _work_queries(*given: Any) -> dict[str, Exists]:
    *times, kinds = given
    past = _past(dict(zip(kinds, times, strict=True)))
    return {kind: Exists(rows) for kind, rows in past.items()}


_probe = exists_probe.Probe(_work_queries)


def _runs(status: str, until: datetime, named: datetime) -> QuerySet[Run]:
    """Return ended runs, without those whose live parent may still read them."""
    live_parent = Run.objects.filter(pk=OuterRef("parent_id"), ended_at__isnull=True)
    return (
        db.rows(Run)
        .filter(ended_at__lt=until, status=status)
        .exclude(Exists(live_parent))
        # A run with a key stays findable for the idempotency period.
        .exclude(~Q(key=""), queued_at__gt=named)
        .order_by("ended_at")
    )


def _events(until: datetime) -> QuerySet[Event]:
    rows = db.rows(Event).filter(received_at__lt=until, pending=False)
    return rows.order_by("received_at")


def _keys(now: datetime) -> QuerySet[IdempotencyKey]:
    """Return expired keys whose run has ended or is deleted."""
    live = Run.objects.filter(pk=OuterRef("run_id"), ended_at__isnull=True)
    rows = db.rows(IdempotencyKey).filter(expires_at__lt=now)
    return rows.exclude(Exists(live))


def _workers(until: datetime) -> QuerySet[Worker]:
    rows = db.rows(Worker).filter(kind="worker", seen_at__lt=until)
    return rows.order_by("seen_at")


def _errors(until: datetime) -> QuerySet[SweepError]:
    """Return errors of items that were not retried: they are deleted or done."""
    rows = db.rows(SweepError).filter(until__lt=until)
    return rows.exclude(pk__in=left_work.open_rows().values("pk")).order_by("until")


def _delete(rows: QuerySet[Any], batch: int) -> int:
    chosen = list(rows.values_list("pk", flat=True)[:batch])
    table = rows.model._meta.db_table
    failpoint("prune.begin", table)

    def together(keys: Sequence[Any]) -> None:
        if rows.model is Run:
            with db.atomic():
                run_changes.delete(keys)
            return
        old = rows.model._default_manager.using(db.alias()).filter(pk__in=keys)
        old._raw_delete(db.alias())

    done = item_errors.guarded_batch(
        rows.model._meta.model_name or table, chosen, together
    )
    failpoint("prune.committed", table)
    return done
