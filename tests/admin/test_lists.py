"""Lists of large tables: bounded in queries, rows and bytes."""

from __future__ import annotations

import re
import uuid
from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import clock, durable
from durable_jobs.admin.paging import MOST
from durable_jobs.models import Run, Schedule, Worker
from tests.admin.conftest import (
    MODELS,
    list_of,
    make_events,
    make_runs,
    make_steps,
    page_of,
)

pytestmark = pytest.mark.django_db


def queries(client, address):
    with CaptureQueriesContext(
        connection,
    ) as captured:
        assert client.get(address).status_code == 200
    return [query["sql"] for query in captured]


def make_all(count):
    now = clock.now()
    runs = make_runs(count)
    for run in runs[:count]:
        make_steps(run, 2)
    make_events(count)
    Schedule.objects.bulk_create(
        Schedule(
            function=f"f{n}",
            cron=f"{n % 60} * * * *",
            tz=f"{count}",
            next_occurrence=now,
            due_at=now,
        )
        for n in range(count)
    )
    Worker.objects.bulk_create(
        Worker(name=f"{count} {n}", kind="worker", seen_at=now, started_at=now)
        for n in range(count)
    )


@pytest.mark.parametrize("model", MODELS)
def test_list_asks_as_often_for_many_rows_as_for_few(viewer, model):
    client = viewer(*MODELS)
    make_all(2)
    few = queries(client, list_of(model))
    make_all(45)
    assert len(queries(client, list_of(model))) == len(few)
    # The session, the viewer and their permissions; the count, and the rows.
    assert len(few) == (7 if model == "run" else 6)  # and the saved views


@pytest.mark.parametrize("model", MODELS)
def test_list_counts_no_further_than_it_shows(admin_client, model):
    counts = [sql for sql in queries(admin_client, list_of(model)) if "COUNT(" in sql]
    assert len(counts) == 1
    assert f"LIMIT {MOST + 1}" in counts[0]


def test_facets_which_count_everything_cannot_be_asked_for(admin_client):
    asked = queries(admin_client, list_of("run") + "?_facets=True")
    assert sum("COUNT(" in sql for sql in asked) == 1


@pytest.mark.parametrize("model", ["run", "step", "event"])
def test_list_loads_no_payload(admin_client, model):
    run = make_runs(1)[0]
    make_steps(run, 1)
    make_events(1)
    for sql in queries(admin_client, list_of(model)):
        columns = sql.partition(" FROM ")[0]
        assert not re.search(r'"(data|output|error|origin|detail|user)"', columns)


@pytest.mark.parametrize("order", ["?o=2", "?o=-1.2", "?o=5", "?o=x"])
@pytest.mark.parametrize("model", ["run", "step", "event"])
def test_list_cannot_be_sorted_without_an_index(admin_client, model, order):
    plain = queries(admin_client, list_of(model))
    assert queries(admin_client, list_of(model) + order)[-1] == plain[-1]


@pytest.mark.parametrize("model", ["run", "step", "event"])
@pytest.mark.parametrize("term", ["order-7", "01a20329-4ed7-7421-ac0e-788b9d56747c"])
def test_search_is_by_equality(admin_client, model, term):
    for sql in queries(admin_client, f"{list_of(model)}?q={term}"):
        assert "LIKE" not in sql.upper()
        assert "UPPER(" not in sql


def test_filter_asks_the_registry_and_not_the_table(admin_client, durable_kit):
    @durable.function(id="tests.known", on=durable.Event("tests/known"))
    def known(ctx):
        return None

    for model, name in (("run", "tests.known"), ("event", "tests/known")):
        response = admin_client.get(list_of(model))
        assert name in response.content.decode()
        assert all(
            "DISTINCT" not in sql for sql in queries(admin_client, list_of(model))
        )


def test_runs_are_listed_with_the_main_fields(get):
    run = make_runs(1)[0]
    page = get(list_of("run"))
    assert page_of(run) in page.links()
    for text in (str(run.pk)[-8:], "tests.made", "Completed", "tests/event", "1 s"):
        assert text in page.text
    assert "1 run" in page.text
    assert "1 runs" not in page.text


