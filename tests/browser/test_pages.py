"""The pages of events, functions, queues and schedules fit, and obey the policy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from durable_jobs import durable
from durable_jobs.models import Event, Run, Schedule, Worker
from durable_jobs.testing import Kit
from tests.browser import scene
from tests.browser.test_pictures import PICTURES, SIZES

Visit = Callable[..., Page]


@pytest.fixture
def day(durable_kit: Kit) -> tuple[str, int]:
    """Let a day pass; return an event that resumed a run, and a schedule."""
    scene.shop(durable_kit)

    @durable.function(
        id="shop.nap",
        name="Nap",
        description="Sleeps a while for each tenant.",
        on=[durable.Event("shop/nap"), durable.Cron("*/5 * * * *")],
        concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"),
    )
    def nap(ctx):
        ctx.step.wait_for_event("go", "shop/go")
        ctx.step.sleep("s", "1h")

    for _ in range(4):
        durable_kit.send("shop/nap", {"tenant": "t7"})
    durable_kit.run_until_idle()
    go = durable_kit.send("shop/go", {"a": 1, "b": ["x", None]})
    durable_kit.run_until_idle()
    schedule = durable.schedules.create(
        "shop.send_receipt", "*/10 * * * *", tz="Europe/Paris", name="Receipts"
    )
    durable_kit.advance("2h")
    durable_kit.advance("30m", run=False)
    durable_kit.advance("1h")
    durable.pause_queue("default", "the bank is closed")
    Worker.objects.update(queues=["default"])
    return go, schedule.pk


@pytest.mark.parametrize("look", SIZES)
def test_pages_fit(
    look: str, visit: Visit, page: Page, day: tuple[str, int], tmp_path: Path
) -> None:
    event, schedule = day
    width, height = SIZES[look]
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if look == "dark" else "light")
    folder = Path(PICTURES) if PICTURES else tmp_path
    os.makedirs(folder, exist_ok=True)
    screens = {
        "event": ("event_change", event),
        "send": ("event_send",),
        "function": ("function", "shop.sync_5Finventory"),
        "nap": ("function", "shop.nap"),
        "start": ("function_start", "shop.nap"),
        "pause": ("function_pause", "shop.nap"),
        "traffic-busy": ("queues",),
        "schedule": ("schedule_change", schedule),
        "run-now": ("schedule_act", schedule, "run"),
    }
    for name, (address, *args) in screens.items():
        visit(f"durable_jobs_{address}", *args)
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} wide"


def test_event_is_edited_and_sent(visit: Visit, durable_kit: Kit) -> None:
    durable.function(id="tests.f", on=durable.Event("tests/go"))(lambda ctx: None)
    old = durable_kit.send("tests/go", {"n": 7})
    page = visit("durable_jobs_event_change", old)
    page.get_by_role("link", name="Edit and send").click()
    data = page.get_by_label("Data")
    expect(data).to_have_value('{\n  "n": 7\n}')
    data.fill('{"n": 8}')
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".messagelist")).to_contain_text("The event was sent.")
    assert Event.objects.exclude(pk=old).get().data == {"n": 8}


def test_schedule_is_run_from_its_page(visit: Visit, durable_kit: Kit) -> None:
    durable.function(id="tests.f")(lambda ctx: None)
    schedule = durable.schedules.create("tests.f", "@daily", name="Daily")
    page = visit("durable_jobs_schedule_change", schedule.pk)
    page.get_by_role("link", name="Run now").click()
    page.get_by_label("Reason").fill("the report was lost")
    page.get_by_role("button", name="Run now").dblclick()
    expect(page.locator(".messagelist")).to_be_visible()
    assert Run.objects.count() == 1
    page = visit("durable_jobs_schedule_change", schedule.pk)
    expect(page.locator(".durable-strip a")).to_have_count(1)
    assert Schedule.objects.get().last_run == Run.objects.get().pk


def test_slash_finds_functions_and_short_ids(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    searched = durable.function(id="tests.searched")(lambda ctx: None)
    run = searched.enqueue()
    visit("durable_jobs_overview")
    page.keyboard.press("/")
    expect(page.locator("#durable-find")).to_be_focused()
    page.keyboard.type("searched")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("tests.searched"))
    page.wait_for_load_state()  # the key needs the page's script
    page.keyboard.press("/")
    expect(page.locator("#durable-find")).to_be_focused()
    page.keyboard.type(str(run.pk)[-8:])
    page.keyboard.press("Enter")
    expect(page.locator("h1 .durable-id")).to_have_attribute("title", str(run.pk))


def test_short_id_copies_the_whole_one(
    visit: Visit, page: Page, durable_kit: Kit
) -> None:
    run = durable.function(id="tests.copied")(lambda ctx: None).enqueue()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit("durable_jobs_run_changelist")
    button = page.get_by_role("button", name=f"Copy the id {run.pk}")
    button.click()
    expect(button).to_have_attribute("title", "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == str(run.pk)
