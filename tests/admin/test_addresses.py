"""Addresses without a page respond with 404, and break nothing."""

from __future__ import annotations

import pytest

from tests.admin.conftest import MODELS, Page, list_of, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db

NOWHERE = [
    "nonsense",
    "0",
    "-1",
    "9" * 40,
    "00000000-0000-7000-8000-000000000000",
    "%00",
    "%ED%A0%80",
    "a" * 5000,
    "..%2F..%2Fetc",
    "_00",
    "'%22%3E%3Cscript%3E",
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("view", ["change", "history"])
def test_missing_row_is_not_found(admin_client, model, view):
    for key in NOWHERE:
        response = admin_client.get(f"{list_of(model)}{key}/{view}/")
        assert response.status_code == 404, key


def test_run_that_was_pruned_is_not_found(admin_client):
    run = make_runs(1)[0]
    address = page_of(run)
    assert admin_client.get(address).status_code == 200
    run.delete()
    assert admin_client.get(address).status_code == 404


def test_step_whose_run_was_pruned_is_not_found(admin_client):
    run = make_runs(1)[0]
    step = make_steps(run, 1)[0]
    type(run).objects.filter(pk=run.pk)._raw_delete("default")
    assert admin_client.get(page_of(step)).status_code == 404


@pytest.mark.parametrize(
    "query",
    [
        "status=nonsense",
        "status=%00",
        "period=nonsense",
        "function=%00",
        "event=%00",
        "parent=nonsense",
        "before=nonsense",
        "since=yesterday",
        "where=data",
        "where=data.a=1e400",
        "where=data.a=1&where=data.-1=1",
        "id=nonsense",
        "nonsense=1",
        "statu=failed",
    ],
)
def test_invalid_filter_of_runs_is_reported_at_its_field(admin_client, query):
    response = admin_client.get(f"{list_of('run')}?{query}")
    page = Page(response.content.decode())
    assert response.status_code == 400
    name = query.partition("=")[0]
    if "nonsense=1" in query or "statu=" in query:
        assert f"Unknown filter '{name}'" in page.text
    else:
        assert "Expected" in page.text
    wrong = [attrs for _, attrs in page.tags if attrs.get("aria-invalid")]
    if name in ("since", "where", "event", "parent", "id"):
        assert {attrs["name"] for attrs in wrong} == {name}
    assert list_of("run") in page.links()


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("step", "run=nonsense"),
        ("step", "run="),
        ("step", "queued=day&kind=nonsense"),
        ("event", "before=nonsense"),
        ("event", "before=2025-01-01"),
        ("event", "before=2025-01-01T00:00:00+00:00 %00"),
        ("event", "name=%00"),
    ],
)
def test_invalid_filter_redirects_to_the_unfiltered_list(admin_client, model, query):
    response = admin_client.get(f"{list_of(model)}?{query}")
    assert (response.status_code, response["Location"]) == (
        302,
        f"{list_of(model)}?e=1",
    )


@pytest.mark.parametrize("query", ["q=%00", "q=%20", "p=x", "all=", "e=2"])
@pytest.mark.parametrize("model", MODELS)
def test_unknown_parameters_are_ignored(admin_client, model, query):
    assert admin_client.get(f"{list_of(model)}?{query}").status_code in (200, 302)


@pytest.mark.parametrize(
    ("model", "query"),
    [
        ("run", "data__card__startswith=4"),
        ("run", "id__lt=0"),
        ("run", "error__traceback__contains=x"),
        ("run", "lease_token=x"),
        ("run", "event__data__x=1"),
        ("step", "output__contains=secret"),
        ("step", "run__data__card=4"),
        ("event", "data__password=x"),
        ("worker", "name=x"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_payloads_cannot_be_probed_by_filters(admin_client, model, query):
    assert admin_client.get(f"{list_of(model)}?{query}").status_code == 400
