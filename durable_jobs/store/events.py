"""Events: written in the sender's transaction, offered to waits after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from django.db.models import Q

from durable_jobs import clock
from durable_jobs.models import Event
from durable_jobs.store import db, inserting


def insert(events: Sequence[Event]) -> None:
    """Write new events, in one statement."""
    inserting.insert(Event, events)


def insert_missing(events: Sequence[Event], since: datetime) -> dict[str, str]:
    """Write events with ids of the sender's choosing.

    One that was received before, after ``since``, stays as it is; an older one is
    replaced, and offered to the waits again. Return the names of those that stay, by
    id.
    """
    stored = Event.objects.using(db.alias())
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
        )
    return {pk: name for pk, name, _ in found if pk not in replaced}


def pending(limit: int) -> list[Event]:
    """Lock events that were not offered to the waits yet, and whose time has come.

    Inside the caller's transaction; those that another router holds are passed over.
    """
    rows = (
        Event.objects.using(db.alias())
        .filter(pending=True, ts__lte=clock.now())
        .order_by("ts", "pk")
    )
    if db.lockable():
        rows = rows.select_for_update(skip_locked=True)
    return list(rows[:limit])


def offered(event_ids: Iterable[str]) -> None:
    """Note that events were offered to the waits."""
    rows = Event.objects.using(db.alias()).filter(pk__in=list(event_ids))
    rows.update(pending=False)


def received(
    name: str, since: datetime, exclude: Iterable[str], page: int = 1000
) -> Iterator[Event]:
    """Give the events of a name that came since a moment, the earliest first."""
    rows = (
        Event.objects.using(db.alias())
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
