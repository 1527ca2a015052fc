"""Instances in payloads are links with their current names, if visible."""

from __future__ import annotations

import json

import pytest
from django.contrib import admin
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs.admin.object_links import MOST
from project.shop.models import Order, Tenant
from tests.admin.conftest import Page, make_orders, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db

SEES = ("durable_jobs.view_run", "durable_jobs.view_payload")


def about_orders(orders, **values):
    """Insert a run whose data refers to orders."""
    [run] = make_runs(1, data={"orders": list(orders)}, **values)
    return run


def refer(run, tree):
    """Write data in its stored form."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE durable_jobs_run SET data = %s WHERE id = %s",
            [json.dumps(tree), run.pk if connection.vendor != "sqlite" else run.pk.hex],
        )


def tag(label, key, alias="default"):
    return {"$durable": "model", "value": [label, key, alias]}


def ask(client, row):
    response = client.get(page_of(row))
    assert response.status_code == 200
    return Page(response.content.decode())


def orders_asked(client, row):
    with CaptureQueriesContext(connection) as captured:
        page = ask(client, row)
    return page, [q["sql"] for q in captured if 'FROM "shop_order"' in q["sql"]]


def test_instance_is_a_link_with_its_current_name(get, monkeypatch):
    [order] = make_orders(1)
    run = about_orders([order])
    monkeypatch.setattr(Order, "__str__", lambda self: "<b>the order</b> of today")
    page = get(page_of(run))
    assert page_of(order) in page.links()
    assert f"shop.order {order.pk} <b>the order</b> of today" in page.text
    assert "<b>the order</b>" not in page.source


def test_deleted_instance_is_marked(get):
    [order] = make_orders(1)
    run, key = about_orders([order]), order.pk
    order.delete()
    page = get(page_of(run))
    assert f"shop.order {key} deleted" in page.text
    assert page.rows("order") == []


def test_viewer_without_permission_sees_the_stored_reference(staff):
    [order] = make_orders(1)
    run = about_orders([order])
    page, asked = orders_asked(staff(*SEES), run)
    assert '"shop.order"' in page.text
    assert page.rows("order") == []
    assert str(order) not in page.text
    assert asked == []


def test_viewer_with_permission_gets_the_link(staff):
    [order] = make_orders(1)
    run = about_orders([order])
    assert ask(staff(*SEES, "shop.view_order"), run).rows("order") == [page_of(order)]


def test_instance_hidden_by_the_projects_admin_is_no_link(staff, monkeypatch):
    mine, other = make_orders(2)
    run = about_orders([mine, other])
    own = type(admin.site.get_model_admin(Order))
    monkeypatch.setattr(
        own, "get_queryset", lambda self, request: Order.objects.filter(pk=mine.pk)
    )
    page = ask(staff(*SEES, "shop.view_order"), run)
    assert page.rows("order") == [page_of(mine)]
    assert f"order {other.pk}" not in page.text.replace(f"shop.order {mine.pk}", "")
    assert "deleted" not in page.text


def test_hidden_payloads_cost_no_query(staff):
    run = about_orders(make_orders(1))
    page, asked = orders_asked(staff("durable_jobs.view_run", "shop.view_order"), run)
    assert asked == []
    assert page.rows("order") == []


def test_references_cost_one_query_a_model(admin_client):
    orders = make_orders(12)
    for chosen in (orders[:1], orders):
        run = about_orders(
            chosen, output={"again": chosen, "whose": Tenant.objects.get()}
        )
        page, asked = orders_asked(admin_client, run)
        assert len(asked) == 1
        assert len(set(page.rows("order"))) == len(chosen)
        assert page.rows("tenant")


def test_references_are_resolved_up_to_the_limit_of_a_page(admin_client):
    orders = make_orders(MOST + 3)
    page, asked = orders_asked(admin_client, about_orders(orders))
    assert len(page.rows("order")) == MOST
    assert len(asked) == 1
    assert page.source.count("&quot;shop.order&quot;") == 3


def test_steps_output_has_links_too(get):
    [order] = make_orders(1)
    [run] = make_runs(1)
    [step] = make_steps(run, 1, output=[order])
    assert get(page_of(step)).rows("order") == [page_of(order)]


@pytest.mark.parametrize(
    "odd",
    [
        tag("shop.nothing", 1),
        tag("nonsense", 1),
        tag("shop.order", "x"),
        tag("shop.order", None),
        tag("shop.order", True),
        tag("shop.order", [1]),
        tag("shop.order", {"a": 1}),
        tag("shop.order", 10**30),
        tag("shop.order", 1.5),
        tag("shop.order", 1, "nowhere"),
        tag("shop.order", 1, 7),
        tag("durable_jobs.run", "no uuid"),
        tag("<script>alert(1)</script>", "<b>"),
        {"$durable": "model", "value": "shop.order"},
        {"$durable": "model", "value": ["shop.order"]},
        {"$durable": "model"},
    ],
)
def test_reference_of_any_form_is_shown(get, odd):
    [run] = make_runs(1)
    refer(run, {"odd": odd})
    page = get(page_of(run))
    assert "model" in page.text
    assert "<script>alert(1)" not in page.source
    assert page.rows("order") == []


def test_instance_whose_name_fails_does_not_break_the_page(get, monkeypatch):
    def fail(self):
        raise RuntimeError("no name")

    run = about_orders(make_orders(1))
    monkeypatch.setattr(Order, "__str__", fail)
    assert "shop.order" in get(page_of(run)).text


def test_reference_with_a_key_of_another_type_is_found(get):
    [other] = make_runs(1)
    run = about_orders([])
    refer(
        run,
        {
            "run": other
            and tag("durable_jobs.run", {"$durable": "uuid", "value": str(other.pk)})
        },
    )
    assert page_of(other) in get(page_of(run)).links()
