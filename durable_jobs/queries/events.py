"""The runs that an event started, woke and cancelled."""

from __future__ import annotations

from django.db.models import F

from durable_jobs.models import EVENT_WAITS, Event, EventOf, Run, Step
from durable_jobs.queries import visibility
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db

#: Rows of each kind on the page of an event.
MOST = 50
#: Runs that ended after an event and are searched for cancelled runs.
MAX_SEARCHED = 1000

_COLUMNS = (
    "key", "name", "kind", "ended_at", "run__function", "run__status",
    "run__queued_at", "run__started_at", "run__ended_at",
)  # fmt: skip


def woken(event_id: str) -> list[Step]:
    """Return the steps whose waits an event ended, with their runs, latest first.

    The list has up to ``MOST + 1`` steps, so that the caller can tell whether there are
    more.
    """
    steps = visibility.of_runs(db.rows(Step))
    rows = (
        steps.filter(kind__in=EVENT_WAITS)
        .alias(event=EventOf(F("detail")))
        .filter(event=event_id)
        .select_related("run")
        .only(*_COLUMNS)
    )
    return list(rows.order_by("-ended_at", "-pk")[: MOST + 1])


def cancelled(event: Event) -> list[Run]:
    """Return runs that an event cancelled, among the first runs that ended after it.

    The router cancels the runs when it delivers the event: at once, or at its ``ts``.
    """
    since = max(event.received_at, event.ts)
    rows = visibility.runs()
    ended = rows.filter(ended_at__gte=since).order_by("ended_at")[:MAX_SEARCHED]
    reason = f"the event {event.name} ({event.pk})"
    found = rows.filter(
        pk__in=ended.values("pk"), status=RunStatus.CANCELLED, reason=reason
    )
    payloads = ("data", "output", "error", "event_meta")
    return list(found.defer(*payloads).order_by("-pk")[: MOST + 1])
