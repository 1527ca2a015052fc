"""The banner of a live run: what it waits for, with the viewer's actions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import clock, durable
from durable_jobs.models import Step
from tests.admin.conftest import Page, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db


def start(kit, body, data=None, **options):
    run = durable.function(id=f"tests.{body.__name__}", **options)(body).enqueue(data)
    kit.run_until_idle()
    return run


def banner(page: Page) -> Page:
    """Return the banner of a run's page."""
    start = page.source.index('<div class="durable-why">')
    return Page(page.source[start : page.source.index("</div>", start)])


def test_sleeping_run_shows_the_time_and_wake(durable_kit, get):
    def nap(ctx):
        ctx.step.sleep("settle", "2h")

    run = start(durable_kit, nap)
    found = banner(get(page_of(run)))
    assert found.text.startswith("Sleeping in settle until ")
    assert "in 2 h 00 m" in found.text
    assert found.links() == [
        page_of(Step.objects.get()),
        f"{page_of(run).removesuffix('change/')}act/wake/?step={Step.objects.get().key}",
    ]


def test_wait_for_an_event_shows_its_value_and_its_actions(durable_kit, get):
    def pay(ctx):
        ctx.step.wait_for_event("paid", "shop/paid", match="data.order", timeout="3d")

    found = banner(get(page_of(start(durable_kit, pay, {"order": 12}))))
    assert "Waiting in paid for the event shop/paid with order = 12, until" in (
        found.text
    )
    assert "answer send the event" in found.text


def test_banner_hides_values_and_actions_from_others(durable_kit, viewer):
    def pay(ctx):
        ctx.step.wait_for_event("paid", "shop/paid", match="data.order")

    run = start(durable_kit, pay, {"order": "secret 12"})
    found = banner(Page(viewer("run").get(page_of(run)).content.decode()))
    assert found.text == "Waiting in paid for the event shop/paid"
    assert found.links() == []


def test_more_than_three_waits_are_folded(durable_kit, get):
    def many(ctx):
        naps = [lambda n=n: ctx.step.sleep(f"nap {n}", "1h") for n in range(4)]
        ctx.step.parallel("all", naps)

    found = banner(get(page_of(start(durable_kit, many))))
    assert [tag for tag, _ in found.tags].count("li") == 4
    assert found.text.startswith("4 waits: 4 sleeps Sleeping in nap 0 until")


def test_run_at_a_limit_shows_short_linked_ids_once_and_an_estimate(durable_kit, get):
    def hold(ctx):
        ctx.step.sleep("nap", "10m")

    function = durable.function(
        id="tests.hold", concurrency=durable.Concurrency(1, of="runs")
    )(hold)
    first, second, third = [function.enqueue() for _ in range(3)]
    durable_kit.run_until_idle()
    durable_kit.advance("10m")
    found = banner(get(page_of(third)))
    assert str(second.pk) not in found.text
    assert found.links() == [page_of(second)]
    assert f"held by {str(second.pk)[-8:]}; 0 others are before it." in found.text
    assert "starts in about 10 m 00 s" in found.text
    assert first.pk != second.pk


def test_executing_run_shows_its_worker_and_step(get):
    began = clock.now() - timedelta(hours=1)
    run = make_runs(
        1,
        status="running",
        ended_at=None,
        started_at=began,
        worker="web:1",
        claim_count=1,
    )[0]
    assert banner(get(page_of(run))).text.startswith("Running on worker web:1 for 1 h")
    make_steps(run, 1)
    assert "; the last step, step 0, ended" in banner(get(page_of(run))).text
    Step.objects.update(status="running", ended_at=None, started_at=began)
    text = banner(get(page_of(run))).text
    assert text.startswith("Running step 0 for 1 h")
    assert text.endswith("on worker web:1")


def test_run_that_ended_has_no_banner(get):
    assert "durable-why" not in get(page_of(make_runs(1)[0])).source


def test_page_of_a_waiting_run_needs_as_many_queries_for_many_waits(
    durable_kit, viewer
):
    client = viewer("run", "step", "event")

    def naps(ctx):
        count = ctx.event.data["count"]
        calls = [lambda n=n: ctx.step.sleep(f"nap {n}", "1h") for n in range(count)]
        ctx.step.parallel("all", calls)

    function = durable.function(id="tests.naps")(naps)

    def queries(count):
        run = function.enqueue({"count": count})
        durable_kit.run_until_idle()
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page_of(run)).status_code == 200
        return len(captured)

    few = queries(1)
    assert queries(30) == few
    assert few <= 15
