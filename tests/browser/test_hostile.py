"""Hostile text in payloads, names and errors is executed on no page."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from durable_jobs import durable
from durable_jobs.models import Event, Run, SavedView
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

Visit = Callable[..., Page]

CORPUS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "javascript:alert(1)",
    "</textarea></pre></script><svg onload=alert(1)>",
    "{{ 7|add:7 }}{% csrf_token %}${7*7}",
    "&lt;b&gt;&#60;script&#62;",
]


logger = logging.getLogger("project.hostile")


def say(one: str, deep: dict[str, str]) -> dict[str, object]:
    """Log and return hostile text."""
    logger.warning("%s", one)
    return {one: [one, deep]}


@pytest.fixture
def hostile(durable_kit: Kit) -> dict[str, Run]:
    """Let runs fail, wait and be paused, with the corpus in every text."""
    text = " ".join(CORPUS)
    odd = f"\u202e{text}\u0007"
    tenant = Tenant.objects.create(name=text[:100])

    @durable.function(
        id="tests.hostile",
        name=text,
        description=text,
        on=durable.ModelChange("shop.Order", created=True),
        retries=1,
        backoff=durable.Backoff.fixed(1),
        concurrency=durable.Concurrency(1, key=lambda event: text, of="runs"),
    )
    def hostile(ctx):
        for one in CORPUS:
            ctx.step.run(one, say, one, deep={one: one})
        with ctx.step.group(text[:200]):
            ctx.step.send_event("send", durable.NewEvent("tests/hostile", {odd: odd}))
        ctx.step.wait_for_event(f"wait {text}"[:250], "tests/never", timeout="1d")

    @durable.function(id="tests.breaks", retries=1, backoff=durable.Backoff.fixed(1))
    def breaks(ctx):
        def body():
            logger.error("%s", text)
            raise type(text[:60], (Exception,), {})(text)

        ctx.step.run(text[:200], body)

    for _ in range(2):
        Order.objects.create(tenant=tenant, total=1, note=text[:200])
    durable_kit.run_until_idle()
    failed = breaks.using(key=CORPUS[1]).enqueue({odd: odd})
    durable_kit.run_until_idle()
    durable_kit.advance("10s")
    waiting, blocked = Run.objects.filter(function="tests.hostile").order_by("pk")
    paused = breaks.enqueue()
    paused.pause(text)
    failed.refresh_from_db()
    assert (failed.status, waiting.status) == ("failed", "waiting")
    assert failed.attempts.get().logs
    assert waiting.steps.exclude(input=None).exclude(logs=None).count() == len(CORPUS)
    return {"failed": failed, "waiting": waiting, "blocked": blocked, "paused": paused}


def test_hostile_content_is_never_executed(
    hostile: dict[str, Run], visit: Visit, page: Page, user
) -> None:
    SavedView.objects.create(
        owner=str(user.pk),
        name=CORPUS[1],
        page="run",
        query="",
        created_at=hostile["failed"].queued_at,
    )
    for name in ("overview", "functions", "queues", "approvals"):
        visit(f"durable_jobs_{name}")
        assert page.title()
    for model in ("run", "event", "step", "schedule", "limit", "pause", "worker"):
        visit(f"durable_jobs_{model}_changelist")
        assert page.locator("#changelist, #content").count()
    for run in hostile.values():
        visit("durable_jobs_run_change", run.pk)
        for link in page.locator("[data-durable-panel]").all():
            link.click()
        page.wait_for_load_state("networkidle")
        for action in ("rerun", "edit", "cancel"):
            visit("durable_jobs_run_act", run.pk, action)
        visit("durable_jobs_run_test", run.pk)
        for step in run.steps.all()[:3]:
            visit("durable_jobs_step_change", step.pk)
        visit("durable_jobs_run_history", run.pk)
    for event in Event.objects.all()[:3]:
        visit("durable_jobs_event_change", event.pk)
    page.keyboard.press("?")
    assert page.locator("#durable-keys").is_visible()
