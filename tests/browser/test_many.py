"""Actions on many runs at once, selected by a filter."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

Visit = Callable[..., Page]


def test_all_runs_of_a_filter_are_cancelled_in_the_background(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.many")
    def many(ctx):
        ctx.step.sleep("nap", "1d")

    for number in range(120):  # more than a page shows
        many.enqueue({"n": number % 2})
    durable_kit.run_until_idle()
    visit("durable_jobs_run_changelist", query="?status=waiting&where=data.n%3D1")
    page.locator("#action-toggle").check()
    page.get_by_role("button", name="Select all 60 runs").click()
    page.get_by_label("Action:").select_option(label="Cancel")
    page.locator("button[name=index]").click()
    expect(page.locator("h1")).to_contain_text("60 runs")
    page.get_by_label("Reason").fill("sent by mistake")
    page.locator(".durable-buttons button").click()
    state = page.locator(".durable-state")
    expect(state).to_contain_text("queued", ignore_case=True)
    durable_kit.run_until_idle()
    expect(state).to_contain_text("completed", ignore_case=True)
    expect(page.locator(".durable-payload").last).to_contain_text('"done": 60')
    cancelled = Run.objects.filter(function="tests.many", status="cancelled")
    assert cancelled.count() == 60
    assert {run.reason for run in cancelled} == {"sent by mistake"}


def test_event_that_a_run_waits_for_is_sent_from_its_page(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    @durable.function(id="tests.waits")
    def waits(ctx):
        return ctx.step.wait_for_event("w", "shop/paid").data["n"]

    run = waits.enqueue()
    durable_kit.run_until_idle()
    visit("durable_jobs_run_change", run.pk)
    page.get_by_role("link", name="send the event").first.click()
    expect(page.get_by_label("Name")).to_have_value("shop/paid")
    page.get_by_label("Data").fill('{"n": 7}')
    page.locator(".durable-buttons button").click()
    expect(page.locator(".messagelist")).to_be_visible()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 7
