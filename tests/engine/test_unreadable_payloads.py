"""An unreadable payload delays no other run, and its own run can be ended."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from durable_jobs import durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, FailedAttempt, Run
from durable_jobs.queries import run_rows
from durable_jobs.serialization.stored import StoredPayload
from durable_jobs.store import leases
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

pytestmark = pytest.mark.django_db(transaction=True)

Break = Callable[[], dict[str, Any]]


def unknown_class() -> dict[str, Any]:
    return {"$durable": "enum", "value": ["no.such.module:Kind", "A"]}


def missing_column() -> dict[str, Any]:
    table = Tenant._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME COLUMN name TO later")
    return {"$durable": "model", "value": [Tenant._meta.label_lower, 1, "default"]}


def alias_that_is_gone() -> dict[str, Any]:
    return {"$durable": "model", "value": [Tenant._meta.label_lower, 1, "gone"]}


@pytest.fixture(params=[unknown_class, missing_column, alias_that_is_gone])
def broken(request: pytest.FixtureRequest, db: None) -> Any:
    """Yield a stored value that cannot be decoded."""
    yield request.param()
    if request.param is missing_column:
        table = Tenant._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME COLUMN later TO name")


@pytest.fixture
def works(durable_kit: Kit) -> durable.Function:
    made: durable.Function = durable.function(id="works", retries=2)(
        lambda ctx: ctx.event.data
    )
    return made


def break_data(run: Run, broken: dict[str, Any]) -> None:
    Run.objects.filter(pk=run.pk).update(data=StoredPayload({"thing": broken}))


def test_unreadable_run_delays_no_other_run(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any]
) -> None:
    runs = [works.enqueue({"n": n}) for n in range(8)]
    break_data(runs[0], broken)
    durable_kit.run_until_idle()
    for run in runs:
        run.refresh_from_db()
    assert [run.status for run in runs] == ["queued"] + 7 * ["completed"]
    first, error = runs[0], FailedAttempt.objects.get()
    assert error.run_id == first.pk
    assert error.error["message"]
    assert first.due_at > durable_kit.now()


def test_run_continues_once_its_payload_is_readable(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any]
) -> None:
    run = works.enqueue({"n": 1})
    break_data(run, broken)
    durable_kit.run_until_idle()
    Run.objects.filter(pk=run.pk).update(data={"n": 1})
    durable_kit.advance("1m")
    assert Run.objects.get(pk=run.pk).result() == {"n": 1}


def test_pauses_grow_until_the_run_fails_with_the_reason(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any]
) -> None:
    run = works.enqueue({"n": 1})
    break_data(run, broken)
    pauses = []
    durable_kit.run_until_idle()
    while (row := Run.objects.get(pk=run.pk)).status == "queued":
        pauses.append((row.due_at - durable_kit.now()).total_seconds())
        durable_kit.travel_to(row.due_at)
        durable_kit.run_until_idle()
    assert row.status == "failed"
    assert row.error["message"]
    assert pauses == sorted(pauses)
    assert (len(pauses), pauses[0], pauses[-1]) == (10, 2, 600)


def test_run_that_cannot_be_read_leaves_its_slot_to_the_next(durable_kit: Kit) -> None:
    limited = durable.function(id="limited", concurrency=1)(lambda ctx: ctx.event.data)
    first, second = limited.enqueue({"n": 1}), limited.enqueue({"n": 2})
    break_data(first, unknown_class())
    durable_kit.run_until_idle()
    second.refresh_from_db()
    assert second.result() == {"n": 2}


def test_async_function_waits_as_well(durable_kit: Kit, broken: dict[str, Any]) -> None:
    @durable.function(id="awaits")
    async def awaits(ctx):
        return ctx.event.data

    run = awaits.enqueue({"n": 1})
    break_data(run, broken)
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).status == "queued"


def test_expired_lease_is_reclaimed_whatever_the_payload(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any]
) -> None:
    runs = [works.enqueue({"n": n}) for n in range(2)]
    break_data(runs[0], broken)
    assert len(leases.claim("default", 8, "dead")) == 2
    durable_kit.advance("1h", run=False)
    assert tick.tick()["leases"] == 2


def test_run_that_cannot_be_read_can_be_shown_cancelled_and_deleted(
    durable_kit: Kit, broken: dict[str, Any]
) -> None:
    handled = []
    handler = durable.function(id="handler")(lambda ctx: handled.append(ctx.event.data))
    works = durable.function(id="works", on_cancel=handler)(lambda ctx: None)
    run = works.using(run_after="1h").enqueue({"n": 1})
    break_data(run, broken)
    row = Run.objects.get(pk=run.pk)
    assert row.data == {"thing": broken}
    assert run_rows.described(row)["data"] == {"thing": broken}
    assert Run.objects.values_list("data", flat=True).get() == {"thing": broken}
    assert row.cancel() is True
    durable_kit.run_until_idle()
    assert handled[0]["event"]["data"] == {"thing": broken}
    Run.objects.filter(pk=run.pk).delete()


def test_admin_shows_and_cancels_a_run_that_cannot_be_read(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any], admin_client: Any
) -> None:
    run = works.using(run_after="1h").enqueue({"n": 1})
    event = durable_kit.send("a/b", {"n": 1})
    break_data(run, broken)
    Event.objects.update(data=StoredPayload({"thing": broken}))
    for page in ("run/", f"run/{run.pk}/change/", "event/", f"event/{event}/change/"):
        assert admin_client.get(f"/admin/durable_jobs/{page}").status_code == 200
    for path in ("runs", f"runs/{run.pk}"):
        assert admin_client.get(f"/durable/api/v1/{path}").status_code == 200


def test_unreadable_event_delays_no_other_event(
    durable_kit: Kit, broken: dict[str, Any]
) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        return ctx.step.wait_for_event("w", ctx.event.data["name"]).data

    first, second = (waits.enqueue({"name": name}) for name in ("a/one", "a/two"))
    durable_kit.run_until_idle()
    one = durable_kit.send("a/one", {"n": 1})
    durable_kit.send("a/two", {"n": 2})
    Event.objects.filter(pk=one).update(data=StoredPayload({"thing": broken}))
    durable_kit.run_until_idle()
    assert Run.objects.get(pk=second.pk).result() == {"n": 2}
    assert Event.objects.get(pk=one).pending
    Event.objects.filter(pk=one).update(data={"n": 1})
    durable_kit.advance("1m")
    assert Run.objects.get(pk=first.pk).result() == {"n": 1}


def test_event_that_was_put_off_ends_no_wait_that_began_later(
    durable_kit: Kit, broken: dict[str, Any]
) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        return ctx.step.wait_for_event("w", "a/come").data

    early = waits.enqueue()
    durable_kit.run_until_idle()
    event = durable_kit.send("a/come", {"n": 1})
    Event.objects.filter(pk=event).update(data=StoredPayload({"thing": broken}))
    durable_kit.run_until_idle()
    late = waits.enqueue()
    durable_kit.run_until_idle()
    Event.objects.filter(pk=event).update(data={"n": 1})
    durable_kit.advance("1m")
    assert Run.objects.get(pk=early.pk).status == "completed"
    assert Run.objects.get(pk=late.pk).status == "waiting"


def test_unreadable_earlier_event_is_skipped(
    durable_kit: Kit, broken: dict[str, Any]
) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        ctx.step.sleep("nap", "1m")
        return ctx.step.wait_for_event("w", "a/come", since="run").data

    run = waits.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("1s")
    event = durable_kit.send("a/come", {"n": 1})
    durable_kit.advance("1s")
    durable_kit.send("a/come", {"n": 2})
    Event.objects.filter(pk=event).update(data=StoredPayload({"thing": broken}))
    durable_kit.advance("1m")
    assert Run.objects.get(pk=run.pk).result() == {"n": 2}


def test_loading_of_rows_decodes_nothing(
    durable_kit: Kit, works: durable.Function, django_assert_num_queries: Any
) -> None:
    tenant = Tenant.objects.create(name="Ada")
    order = Order.objects.create(tenant=tenant, total=1)
    for _ in range(3):
        works.enqueue({"order": order})
    with django_assert_num_queries(1):
        rows = list(Run.objects.all())
    assert [row.data["order"] for row in rows] == 3 * [order]


def test_undecoded_field_is_saved_as_it_is_stored(
    durable_kit: Kit, works: durable.Function, broken: dict[str, Any]
) -> None:
    run = works.enqueue({"n": 1})
    break_data(run, broken)
    row = Run.objects.get(pk=run.pk)
    row.version = uuid.uuid4().hex
    row.save()
    assert run_rows.described(Run.objects.get(pk=run.pk))["data"] == {"thing": broken}
