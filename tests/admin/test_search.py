"""The search box above all pages: what it finds, opens and asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote as urlquote

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.queries import search
from tests.admin.conftest import (
    Page,
    about,
    list_of,
    make_events,
    make_orders,
    make_runs,
    page_of,
)

pytestmark = pytest.mark.django_db

SEARCH = reverse("admin:durable_jobs_search")
Get = Callable[[str], Page]


@pytest.fixture
def opened(admin_client: Client) -> Callable[[str], str]:
    """Search; return the page that the only hit opens."""

    def find(term: str) -> str:
        response = admin_client.get(SEARCH, {"q": term})
        assert response.status_code == 302, response.content.decode()
        return str(response["Location"])

    return find


@pytest.fixture
def listed(admin_client: Client) -> Callable[[str], Page]:
    """Search; return the page that lists the hits."""

    def find(term: str) -> Page:
        response = admin_client.get(SEARCH, {"q": term})
        assert response.status_code == 200, response["Location"]
        return Page(response.content.decode())

    return find


def test_box_is_on_every_page_and_keeps_its_text(get: Get) -> None:
    for name in ("run_changelist", "overview", "functions", "search"):
        page = get(reverse(f"admin:durable_jobs_{name}"))
        (form,) = [attrs for _, attrs in page.tags if attrs.get("action") == SEARCH]
        assert form["role"] == "search"
    page = get(f"{SEARCH}?q=no+such+thing")
    assert "Nothing matches “no such thing”." in page.text
    assert {attrs.get("value") for _, attrs in page.tags} > {"no such thing"}


def test_one_hit_is_opened(opened: Callable[[str], str]) -> None:
    first, second = make_runs(2)
    keyed = make_runs(1, key="order 7")[0]
    event = make_events(1)[0]
    assert opened(str(first.pk)) == page_of(first)
    assert opened(f"  {str(second.pk).upper()} ") == page_of(second)
    assert opened(second.pk.hex) == page_of(second)
    assert opened("order 7") == page_of(keyed)
    assert opened(event.pk) == page_of(event)


def test_short_id_of_the_pages_finds_the_run(opened: Callable[[str], str]) -> None:
    run, _other = make_runs(2)
    assert opened(str(run.pk)[-8:]) == page_of(run)
    assert opened(str(run.pk)[-8:].upper()) == page_of(run)


def test_short_id_is_looked_for_among_the_newest_runs_only(
    monkeypatch: pytest.MonkeyPatch,
    opened: Callable[[str], str],
    listed: Callable[[str], Page],
) -> None:
    monkeypatch.setattr(search, "MAX_SEARCHED", 2)
    old, newer, newest = make_runs(3)
    assert opened(str(newest.pk)[-8:]) == page_of(newest)
    assert opened(str(newer.pk)[-8:]) == page_of(newer)
    assert "Nothing matches" in listed(str(old.pk)[-8:]).text


def test_several_hits_are_listed_by_what_they_match(
    listed: Callable[[str], Page],
) -> None:
    event = make_events(1)[0]
    runs = make_runs(2, event_id=event.pk)
    page = listed(event.pk)
    assert page.text.index("Event id") < page.text.index("Runs of the event")
    assert page.rows("event") == [page_of(event)]
    assert page.rows("run") == [page_of(runs[1]), page_of(runs[0])]


def test_many_hits_lead_to_the_whole_list(listed: Callable[[str], Page]) -> None:
    runs = make_runs(6, key="often")
    page = listed("often")
    assert page.rows("run") == [page_of(run) for run in reversed(runs[1:])]
    assert f"{list_of('run')}?key=often" in page.links()


def test_object_finds_the_runs_about_it(
    opened: Callable[[str], str], listed: Callable[[str], Page]
) -> None:
    first, second = make_orders(2)
    run = about(first, make_runs(1))[0]
    runs = about(second, make_runs(2))
    assert opened(f"shop.Order:{first.pk}") == page_of(run)
    assert page_of(runs[0]) in listed(f"shop.order:{second.pk}").rows("run")


def test_run_that_matches_twice_is_listed_once(
    opened: Callable[[str], str],
) -> None:
    order = make_orders(1)[0]
    run = about(order, make_runs(1, key=f"shop.order:{order.pk}"))[0]
    assert opened(f"shop.order:{order.pk}") == page_of(run)


def test_functions_are_found_by_parts_of_names_and_triggers(
    opened: Callable[[str], str], listed: Callable[[str], Page]
) -> None:
    with registry.temporary():
        made: dict[str, Any] = {
            "tests.zebra": durable.Event("stable/opened"),
            "tests.heron": durable.ModelChange("shop.Order", created=True),
            "tests.zebu": durable.Webhook("quagga", verify=lambda *given: True),
        }
        for name, trigger in made.items():
            durable.function(id=name, on=trigger)(lambda ctx: None)
        page_of_function = {
            name: reverse("admin:durable_jobs_function", args=[quote(name)])
            for name in made
        }
        assert opened("ZEBRA") == page_of_function["tests.zebra"]
        assert opened("stable/op") == page_of_function["tests.zebra"]
        assert opened("quagga") == page_of_function["tests.zebu"]
        assert opened("tests heron") == page_of_function["tests.heron"]
        found = listed("zeb").links("/functions/")
        assert [one for one in found if "zeb" in one] == [
            page_of_function["tests.zebra"],
            page_of_function["tests.zebu"],
        ]


def test_many_functions_lead_to_the_list_of_functions(
    listed: Callable[[str], Page],
) -> None:
    with registry.temporary():
        for number in range(6):
            durable.function(id=f"tests.gnu{number}")(lambda ctx: None)
        page = listed("gnu")
    assert page.links("gnu4/")
    assert not page.links("gnu5/")
    assert reverse("admin:durable_jobs_functions") + "?q=gnu" in page.links()


@pytest.mark.parametrize("term", ["", " ", "\x00", "x" * 300, "\ud800", "'\"><script>"])
def test_odd_terms_find_nothing(admin_client: Client, term: str) -> None:
    make_runs(1)
    assert search.search(term, events=True) == []
    raw = urlquote(term, errors="surrogatepass")
    response = admin_client.get(f"{SEARCH}?q={raw}")
    assert response.status_code == 200
    assert not Page(response.content.decode()).rows("run")


def test_events_are_found_only_by_users_who_may_see_events(
    operator: Callable[..., Client],
) -> None:
    event = make_events(1)[0]
    client = operator("view_run")
    assert client.get(SEARCH, {"q": event.pk}).status_code == 200
    run = make_runs(1, event_id=event.pk)[0]
    assert client.get(SEARCH, {"q": event.pk})["Location"] == page_of(run)


def test_search_needs_the_permission_to_see_runs(
    operator: Callable[..., Client],
) -> None:
    client = operator("view_event")
    assert client.get(SEARCH).status_code == 403
    assert SEARCH not in client.get(list_of("event")).content.decode()


@pytest.mark.parametrize("kind", ["id", "short", "event", "key", "subject", "words"])
def test_search_is_at_most_six_queries_of_few_rows(kind: str) -> None:
    order = make_orders(1)[0]
    event = make_events(1)[0]
    runs = about(order, make_runs(8, key="k", event_id=event.pk))
    term = {
        "id": str(runs[0].pk),
        "short": str(runs[0].pk)[-8:],
        "event": event.pk,
        "key": "k",
        "subject": f"shop.order:{order.pk}",
        "words": "no such words",
    }[kind]
    with CaptureQueriesContext(connection) as captured:
        found = search.search(term, events=True)
    assert len(captured) <= 6
    assert all("LIMIT" in one["sql"] for one in captured)
    assert all(len(hits.rows) <= search.MOST for hits in found)
    assert Run.objects.count() == 8