def walk(get, model, query=""):
    """Follow the pages, then the older ones, to the end; return the rows' pages."""
    seen = []
    while query is not None:
        address = f"{list_of(model)}{query or '?'}"
        links = get(address).links()
        pages = [int(n) for link in links for n in re.findall(r"[?&]p=(\d+)", link)]
        for number in range(1, max(pages, default=1) + 1):
            page = get(f"{address}&p={number}")
            seen += page.rows(model)
        older = [a["href"] for _, a in page.tags if a.get("class") == "durable-older"]
        query = older[0] if older else None
    return seen


def test_pagination_continues_beyond_the_count(get):
    runs = make_runs(MOST + 120)
    first = get(list_of("run"))
    assert f"{MOST}+ runs" in first.text
    assert walk(get, "run") == [page_of(run) for run in reversed(runs)]


def test_events_of_one_moment_are_paginated_beyond_the_count(get):
    events = make_events(MOST + 120)
    seen = walk(get, "event")
    assert sorted(seen) == sorted(page_of(event) for event in events)


def test_steps_of_one_run_are_listed_in_its_order(get):
    run, other = make_runs(2)
    make_steps(other, 3)
    steps = make_steps(run, 70)
    seen = walk(get, "step", f"?run={run.pk}")
    assert seen == [page_of(step) for step in steps]


def test_runs_are_filtered(get):
    old = make_runs(1, queued_at=clock.now() - timedelta(hours=30))[0]
    failed = make_runs(1, status="failed", function="tests.other")[0]
    made = make_runs(1)[0]
    child = make_runs(1, parent_id=made.pk, event_id="e 1", key="k 1")[0]
    busy = make_runs(
        1, status="running", ended_at=None, lease_token=uuid.uuid4(), output=None
    )[0]
    everything = {old, failed, made, child, busy}
    expected = {
        "": everything,
        "?status=failed": {failed},
        "?status=running": {busy},
        "?function=tests.other": {failed},
        "?period=hour": everything - {old},
        "?period=week": everything,
        f"?parent={made.pk}": {child},
        "?event=e+1": {child},
        "?q=e+1": {child},
        "?q=k+1": {child},
        "?q=k": set(),
        f"?q={made.pk}": {made},
        f"?q={made.pk}&status=failed": set(),
        f"?before={failed.pk}": {old},
    }
    for query, found in expected.items():
        rows = get(list_of("run") + query).rows("run")
        assert set(rows) == {page_of(run) for run in found}, query


def test_steps_and_events_are_filtered(get):
    run = make_runs(1)[0]
    make_steps(run, 2)
    make_runs(1)
    make_events(1, name="tests/other", source="step")
    make_events(2)
    expected = {
        ("step", f"?run={run.pk}&kind=run"): 2,
        ("step", f"?run={run.pk}&kind=sleep"): 0,
        ("step", "?queued=hour&status=completed"): 2,
        ("step", "?queued=hour&status=failed"): 0,
        ("step", "?queued=hour"): 2,
        ("step", f"?q={run.pk}"): 2,
        ("step", "?q=step+0"): 0,
        ("event", "?name=tests/other"): 1,
        ("event", "?received=hour&source=send"): 2,
        ("event", "?received=hour"): 3,
        ("event", "?q=tests/event"): 2,
        ("event", "?q=tests"): 0,
    }
    for (model, query), count in expected.items():
        rows = get(list_of(model) + query).rows(model)
        assert len(rows) == count, (model, query)


@pytest.mark.parametrize(
    ("model", "query", "beside"),
    [("step", "status=failed", "queued=day"), ("event", "source=cron", "received=day")],
)
def test_filter_without_an_index_needs_an_indexed_one(get, model, query, beside):
    make_steps(make_runs(1)[0], 1)
    make_events(1)
    name = query.partition("=")[0]
    page = get(f"{list_of(model)}?{query}")
    assert f"By {name}" not in page.text
    assert len(page.rows(model)) == 1
    page = get(f"{list_of(model)}?{beside}&{query}")
    assert f"By {name}" in page.text
    assert page.rows(model) == []


@pytest.mark.skipif(connection.vendor != "postgresql", reason="reads its plans")
def test_search_and_important_statuses_use_indexes(rf):
    make_runs(1)
    runs = admin.site.get_model_admin(Run)
    rows = runs.get_queryset(rf.get("/"))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    for term in ("a key", str(uuid.uuid4())):
        found, _ = runs.get_search_results(rf.get("/"), rows, term)
        assert "Seq Scan" not in found.explain()
    plan = rows.filter(status="failed", id__gt=uuid.UUID(int=1)).explain()
    assert "Seq Scan" not in plan


