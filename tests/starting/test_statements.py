"""The cost of starting: one statement to enqueue, two to send, whatever the number."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


def statements(count: int, *, ids: bool = False, listeners: int = 1) -> int:
    """Send ``count`` events at once and return how many statements it took."""
    for number in range(listeners):
        durable.function(id=f"look-{count}-{number}", on=durable.Event(f"a/{count}"))(
            lambda ctx: None
        )
    events = [
        durable.NewEvent(f"a/{count}", {"n": n}, id=f"{count}-{n}" if ids else None)
        for n in range(count)
    ]
    with CaptureQueriesContext(connection) as captured:
        durable.send_many(events)
    assert Run.objects.filter(event__name=f"a/{count}").count() == count * listeners
    return len(captured)


def test_enqueue_is_one_insert(
    durable_kit: Kit, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    with transaction.atomic(), django_assert_num_queries(1) as captured:
        look.enqueue({"order_id": 7})
    assert captured[0]["sql"].startswith("INSERT")


def test_delayed_enqueue_is_one_insert(
    durable_kit: Kit, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    with transaction.atomic(), django_assert_num_queries(1):
        look.using(run_after="1h", priority=5).enqueue({"order_id": 7})


def test_send_is_one_insert_for_the_event_and_one_for_the_runs(
    durable_kit: Kit, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(5):
        trigger = durable.Event("a/b", if_="event.data.n > 0")
        durable.function(id=f"look-{number}", on=trigger)(lambda ctx: None)
    with transaction.atomic(), django_assert_num_queries(1):
        durable.send("nobody/listens", {"n": 1})
    with transaction.atomic(), django_assert_num_queries(1):
        durable.send("a/b", {"n": 0})
    with transaction.atomic(), django_assert_num_queries(2) as captured:
        durable.send("a/b", {"n": 1})
    assert all(one["sql"].startswith("INSERT") for one in captured)
    assert Run.objects.count() == 5


@pytest.mark.django_db(transaction=True)
def test_send_takes_no_savepoint_inside_the_callers_transaction(
    durable_kit: Kit,
) -> None:
    durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: None)
    look = durable.function(id="other")(lambda ctx: None)
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        durable.send("a/b", {"n": 1})
        durable.send("a/b", {"n": 1}, id="order-7")
        look.enqueue()
        look.using(key="order-7").enqueue()
    assert not [one for one in captured if "SAVEPOINT" in one["sql"]]


@pytest.mark.parametrize("ids", [False, True], ids=["plain", "with ids"])
def test_send_many_costs_the_same_for_one_and_for_five_hundred(
    durable_kit: Kit, ids: bool
) -> None:
    one, many = statements(1, ids=ids), statements(500, ids=ids)
    if connection.vendor == "postgresql":
        assert many == one
        assert one <= (5 if ids else 2)
    else:
        # SQLite limits the values of a statement: a few more statements, not 500.
        assert many < 500 / 10
    assert Event.objects.count() == 501


def test_number_of_functions_does_not_matter(durable_kit: Kit) -> None:
    assert statements(2, listeners=1) == statements(3, listeners=8) == 2


def test_repeated_ids_cost_no_more(durable_kit: Kit) -> None:
    first = statements(50, ids=True)
    again = [durable.NewEvent("a/50", {"n": n}, id=f"50-{n}") for n in range(50)]
    with CaptureQueriesContext(connection) as captured:
        durable.send_many(again)
    assert len(captured) <= first
    assert Run.objects.count() == 50
