"""Every page of the admin under axe-core, in light, in dark and on a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.urls import URLPattern
from playwright.sync_api import Page, expect

from durable_jobs import clock, durable
from durable_jobs.models import (
    ApiKey,
    Event,
    Limit,
    Pause,
    Run,
    SavedView,
    Schedule,
    Step,
    SweepError,
    Wait,
    Worker,
)
from durable_jobs.testing import Kit
from project.shop.models import Order
from tests.browser import axe, scene

pytestmark = pytest.mark.timeout(240)

Visit = Callable[..., Page]
Args = Callable[["Day"], tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The rows whose pages are looked at."""

    run: Run
    failed: Run
    paused: Run
    step: Step
    approval: Wait
    event: Event
    order: Order
    schedule: Schedule
    limit: Limit
    pause: Pause
    worker: Worker
    error: SweepError
    key: ApiKey


def _none(day: Day) -> tuple[Any, ...]:
    return ()


def _act(action: str, run: str = "run") -> Args:
    return lambda day: (getattr(day, run).pk, action)


def _of(name: str) -> Args:
    return lambda day: (getattr(day, name).pk,)


def _named(name: str) -> Args:
    return lambda day: (quote(name),)


def _waiting(day: Day) -> str:
    return f"?step={day.run.waits.exclude(step='').values_list('step', flat=True)[0]}"


#: The pages that a new installation has without any data.
LISTS = (
    "overview",
    "functions",
    "queues",
    "approvals",
    "run_changelist",
    "event_changelist",
    "step_changelist",
    "schedule_changelist",
    "limit_changelist",
    "pause_changelist",
    "worker_changelist",
    "apikey_changelist",
    "sweeperror_changelist",
    "search",
)
PAGES: tuple[tuple[str, Args], ...] = (
    *((name, _none) for name in LISTS),
    ("run_change", _of("run")),
    ("run_change", _of("failed")),
    ("run_history", _of("failed")),
    ("run_test", _of("failed")),
    *(
        ("run_act", _act(name))
        for name in ("cancel", "pause", "wake", "retry", "answer")
    ),
    *(("run_act", _act(name, "failed")) for name in ("redrive", "rerun", "edit")),
    ("run_act", _act("resume", "paused")),
    ("run_act", _act("cancel", "failed")),
    ("step_change", _of("step")),
    ("event_change", _of("event")),
    ("event_send", _none),
    ("event_resend", _of("event")),
    ("function", _named("shop.nap")),
    ("function", _named("shop.sync_inventory")),
    ("function_start", _named("shop.nap")),
    ("function_start", _named("shop.refund_order")),
    ("function_pause", _named("shop.nap")),
    ("queue_pause", _named("default")),
    ("resume", _of("pause")),
    ("approval", lambda day: (day.approval.run_id, day.approval.step)),
    ("schedule_change", _of("schedule")),
    *(("schedule_act", _act(name, "schedule")) for name in ("run", "pause", "resume")),
    ("limit_change", _of("limit")),
    ("pause_change", _of("pause")),
    ("worker_change", _of("worker")),
    ("apikey_add", _none),
    ("apikey_change", _of("key")),
    ("sweeperror_change", _of("error")),
)
#: URLs that show no page: downloads, and what only a POST answers.
NO_PAGES = {"export", "run_document", "saved_views", "bulk"}
#: Forms that no viewer may see, and histories, which Django draws alike.
OTHERS = ("_add", "_delete", "_history")


@pytest.fixture
def checked(page: Page) -> Page:
    """Give a page that carries axe-core."""
    page.add_init_script(path=axe.SCRIPT)
    return page