def test_filter_from_a_link_is_shown_and_can_be_left(get):
    run = make_runs(1)[0]
    page = get(f"{list_of('run')}?parent={run.pk}&status=failed")
    assert f"parent {str(run.pk)[-8:]}" in page.text
    assert "?status=failed" in page.links()
    assert f"?parent={run.pk}" in page.links()
    assert str(run.pk)[-8:] in page.text
    assert not get(list_of("run")).classes("durable-chips")


def test_function_that_the_code_no_longer_has_can_be_filtered_by(get):
    run = make_runs(1, function="tests.removed")[0]
    page = get(f"{list_of('run')}?function=tests.removed")
    assert page.rows("run") == [page_of(run)]


@pytest.fixture
def many_names(durable_kit):
    """Declare more functions than a filter shows as links."""
    for number in range(13):
        name = f"tests.many_{number}"
        durable.function(id=name, on=durable.Event(name))(lambda ctx: None)


@pytest.mark.parametrize(
    ("model", "parameter"),
    [("run", "function"), ("schedule", "function"), ("event", "name")],
)
def test_filter_of_many_names_is_an_input_with_suggestions(
    get, many_names, model, parameter
):
    page = get(f"{list_of(model)}?{parameter}=tests.many_1")
    options = [attrs["value"] for tag, attrs in page.tags if tag == "option"]
    assert {"tests.many_1", "tests.many_12"} <= {*options}
    inputs = {a.get("name"): a.get("value") for tag, a in page.tags if tag == "input"}
    assert inputs[parameter] == "tests.many_1"
    assert "?" in page.links()  # leaves the filter
    assert f"?{parameter}=tests.many_2" not in page.links()


def test_filter_input_keeps_the_other_filters_and_starts_with_the_newest(
    get, many_names
):
    wanted, other = make_runs(1, function="tests.many_1") + make_runs(1)
    page = get(f"{list_of('run')}?function=tests.many_1&status=completed")
    assert page.rows("run") == [page_of(wanted)]
    page = get(f"{list_of('run')}?status=completed&before={other.pk}")
    names = [
        attrs.get("name") for _, attrs in page.tags if attrs.get("type") == "hidden"
    ]
    assert "status" in names
    assert "before" not in names


def test_cleared_name_filters_nothing(admin_client, durable_kit):
    run = make_runs(1)[0]
    Schedule.objects.create(
        function="f", cron="@daily", tz="UTC", next_occurrence=clock.now(),
        due_at=clock.now(),
    )  # fmt: skip
    response = admin_client.get(f"{list_of('schedule')}?function=")
    assert "1 schedule" in response.content.decode()
    response = admin_client.get(f"{list_of('run')}?function=", follow=True)
    assert response.redirect_chain
    assert page_of(run) in response.content.decode()


def test_delayed_run_shows_its_start(get):
    later = clock.now() + timedelta(hours=3, minutes=1)
    make_runs(
        1, status="queued", due_at=later, started_at=None, ended_at=None, output=None
    )
    assert "in 3 h 0" in get(list_of("run")).text


def test_schedules_lead_to_the_runs_of_their_function(get):
    Schedule.objects.create(
        function="tests.nightly",
        cron="0 3 * * *",
        tz="Europe/Paris",
        next_occurrence=clock.now() + timedelta(hours=2, seconds=30),
        due_at=clock.now() + timedelta(hours=2, seconds=30),
    )
    page = get(list_of("schedule"))
    assert "0 3 * * * Europe/Paris" in page.text
    assert "in 2 h 00 m" in page.text
    assert f"{list_of('run')}?function=tests.nightly" in page.links()


def test_workers_show_their_last_heartbeat(get):
    Worker.objects.create(
        name="w 1",
        kind="worker",
        seen_at=clock.now() - timedelta(seconds=90),
        started_at=clock.now(),
    )
    assert "1 m 30 s ago" in get(list_of("worker")).text


def test_rows_are_read_from_the_database_of_the_runs(rf, settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES, "runs", settings.DATABASES["default"])
    settings.DURABLE_JOBS = {"DATABASE": "runs"}
    assert admin.site.get_model_admin(Run).get_queryset(rf.get("/")).db == "runs"
