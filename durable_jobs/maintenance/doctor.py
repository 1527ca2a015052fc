"""The health of an installation: invariant violations, late work, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Exists, Min, OuterRef, QuerySet

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import format_duration
from durable_jobs.maintenance import tick
from durable_jobs.maintenance.invariants import VIOLATIONS, Violation
from durable_jobs.models import (
    Event,
    Installation,
    Pause,
    Run,
    SweepError,
    Wait,
    Worker,
)
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import db, left_work, pauses, workers

EXAMPLES = 5
REPAIRED_AT_ONCE = 500
#: How late the tick may be before it is a problem.
GRACE = timedelta(seconds=30)
#: How long a run may be ready and not started before it is a problem.
OLDEST = timedelta(minutes=5)
#: For how long a message of another installation is a problem.
OTHER_SEEN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A fact that a person should know; a ``problem`` fails the health check."""

    check: str
    message: str
    count: int = 1
    examples: tuple[str, ...] = ()
    problem: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of an examination, and the figures of the installation."""

    at: datetime
    figures: Mapping[str, Any]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Return whether no finding is a problem."""
        return not any(found.problem for found in self.findings)


def examine(*, deep: bool = False, oldest: timedelta = OLDEST) -> Report:
    """Examine all live rows; with ``deep``, the whole history too.

    ``oldest``: how long a run may be ready before it has to be started.
    """
    findings = [*_violations(deep), *_late(oldest), *_notices()]
    return Report(at=clock.now(), figures=_figures(), findings=tuple(findings))


def readiness(*, oldest: timedelta = OLDEST) -> Report:
    """Check in a few bounded queries whether workers and the tick do the work."""
    now = clock.now()
    seen, ready = last_tick(), _ready_since(now)
    findings = list(_tick(now))
    if ready is not None and ready <= now - oldest:
        ago = format_duration(oldest)
        message = f"Runs were ready {ago} ago and have not begun."
        findings.append(Finding(check="not-begun", message=message))
    figures = {
        "last_tick_seconds": _age(seen, now),
        "oldest_ready_seconds": _age(ready, now),
    }
    return Report(at=now, figures=figures, findings=tuple(findings))


def repair(*, deep: bool = False) -> dict[str, int]:
    """Repair violations and run a tick; return the number of repairs by check."""
    repaired = {}
    for violation in VIOLATIONS:
        if deep or not violation.deep:
            count = _repair_all(violation)
            if count:
                repaired[violation.name] = count
    tick.tick()
    return repaired


def _repair_all(violation: Violation) -> int:
    """Repair all rows of a violation; stop if a batch repairs none."""
    total = 0
    while True:
        rows = list(violation.rows().order_by("pk")[:REPAIRED_AT_ONCE])
        count = sum(_repair_one(violation, row) for row in rows)
        total += count
        if len(rows) < REPAIRED_AT_ONCE or not count:
            return total


def _repair_one(violation: Violation, row: Any) -> bool:
    done = violation.mend(row)
    if done and isinstance(row, Run):
        notifier.notify(row.queue)
    return done


# Violations


def _violations(deep: bool) -> Iterator[Finding]:
    for violation in VIOLATIONS:
        if deep or not violation.deep:
            yield from _found(violation.name, violation.what, violation.rows())


def _found(check: str, what: str, rows: QuerySet[Any]) -> Iterator[Finding]:
    count = rows.count()
    if count:
        chosen = rows.order_by("pk").values_list("pk", flat=True)[:EXAMPLES]
        examples = tuple(str(pk) for pk in chosen)
        yield Finding(check=check, message=what, count=count, examples=examples)


# Late work


def _late(oldest: timedelta) -> Iterator[Finding]:
    now = clock.now()
    yield from _tick(now)
    yield from _other_installation(now)
    overdue = now - GRACE
    runs = db.rows(Run)
    yield from _found(
        "expired-lease",
        "runs are held by workers that are gone, and were not taken back",
        runs.filter(lease_token__isnull=False, lease_until__lt=overdue),
    )
    yield from _found(
        "overdue-wait",
        "waits are due, and were not ended",
        db.rows(Wait).filter(due_at__lte=overdue),
    )
    yield from _found(
        "undelivered-event",
        "events were not offered to what waits for them",
        db.rows(Event).filter(
            pending=True,
            ts__lte=overdue,
            received_at__lte=overdue,
            route_after__isnull=True,
        ),
    )
    yield from _failing(now)
    yield from _found(
        "not-begun",
        f"runs were ready {format_duration(oldest)} ago and have not begun",
        _ready_runs(now - oldest),
    )


def _failing(now: datetime) -> Iterator[Finding]:
    """Yield a finding for each kind of item that keeps failing in sweeps."""
    rows = db.rows(SweepError).filter(until__gte=now - GRACE)
    rows = rows.exclude(kind__in=sorted(left_work.KINDS))
    kinds = rows.order_by("kind").values("kind").annotate(count=Count("pk"))
    for row in kinds:
        examples = rows.filter(kind=row["kind"]).order_by("-last_at")[:EXAMPLES]
        items = tuple(f"{one.item}: {one.message:.200}" for one in examples)
        yield Finding(
            check="failing-item",
            message=f"items of the kind {row['kind']!r} keep failing",
            count=row["count"],
            examples=items,
        )


