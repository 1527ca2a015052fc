"""Bulk inserts write the same rows as Django's own inserts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, transaction

from durable_jobs import clock, ids
from durable_jobs.models import AdmissionState, BufferedEvent, Event, Run
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import RunStatus
from durable_jobs.store import bulk_insert
from tests.costs.conftest import Watch

pytestmark = pytest.mark.usefixtures("silence")

ODD = 'tab\t, line\n, "quotes", \\ and \\N, \N{SNOWMAN}'


def run(**values: Any) -> Run:
    now = clock.now()
    return Run(function="f", due_at=now, run_order=now, queued_at=now, **values)


def runs() -> list[Run]:
    return [
        run(),
        run(
            status=RunStatus.SKIPPED,
            reason=ODD,
            ended_at=clock.now() + timedelta(microseconds=1),
            event_id="e",
            event_meta={"name": ODD, "of": [1, 2.5, None]},
            data=EncodedJSON('{"a": "\\u2603", "b": [null, "\\\\N"]}'),
            parent_id=ids.new_id(),
            backlog=AdmissionState.NEW,
            flow={"k": ODD},
            wake_requested=True,
        ),
        run(data={ODD: clock.now()}, error={"type": "E"}, attempt=3, backlog=7),
        # A field still accepts the other types that Django accepts.
        run(parent_id=str(ids.new_id()), key="k"),
    ]


def stored(rows: list[Run]) -> list[tuple[Any, ...]]:
    found = Run.objects.in_bulk([row.pk for row in rows])
    names = [field.attname for field in Run._meta.concrete_fields if field.name != "id"]
    return [tuple(getattr(found[row.pk], name) for name in names) for row in rows]


@pytest.mark.parametrize("count", [1, 4])
def test_rows_equal_those_that_django_writes(count: int, watch: Watch):
    ours, djangos = runs()[-count:], []
    for row in ours:
        twin = Run(**{f.attname: getattr(row, f.attname) for f in Run._meta.fields})
        twin.pk = ids.new_id()
        djangos.append(twin)
    bulk_insert.insert(Run, ours)
    with watch() as texts:  # wrappers of statements see all of Django's
        bulk_insert.insert(Run, djangos)
    assert texts
    assert stored(ours) == stored(djangos)
    assert not any(row._state.adding for row in [*ours, *djangos])


def test_keys_from_the_database_are_left_to_it():
    now = clock.now()
    for count in (1, 3):
        rows = [
            BufferedEvent(
                function="f", event_id=f"{n}", event_meta={}, ts=now, due_at=now
            )
            for n in range(count)
        ]
        bulk_insert.insert(BufferedEvent, rows)
    found = BufferedEvent.objects.order_by("id").values_list("event_id", flat=True)
    assert list(found) == ["0", "0", "1", "2"]


def event(name: str = "n", id: str | None = None) -> Event:
    now = clock.now()
    return Event(id=id or str(ids.new_id()), name=name, ts=now, received_at=now)


@pytest.mark.parametrize("more", [0, 2])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: event("n" * 256), DataError),
        (lambda: event(id="twice"), IntegrityError),
    ],
)
def test_refused_rows_are_refused_and_nothing_is_written(
    make: Callable[[], Event], error: type[Exception], more: int
):
    if error is DataError and connection.vendor == "sqlite":
        pytest.skip("SQLite checks no lengths")
    bulk_insert.insert(Event, [event(id="twice")])
    rows = [event() for _ in range(more)] + [make()]
    with pytest.raises(error):
        bulk_insert.insert(Event, rows)
    assert Event.objects.count() == 1


@pytest.mark.parametrize("count", [1, 2])
def test_refusal_breaks_the_callers_transaction(count: int):
    rows = [event(id="same"), event()][:count]
    bulk_insert.insert(Event, rows)
    with transaction.atomic():
        with pytest.raises(IntegrityError):
            bulk_insert.insert(Event, rows)
        assert transaction.get_rollback()
        transaction.set_rollback(True)
    assert Event.objects.count() == count
