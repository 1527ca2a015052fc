"""Events: inserted in the sender's transaction, and routed to waits after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Min, Q, QuerySet
from django.db.models.functions import Greatest

from durable_jobs import clock
from durable_jobs.models import Event
from durable_jobs.store import bulk_insert, db


def insert(events: Sequence[Event]) -> None:
    """Insert new events in one statement."""
    bulk_insert.insert(Event, events)


def insert_missing(events: Sequence[Event], since: datetime) -> dict[str, str]:
    """Insert events whose ids the sender has chosen.

    An event with the same id that was received after ``since`` is kept. An older one is
    replaced and routed again. Return the names of the kept events by id.
    """
    stored = db.rows(Event)
    stored.bulk_create(events, ignore_conflicts=True)
    every = [event.pk for event in events]
    known = stored.filter(pk__in=every).values_list("pk", "name", "received_at")
    found = list(known)
    replaced = {pk for pk, _, received_at in found if received_at <= since}
    for event in events:
        if event.pk not in replaced:
            continue
        stored.filter(pk=event.pk, received_at__lte=since).update(
            name=event.name,
            data=event.data,
            user=event.user,
            v=event.v,
            ts=event.ts,
            received_at=event.received_at,
            source=event.source,
            pending=True,
            routing=None,
            route_after=None,
            depth=event.depth,
        )
    return {pk: name for pk, name, _ in found if pk not in replaced}


def unrouted(now: datetime) -> QuerySet[Event]:
    """Return the due events that are not routed yet.

    An event whose routing failed is excluded until its next try.
    """
    rows = db.rows(Event).filter(pending=True, ts__lte=now)
    return rows.filter(Q(route_after__isnull=True) | Q(route_after__lte=now))


def pending(limit: int, excluding: Iterable[str] = ()) -> list[Event]:
    """Lock up to ``limit`` unrouted events in the caller's transaction, earliest first.

    Skip events that another router has locked, and events with a name in ``excluding``.
    """
    rows = unrouted(clock.now()).order_by("ts", "pk")
    if excluding:
        rows = rows.exclude(name__in=list(excluding))
    if db.lockable():
        rows = rows.select_for_update(skip_locked=True)
    return list(rows[:limit])


def earliest_unrouted() -> datetime | None:
    """Return the time of the earliest event that the router has not tried yet.

    An event whose routing failed does not count.
    """
    rows = db.rows(Event).filter(
        pending=True, ts__lte=clock.now(), route_after__isnull=True
    )
    happened = rows.order_by().annotate(at=Greatest("ts", "received_at"))
    earliest: datetime | None = happened.aggregate(first=Min("at"))["first"]
    return earliest


def happened_at(event: Event) -> datetime:
    """Return the time from which an event counts: sent or received, the later one."""
    return max(event.ts, event.received_at)


def save_routing(event_id: str, routing: dict[str, Any]) -> None:
    """Record the progress of the router in an event."""
    rows = db.rows(Event).filter(pk=event_id)
    rows.update(routing=routing)


def postpone(event: Event, until: datetime, routing: dict[str, Any]) -> None:
    """Delay the routing of an event to the remaining waits."""
    rows = db.rows(Event).filter(pk=event.pk, pending=True)
    rows.update(route_after=until, routing=routing)


def mark_routed(event_ids: Iterable[str]) -> None:
    """Record that events were routed."""
    rows = db.rows(Event).filter(pk__in=list(event_ids))
    rows.update(pending=False)


def received(
    name: str, since: datetime, exclude: Iterable[str], page: int = 1000
) -> Iterator[Event]:
    """Yield the events of a name received since a time, earliest first."""
    rows = (
        db.rows(Event)
        .filter(name=name, received_at__gte=since, ts__lte=clock.now())
        .exclude(pk__in=list(exclude))
        .order_by("received_at", "pk")
    )
    left = rows
    while chosen := list(left[:page]):
        yield from chosen
        last = chosen[-1]
        left = rows.filter(
            Q(received_at__gt=last.received_at)
            | Q(received_at=last.received_at, pk__gt=last.pk)
        )