@pytest.fixture
def day(durable_kit: Kit, user: Any) -> Day:
    """Let a day pass that leaves something on every page."""
    scene.past()
    run = scene.shop(durable_kit)
    for number in range(13):  # more functions than a filter shows as links
        durable.function(id=f"shop.part_{number}")(lambda ctx: None)

    @durable.function(
        id="shop.nap",
        name="Nap",
        description="Sleeps a while for each tenant.",
        on=[durable.Event("shop/nap"), durable.Cron("*/5 * * * *")],
        concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"),
    )
    def nap(ctx):
        ctx.step.sleep("s", "1h")

    for _ in range(4):
        event = durable_kit.send("shop/nap", {"tenant": "t7", "notes": ["long"] * 60})
    durable_kit.run_until_idle()
    schedule = durable.schedules.create("shop.send_receipt", "*/10 * * * *")
    durable_kit.advance("30m")
    paused = nap.enqueue({"tenant": "t8"})
    durable_kit.run_until_idle()
    paused.pause("the till is open")
    now = clock.now()
    values = {"created_at": now, "owner": str(user.pk)}
    SavedView.objects.create(name="Failed", page="run", query="status=failed", **values)
    return Day(
        run=run,
        failed=Run.objects.filter(status="failed").latest("pk"),
        paused=paused,
        step=run.steps.get(name="charge"),
        approval=Wait.objects.filter(kind="approval").earliest("pk"),
        event=Event.objects.get(pk=event),
        order=Order.objects.earliest("pk"),
        schedule=Schedule.objects.get(pk=schedule.pk),
        limit=Limit.objects.filter(function="shop.nap").earliest("pk"),
        pause=Pause.objects.earliest("pk"),
        worker=Worker.objects.earliest("pk"),
        error=SweepError.objects.create(
            kind="wait", item="17", message="boom", since=now, last_at=now, until=now
        ),
        key=ApiKey.objects.create(
            name="ci", prefix="dj_abc", digest="0" * 64, scopes=["runs:read"], **values
        ),
    )


def names(patterns: Any) -> Iterator[str]:
    """Yield the names of the package's URLs in the admin."""
    for pattern in patterns:
        if not isinstance(pattern, URLPattern):
            yield from names(pattern.url_patterns)
        elif (pattern.name or "").startswith("durable_jobs_"):
            yield pattern.name.removeprefix("durable_jobs_")


def test_url_of_every_admin_page_is_checked() -> None:
    known = {name for name, _ in PAGES} | NO_PAGES
    every = set(names(admin.site.urls[0]))
    missing = {name for name in every - known if not name.endswith(OTHERS)}
    assert missing == set()


def test_page_without_data_has_no_serious_finding(visit: Visit, checked: Page) -> None:
    wrong: list[str] = []
    for name in LISTS:
        visit(f"durable_jobs_{name}")
        wrong += axe.findings(checked, name)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("half", [0, 1])
def test_page_with_data_has_no_serious_finding(
    half: int, visit: Visit, checked: Page, day: Day
) -> None:
    wrong: list[str] = []
    for name, args in PAGES[half::2]:
        given = args(day)
        query = _waiting(day) if given[1:] == ("answer",) else ""
        visit(f"durable_jobs_{name}", *given, query=query)
        wrong += axe.findings(checked, f"{name} {given[1:]}")
    assert not wrong, "\n".join(wrong)


def test_page_after_an_action_has_no_serious_finding(
    visit: Visit, checked: Page, day: Day
) -> None:
    wrong: list[str] = []
    for name in _stages(visit, checked, day):
        wrong += axe.findings(checked, name)
        checked.set_viewport_size({"width": 1280, "height": 900})
    assert not wrong, "\n".join(wrong)


def _stages(visit: Visit, page: Page, day: Day) -> Iterator[str]:
    """Bring the page to what no address alone shows; yield the name of each stage."""
    visit("durable_jobs_run_change", day.run.pk)
    page.get_by_role("link", name="charge", exact=True).click()
    expect(page.locator(".durable-panel").filter(has_text="Input")).to_be_visible()
    yield "a run with an open step"
    page.keyboard.press("?")
    yield "the keys"
    visit("durable_jobs_run_changelist", query="?status=failed&function=shop.nap")
    yield "filters without a row"
    visit("durable_jobs_run_changelist", query="?where=nonsense")
    yield "an invalid filter"
    visit("durable_jobs_run_changelist", query="?status=failed")
    page.locator("#action-toggle").check()
    page.get_by_label("Action:").select_option(label="Redrive")
    page.locator("button[name=index]").click()
    yield "a bulk action"
    visit("shop_order_changelist")
    page.locator("input.action-select").first.check()
    page.get_by_label("Action:").select_option(label="Refund order")
    page.locator("button[name=index]").click()
    yield "a start for an object"
    visit("shop_order_change", day.order.pk)
    yield "an object with runs"
    visit("durable_jobs_event_send")
    page.get_by_label("Name").fill("shop/nap")
    page.get_by_label("Data").fill("{")
    page.locator(".durable-buttons button").click()
    expect(page.locator(".errorlist").first).to_be_visible()
    yield "a form with errors"
    visit("durable_jobs_apikey_add")
    page.get_by_label("name", exact=False).first.fill("ci")
    page.locator("input[name=scopes]").first.check()
    page.locator("#content input[type=submit]").click()
    expect(page.locator("#api-key-text")).to_be_visible()
    yield "a new key"
    visit("app_list", "durable_jobs")
    yield "the app"
