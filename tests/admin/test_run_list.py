"""The list of runs: filters in the address, shown, changed and removed."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from durable_jobs import clock, ids
from durable_jobs.models import Run, Subject
from durable_jobs.queries import run_filter
from tests.admin.conftest import Page, list_of, make_runs, page_of
from tests.admin.test_lists import queries

pytestmark = pytest.mark.django_db


def found(page):
    return set(page.rows("run"))


def test_every_condition_narrows_the_list(get):
    event, parent = str(ids.new_id()), ids.new_id()
    run = make_runs(
        1,
        trigger="tests/other",
        version="2",
        queue="slow",
        worker="w 1",
        key="k 1",
        event_id=event,
        parent_id=parent,
        data={"order": {"id": 7}},
    )[0]
    Subject.objects.create(run=run, model="shop.order", object_pk="7")
    make_runs(2, queued_at=clock.now() - timedelta(days=3))
    hour = (clock.now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M")
    for query in (
        "trigger=tests/other",
        "version=2",
        "queue=slow",
        "worker=w+1",
        "key=k+1",
        f"event={event}",
        f"parent={parent}",
        f"id={run.pk}",
        f"id={run.pk}&id={uuid.uuid4()}",
        "subject=shop.order:7",
        "where=data.order.id%3D7",
        f"since={hour}Z",
        f"since={hour}Z&time=started",
        f"since={hour}Z&time=ended",
        "period=day",
        "q=k+1",
        "status=completed&status=failed&key=k+1",
    ):
        page = get(f"{list_of('run')}?{query}")
        assert found(page) == {page_of(run)}, query
        assert page.classes("durable-chips"), query


def test_conditions_can_be_removed_one_by_one(get):
    address = "?status=failed&status=cancelled&queue=a&where=data.a=1&where=data.b=2"
    page = get(list_of("run") + address)
    chips = [href for href in page.links("?") if "queue=a" in href]
    assert "?queue=a&status=cancelled&where=data.a%3D1&where=data.b%3D2" in chips
    assert "?queue=a&status=failed&status=cancelled&where=data.b%3D2" in chips
    assert "status Failed" in page.text
    assert "data, output or error data.b=2" in page.text


def test_form_shows_the_active_filter_and_keeps_the_rest(get):
    page = get(f"{list_of('run')}?status=failed&q=k&queue=slow&since=2026-01-02T10:30")
    inputs = {
        (attrs["name"], attrs.get("value"))
        for tag, attrs in page.tags
        if tag == "input" and attrs.get("name")
    }
    assert ("queue", "slow") in inputs
    assert ("since", "2026-01-02T10:30") in inputs
    assert ("status", "failed") in inputs
    assert ("q", "k") in inputs
    details = [attrs for tag, attrs in page.tags if tag == "details"]
    assert any("open" in one and one.get("class") == "durable-more" for one in details)
    plain = get(list_of("run"))
    details = [attrs for tag, attrs in plain.tags if tag == "details"]
    assert not any("open" in one and one.get("class") for one in details)


def test_every_field_of_the_form_has_a_label(get):
    page = get(f"{list_of('run')}?where=data.a=1")
    labels = {attrs.get("for") for tag, attrs in page.tags if tag == "label"}
    fields = [
        attrs
        for tag, attrs in page.tags
        if tag in ("input", "select") and (attrs.get("id") or "").startswith("durable-")
    ]
    assert len(fields) > 12
    assert {one["id"] for one in fields} <= labels
    assert len({one["id"] for one in fields}) == len(fields)


def test_fields_that_were_left_empty_are_not_in_the_address(admin_client):
    sent = "?subject=&key=k&where=&where=data.a%3D1&since=&status=failed"
    response = admin_client.get(list_of("run") + sent)
    assert response.status_code == 302
    wanted = "?key=k&where=data.a%3D1&status=failed"
    assert response["Location"] == list_of("run") + wanted
    response = admin_client.get(f"{list_of('run')}?subject=&key=", follow=True)
    assert response.redirect_chain == [(".", 302)]


def test_invalid_filter_keeps_the_input_at_its_field(admin_client):
    make_runs(1)
    address = f"{list_of('run')}?since=yesterday&queue=slow"
    response = admin_client.get(address)
    page = Page(response.content.decode())
    assert response.status_code == 400
    values = {a.get("name"): a.get("value") for t, a in page.tags if t == "input"}
    assert (values["since"], values["queue"]) == ("yesterday", "slow")
    assert "Expected a date and time as 'since'" in page.text
    assert not page.rows("run")


def test_markup_in_a_condition_is_shown_as_text(admin_client):
    for query in ("queue=<script>x</script>", "<script>x</script>=1", "since=<b>"):
        text = admin_client.get(f"{list_of('run')}?{query}").content.decode()
        assert "<script>x" not in text
        assert "<b>" not in text


def test_payload_filters_need_the_permission(operator):
    run = make_runs(1, data={"card": 4})[0]
    client = operator("view_run", username="blind")
    assert "data.order.id" not in client.get(list_of("run")).content.decode()
    for address in ("?where=data.card=4", "?where=data.card=5"):
        response = client.get(list_of("run") + address)
        assert response.status_code == 400
        assert "you may not see them" in response.content.decode()
    seeing = operator("view_run", "view_payload", username="seeing")
    page = Page(seeing.get(f"{list_of('run')}?where=data.card=4").content.decode())
    assert found(page) == {page_of(run)}


def test_filter_without_an_index_shows_the_number_of_searched_runs(get, monkeypatch):
    monkeypatch.setattr(run_filter, "MAX_SEARCHED", 3)
    runs = make_runs(8, version="2")
    seen: list[str] = []
    query: str | None = "?version=2"
    pages = 0
    while query:
        page = get(list_of("run") + query)
        seen += page.rows("run")
        assert "Not indexed: version" in page.text
        further = [one for one in page.links("before=") if one[0] == "?"]
        query = further[0] if further else None
        pages += 1
    assert seen == [page_of(run) for run in reversed(runs)]
    assert pages == 3
    assert "Not indexed" not in get(f"{list_of('run')}?status=failed").text


def test_older_pages_lead_back_to_the_newest(get):
    runs = make_runs(3, queue="slow")
    page = get(f"{list_of('run')}?queue=slow&before={runs[1].pk}")
    assert found(page) == {page_of(runs[0])}
    back = [a["href"] for _, a in page.tags if a.get("class") == "durable-newest"]
    assert back == ["?queue=slow"]
    assert not get(f"{list_of('run')}?queue=slow").classes("durable-newest")


@pytest.mark.parametrize(
    "query",
    [
        "?status=failed&period=week",
        "?queue=slow&where=data.a=1&where=data.b=2",
        "?subject=shop.order:7&time=ended&since=2026-01-01",
        "?q=some+key&status=queued&status=running",
    ],
)
def test_conditions_ask_as_often_for_many_rows_as_for_few(admin_client, query):
    few = queries(admin_client, list_of("run") + query)
    make_runs(120, queue="slow", data={"a": 1, "b": 2}, status="failed", key="some key")
    many = queries(admin_client, list_of("run") + query)
    assert len(many) == len(few) <= 8
    for sql in many:
        columns = sql.partition(" FROM ")[0]
        assert '"data"' not in columns
        assert '"output"' not in columns


def test_parameters_of_the_admin_are_no_filters(get):
    make_runs(1)
    for query in ("?o=1", "?p=0", "?e=1", "?all=", "?_facets=True", "?_changelist=x"):
        assert len(get(list_of("run") + query).rows("run")) == 1, query


def test_form_of_more_filters_keeps_the_other_conditions(get):
    page = get(f"{list_of('run')}?q=k+1&status=failed&status=queued&queue=slow")
    form = page.source.partition("More filters")[2].partition("</form>")[0]
    for text in ("k 1", "failed", "queued", "slow"):
        assert f'value="{text}"' in form
    assert "(Show all)" in page.text
    assert Run.objects.count() == 0
