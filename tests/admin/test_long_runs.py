"""The page of a long run: filters, folded steps, and lists by page."""

from __future__ import annotations

import pytest

from durable_jobs import durable, ids
from durable_jobs.admin.runs.timeline_chart import Axis
from durable_jobs.admin.runs.timeline_view import TimelineView
from durable_jobs.models import Run, Step
from durable_jobs.testing import Kit
from tests.admin.conftest import Page, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def long(db: None) -> Run:
    """Give a failed run of 900 steps, of which one failed."""
    run = make_runs(1, status="failed", error={"type": "KeyError"})[0]
    make_steps(run, 900)
    failed = Step.objects.filter(run=run, name="step 850")
    failed.update(status="failed", error={"type": "KeyError", "message": "GBP"})
    return run


def keys(page: Page) -> list[str]:
    """Return the keys of the steps that a page draws."""
    found = [attrs.get("id") or "" for tag, attrs in page.tags if tag == "tr"]
    return [one[5:] for one in found if one.startswith("step-")]


def shown(page: Page) -> list[str]:
    """Return the names of the steps that a page draws."""
    names = {ids.step_key(f"step {number}"): f"step {number}" for number in range(900)}
    return [names[key] for key in keys(page)]


def test_a_failed_step_of_a_long_run_is_on_its_page(long: Run, get) -> None:
    page = get(page_of(long))
    assert "step 850" in shown(page)
    assert "KeyError: GBP" in page.text
    assert "step 10 … step 849: 840 steps, median 10 ms Show" in page.text
    assert "step 851 … step 889: 39 steps" in page.text


def test_show_lists_the_folded_steps_by_page(long: Run, get) -> None:
    (first, second) = get(page_of(long)).links("inside=all")
    assert first == "?inside=all#durable-timeline"
    assert second == "?inside=all&page=9#durable-timeline"
    page = get(page_of(long) + second)
    assert shown(page) == [f"step {number}" for number in range(800, 900)]
    assert "Page 9 of 9, 900 steps" in page.text
    assert page.links("page=8") == ["?inside=all&page=8#durable-timeline"]
    page = get(page_of(long) + "?inside=all")
    assert shown(page)[-1] == "step 99"
    assert page.links("page=2")


def test_filters_of_the_steps_are_links_with_their_numbers(long: Run, get) -> None:
    page = get(page_of(long))
    assert "All 900 Failed 1 Running 0 Waiting 0 Slowest" in page.text
    assert "?steps=failed#durable-timeline" in page.links()
    page = get(page_of(long) + "?steps=failed")
    assert shown(page) == ["step 850"]
    current = [attrs for _, attrs in page.tags if attrs.get("aria-current") == "true"]
    assert [one["id"] for one in current] == ["durable-steps-failed"]
    assert "No step matches." in get(page_of(long) + "?steps=running").text
    assert len(shown(get(page_of(long) + "?steps=slowest"))) == 20


def test_a_part_of_the_name_filters_the_steps(long: Run, get) -> None:
    page = get(page_of(long) + "?name=step+85")
    assert shown(page) == ["step 85", *(f"step {n}" for n in range(850, 860))]
    assert "?steps=failed&name=step+85#durable-timeline" in page.links()
    page = get(page_of(long) + "?name=step+85&steps=failed")
    assert shown(page) == ["step 850"]
    inputs = {attrs.get("name"): attrs for tag, attrs in page.tags if tag == "input"}
    assert inputs["name"]["value"] == "step 85"
    assert inputs["name"]["form"] == inputs["steps"]["form"] == "durable-steps"


def test_a_step_in_the_address_is_drawn(long: Run, get) -> None:
    key = ids.step_key("step 500")
    assert "step 500" not in shown(get(page_of(long)))
    assert "step 500" in shown(get(page_of(long) + f"?step={key}"))


@pytest.mark.parametrize(
    "query",
    ["steps=odd", "page=-1", "page=999999999999", "page=٣", "inside=x", "step=%00"],
)
def test_an_invalid_address_draws_the_page(long: Run, get, query: str) -> None:
    assert shown(get(f"{page_of(long)}?{query}"))


def test_a_view_keeps_its_state_in_the_address() -> None:
    view = TimelineView.parse({"steps": "failed", "name": " a&b ", "page": "2"})
    assert view.query() == "?steps=failed&name=a%26b&page=2"
    assert view.query(seen="x").endswith("&page=2&seen=x")
    assert TimelineView.parse({}).query() == "?"


def test_a_map_is_one_row_with_its_branches_in_numbers(durable_kit: Kit, get) -> None:
    def mapped(ctx):
        def branch(number):
            if number % 10 == 3:
                ctx.step.sleep("nap", "1h")

        ctx.step.map("each", branch, range(30))

    run = durable.function(id="tests.mapped")(mapped).enqueue()
    durable_kit.run_until_idle()
    each = run.steps.get(kind="map")
    assert each.detail == {"size": 30}
    page = get(page_of(run))
    assert "30 branches: 27 done, 3 waiting, median" in page.text
    assert page.text.count("nap sleep Sleeping") == 3
    assert len(keys(page)) == 7
    (link,) = page.links("inside=")
    assert link == f"?inside={each.key}#durable-timeline"
    parts = [attrs for tag, attrs in page.tags if tag == "rect" and "class" in attrs]
    assert [(one["class"], one["x"], one["width"]) for one in parts] == [
        ("done", "0.00%", "90.00%"),
        ("waiting", "90.00%", "10.00%"),
    ]
    page = get(page_of(run) + link)
    assert len(keys(page)) == 31
    durable_kit.advance("1h")
    page = get(page_of(run))
    assert "30 branches: 30 done" in page.text


def test_numbers_of_steps_show_no_payload(long: Run, viewer) -> None:
    client = viewer("run", "step")
    page = Page(client.get(page_of(long)).content.decode())
    assert "step 850" in shown(page)
    assert "KeyError" in page.text
    assert "GBP" not in page.text


def test_a_long_run_costs_as_many_queries_as_a_short_one(
    long: Run, admin_client, django_assert_max_num_queries
) -> None:
    for query in ("", "?steps=failed", "?inside=all&page=5", "?name=7&steps=slowest"):
        with django_assert_max_num_queries(13):
            assert admin_client.get(page_of(long) + query).status_code == 200


@pytest.mark.parametrize(
    ("until", "labels"),
    [
        (5.9, ["0", "1 s", "2 s", "3 s", "4 s", "5 s", "5.9 s"]),
        (5.2, ["0", "1 s", "2 s", "3 s", "4 s", "5.2 s"]),
        (0.6, ["0", "100 ms", "200 ms", "300 ms", "400 ms", "500 ms", "600 ms"]),
        (9000, ["0", "30 m", "1 h", "1.5 h", "2 h", "2 h 30 m"]),
    ],
)
def test_last_mark_of_the_axis_is_the_end_of_the_run(
    until: float, labels: list[str]
) -> None:
    axis = Axis.of(-1.0, until)
    assert [tick.label for tick in axis.ticks] == labels
    assert (axis.ticks[-1].x, float(axis.ticks[-1].at)) == ("100.000%", until)
