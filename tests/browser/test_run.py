"""Watching a run, and steering it."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

Visit = Callable[..., Page]


def test_a_run_is_watched_to_its_end(visit: Visit, durable_kit: Kit) -> None:
    @durable.function(id="tests.watched")
    def watched(ctx):
        ctx.step.run("first", lambda: {"n": 1})
        ctx.step.sleep("nap", "1h")
        return ctx.step.run("last", lambda: "done")

    run = watched.enqueue({"order": 7})
    page = visit("durable_jobs_run_change", run.pk)
    expect(page.locator(".durable-state")).to_contain_text("queued", ignore_case=True)
    durable_kit.run_until_idle()
    expect(page.locator(".durable-state")).to_contain_text("waiting", ignore_case=True)
    page.get_by_role("link", name="first", exact=True).click()
    expect(page.locator(".durable-panel").first).to_contain_text('"n": 1')
    durable_kit.advance("1h")
    expect(page.locator(".durable-state")).to_contain_text(
        "completed", ignore_case=True
    )
    expect(page.locator("[data-durable-live]")).to_have_count(0)
    expect(page.locator(".durable-panel").first).to_contain_text('"n": 1')
    page.screenshot(path="/tmp/run.png", full_page=True)
    assert Run.objects.get().status == "completed"
