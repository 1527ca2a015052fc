"""A manager decides, in a browser with a strict policy."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

Visit = Callable[..., Page]


def test_manager_approves_one_complaint_and_rejects_another(
    visit: Visit, durable_kit: Kit
) -> None:
    tenant = Tenant.objects.create(name="Acme")
    for amount in ("40", "99"):
        order = Order.objects.create(tenant=tenant, total=100)
        data = {"order": order, "amount": amount}
        durable_kit.send("shop/complaint.received", data)
    durable_kit.run_until_idle()

    page = visit("durable_jobs_approvals")
    page.get_by_role("link", name="Give back 40").click()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".errornote")).to_be_visible()
    page.get_by_label("Amount").fill("35")
    page.get_by_label("late").check()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator(".messagelist")).to_contain_text("was approved")
    expect(page.get_by_role("link", name="Give back 40")).to_have_count(0)

    page.get_by_role("link", name="Give back 99").click()
    page.get_by_text("Reject…").click()
    page.get_by_label("Reason").fill("it was a gift")
    page.get_by_role("button", name="Reject").click()
    expect(page.locator(".messagelist")).to_contain_text("was rejected")
    expect(page.get_by_text("No approvals for you")).to_be_visible()

    durable_kit.run_until_idle()
    notes = Order.objects.order_by("pk").values_list("note", flat=True)
    assert list(notes) == ["35 given back", "refused: it was a gift"]
    assert not Run.objects.exclude(status="completed").exists()
