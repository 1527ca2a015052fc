"""The project's own pages: a refund from the list, and the buyer's progress page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.durable import refund_order
from project.shop.models import Order
from tests.admin.conftest import about, make_live, make_orders

Visit = Callable[..., Page]
PICTURES = os.environ.get("PICTURES")


def test_order_is_refunded_from_the_list_of_orders(
    visit: Visit, durable_kit: Kit, tmp_path: Path
) -> None:
    folder = Path(PICTURES) if PICTURES else tmp_path
    chosen, other = make_orders(2)
    about(other, make_live(2))
    page = visit("shop_order_changelist")
    page.locator(f"input.action-select[value='{chosen.pk}']").check()
    page.get_by_label("Action:").select_option(label="Refund order")
    page.locator("button[name=index]").click()
    expect(page.locator("#content")).to_contain_text("Starts a run for 1 object")
    page.get_by_label("Amount").fill("19.90")
    page.get_by_label("What was wrong").select_option("late")
    page.screenshot(path=folder / "offer.png", full_page=True)
    page.get_by_role("button", name="Start 1 run").click()
    expect(page.locator(".messagelist")).to_contain_text("Started 1 run")
    expect(page.locator("#result_list")).to_contain_text("1 live")
    page.screenshot(path=folder / "orders.png", full_page=True)
    durable_kit.run_until_idle()
    visit("shop_order_change", chosen.pk)
    expect(page.locator(".durable-host")).to_contain_text("completed", ignore_case=True)
    page.screenshot(path=folder / "order.png", full_page=True)
    page.set_viewport_size({"width": 390, "height": 844})
    visit("shop_order_change", other.pk)
    page.screenshot(path=folder / "order-phone.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="dark")
    visit("shop_order_delete", other.pk)
    page.screenshot(path=folder / "order-delete-dark.png", full_page=True)
    assert Order.objects.get(pk=chosen.pk).note == "19.90 back: late"


def test_buyer_without_an_account_watches_until_the_end(
    browser: Browser, server: str, durable_kit: Kit
) -> None:
    [order] = make_orders(1)
    refund_order.enqueue(
        {"model": "shop.Order", "pk": order.pk, "amount": 5, "reason": "late"}
    )
    context = browser.new_context()
    page = context.new_page()
    asked: list[int] = []
    page.on(
        "response",
        lambda answer: (
            asked.append(answer.status) if "/progress/" in answer.url else None
        ),
    )
    page.goto(server + reverse("order", args=[order.pk]))
    shown = page.get_by_role("status")
    expect(shown).to_contain_text("0 of 2 steps done")
    with page.expect_response(lambda answer: answer.status == 204, timeout=20_000):
        pass
    durable_kit.run_until_idle()
    expect(shown).to_contain_text("2 of 2 steps done", timeout=20_000)
    expect(shown).to_contain_text("Completed")
    assert asked[-1] == 286
    assert set(asked[:-1]) == {204}
    count = len(asked)
    page.reload()
    expect(shown).to_contain_text("Completed")
    assert page.locator("[hx-get]").count() == 0
    assert len(asked) == count
    assert Run.objects.get().status == "completed"
    context.close()
