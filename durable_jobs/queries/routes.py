"""The progress of the router with events, as text."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs import clock
from durable_jobs.models import Event, Run, SweepError, Wait, WaitKind
from durable_jobs.store import db

#: Waits of one run whose pending events are searched.
MOST = 50


def described(event: Event) -> str:
    """Return the progress of an event with several passes, or an empty string."""
    if not event.routing:
        return ""
    count = int(event.routing.get("evaluated", 0))
    text = ngettext(
        "%(count)s condition was evaluated.",
        "%(count)s conditions were evaluated.",
        count,
    ) % {"count": count}
    if not event.pending:
        return text
    if event.route_after is None:
        return f"{text} {_('The router continues in its next round.')}"
    rows = db.rows(SweepError).filter(kind="event", item=event.pk)
    failed = rows.values_list("count", flat=True).first() or 1
    again = _("It failed %(count)s times and is retried at %(at)s.")
    at = event.route_after.isoformat(timespec="seconds")
    return f"{text} {again % {'count': failed, 'at': at}}"


def unrouted_for(run: Run) -> list[Event]:
    """Return pending events that a run may wait for, earliest first."""
    waits = db.rows(Wait).filter(run_id=run.pk, kind=WaitKind.EVENT)
    names = list(waits.values_list("name", flat=True)[:MOST])
    if not names:
        return []
    rows = db.rows(Event).filter(pending=True, ts__lte=clock.now(), name__in=names)
    return list(rows.defer("data", "user").order_by("ts")[:3])