def _ready_runs(moment: datetime) -> QuerySet[Run]:
    """Return the runs that were ready at a time and that nothing holds back."""
    rows = db.rows(Run).filter(status=RunStatus.QUEUED, due_at__lte=moment)
    rows = rows.exclude(function__in=workers.missing().values("function"))
    rows = rows.exclude(pk__in=left_work.needing_newer_version().values("run_id"))
    # As claims select them: paused runs cannot be claimed.
    rows = rows.exclude(started_at__isnull=True, function__in=pauses.functions())
    return rows.exclude(backlog__gt=0).exclude(
        Exists(pauses.of_queue(OuterRef("queue")))
    )


def _ready_since(now: datetime) -> datetime | None:
    rows = _ready_runs(now).order_by("due_at")
    return rows.values_list("due_at", flat=True).first()


def _tick(now: datetime) -> Iterator[Finding]:
    seen = last_tick()
    if seen is None:
        yield Finding(check="tick", message="No tick yet. Is Celery beat running?")
    elif seen < now - max(GRACE, 10 * settings.TICK_INTERVAL):
        ago = format_duration(timedelta(seconds=round((now - seen).total_seconds())))
        message = f"The last tick was {ago} ago: is beat running?"
        yield Finding(check="tick", message=message)


def last_tick() -> datetime | None:
    """Return the time of the last tick, to ten seconds."""
    rows = db.rows(Worker).filter(name=tick.TICK)
    return rows.values_list("seen_at", flat=True).first()


# Notices


def _other_installation(now: datetime) -> Iterator[Finding]:
    rows = db.rows(Installation)
    for row in rows.filter(other_seen_at__gt=now - OTHER_SEEN):
        yield Finding(
            check="other-installation",
            message=f"Messages of installation {row.other_key} come by the queue "
            f"{row.other_queue!r} to installation {row.key}: both use one broker. "
            "Set QUEUE_PREFIX, or give one another broker.",
        )


def _notices() -> Iterator[Finding]:
    live = db.rows(Run).filter(status__in=sorted(LIVE))
    yield from _unknown(live)
    yield from _newer_version()
    yield from _unserved()
    paused = live.filter(status=RunStatus.PAUSED).values("reason")
    for why in paused.annotate(count=Count("pk")).order_by("-count")[:EXAMPLES]:
        yield Finding(
            check="paused-run",
            message=f"runs are paused: {why['reason'] or 'no reason was given'}",
            count=why["count"],
            problem=False,
        )
    crashing = live.filter(crash_count__gt=1, status__in=_EXECUTABLE)
    for found in _found("crashing-run", "runs keep losing their worker", crashing):
        yield replace(found, problem=False)
    for pause in db.rows(Pause).order_by("pk"):
        cause = f": {pause.reason}" if pause.reason else ""
        what = f"key {pause.key} of {pause.name!r}" if pause.key else repr(pause.name)
        yield Finding(
            check="paused-queue" if pause.kind == Pause.QUEUE else "paused-function",
            message=f"{what} is paused{cause}",
            problem=False,
        )


def _unknown(live: QuerySet[Run]) -> Iterator[Finding]:
    """Yield the functions of live runs that no worker has had for long."""
    now, there = clock.now(), workers.functions()
    since = dict(workers.missing().values_list("function", "since"))
    known = {*registry.ids(), *(there or ())} - since.keys()
    if there is None:
        return  # a worker of an older version may have them
    rows = live.exclude(function__in=known).values("function")
    found = rows.annotate(count=Count("pk"), first=Min("due_at")).order_by("function")
    for row in found:
        age = now - since.get(row["function"], row["first"])
        if age < settings.UNKNOWN_AFTER:
            continue
        length = format_duration(timedelta(seconds=round(age.total_seconds())))
        yield Finding(
            check="unknown-function",
            message=f"runs are of {row['function']!r}, which no worker has had for "
            f"{length}",
            count=row["count"],
            problem=False,
        )


def _newer_version() -> Iterator[Finding]:
    """Yield runs that have needed a newer version for long."""
    rows = left_work.needing_newer_version(clock.now() - settings.UNKNOWN_AFTER)
    count = rows.count()
    if count:
        some = rows.order_by("since")[:EXAMPLES]
        yield Finding(
            check="newer-version",
            message="runs need a newer version of durable_jobs than their workers have",
            count=count,
            examples=tuple(f"{one.item}: {one.message:.200}" for one in some),
            problem=False,
        )


def _unserved() -> Iterator[Finding]:
    """Yield the queues that functions name and no live worker serves."""
    if settings.EXECUTOR != "celery":
        return
    for queue in sorted({settings.QUEUE, *registry.queues()} - workers.queues()):
        ready = _ready_runs(clock.now()).filter(queue=queue).count()
        waiting = f", and {ready} runs are ready in it" if ready else ""
        yield Finding(
            check="unserved-queue",
            message=f"no living worker serves the queue {queue!r}{waiting}",
            problem=bool(ready),
        )


_EXECUTABLE = [RunStatus.QUEUED.value, RunStatus.RUNNING.value]


def _figures() -> dict[str, Any]:
    now = clock.now()
    runs = db.rows(Run)
    live = runs.filter(status__in=sorted(LIVE)).order_by().values_list("status")
    pending = db.rows(Event).filter(pending=True, ts__lte=now)
    expired = runs.filter(lease_token__isnull=False, lease_until__lt=now)
    seen = last_tick()
    return {
        "last_tick_seconds": _age(seen, now),
        "oldest_ready_seconds": _age(_ready_since(now), now),
        "runs": dict(live.annotate(count=Count("pk"))),
        "waits": db.rows(Wait).count(),
        "expired_leases": expired.count(),
        "pending_events": pending.count(),
        "functions": len(registry),
        "workers": workers.alive().count(),
    }


def _age(moment: datetime | None, now: datetime) -> float | None:
    return None if moment is None else round((now - moment).total_seconds(), 3)
