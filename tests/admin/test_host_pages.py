"""Runs on the pages of the project's own objects: panel, tools, column, warning."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.template import Context, Template
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import clock
from durable_jobs.admin.project.panel import MAX_WARNED, MOST
from durable_jobs.models import Run
from durable_jobs.queries.subjects import COUNTED
from project.shop.models import Order
from tests.admin.conftest import (
    Page,
    about,
    make_live,
    make_orders,
    make_runs,
    page_of,
)

pytestmark = pytest.mark.django_db

ORDERS = "/admin/shop/order/"


def delete_of(order):
    return reverse("admin:shop_order_delete", args=[order.pk])


def ask(client, address):
    response = client.get(address)
    assert response.status_code == 200, response.status_code
    return Page(response.content.decode())


# The panel and the tools


def test_page_of_an_object_shows_the_newest_of_its_runs(get):
    order, other = make_orders(2)
    runs = about(order, make_runs(MOST + 2))
    about(other, make_runs(1, function="tests.other"))
    page = get(page_of(order))
    assert page.rows("run") == [page_of(run) for run in reversed(runs[2:])]
    assert "tests.other" not in page.text
    everything = f"/admin/durable_jobs/run/?subject=shop.order%3A{order.pk}"
    assert page.links(everything) == [everything, everything]
    assert "All runs" in page.text


def test_object_without_runs_says_so_and_a_new_one_shows_nothing(get):
    [order] = make_orders(1)
    text = get(page_of(order)).text
    assert "No runs are about this object. Runs are linked when their data" in text
    assert "or by subject=:" in text
    assert "No run is about" not in get(f"{ORDERS}add/").text


def test_runs_of_an_object_need_the_permission_to_view_runs(staff):
    [order] = make_orders(1)
    run = about(order, make_runs(1))[0]
    client = staff("shop.view_order")
    page = ask(client, page_of(order))
    assert "tests.made" not in page.text
    assert str(run.pk) not in page.source
    assert page.links("/durable_jobs/") == []
    assert "/durable/start/" not in page.source
    assert "Runs" not in ask(client, ORDERS).text


def test_panel_shows_runs_to_users_who_may_view_them(staff):
    [order] = make_orders(1)
    run = about(order, make_runs(1))[0]
    client = staff("shop.view_order", "durable_jobs.view_run")
    assert ask(client, page_of(order)).rows("run") == [page_of(run)]
    assert "/durable/start/" not in ask(client, page_of(order)).source


def test_panel_costs_one_query_for_any_number_of_runs(admin_client):
    order, other = make_orders(2)
    about(order, make_runs(2))
    about(other, make_runs(40))
    counts = []
    for one in (order, other):
        with CaptureQueriesContext(connection) as captured:
            ask(admin_client, page_of(one))
        asked = [q["sql"] for q in captured if "durable_jobs_subject" in q["sql"]]
        assert len(asked) == 1
        columns = asked[0].partition(" FROM ")[0]
        assert not any(f'"{name}"' in columns for name in ("data", "output", "error"))
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_panel_can_be_left_out_or_moved(get, monkeypatch, rf):
    [order] = make_orders(1)
    run = about(order, make_runs(1))[0]
    own = admin.site.get_model_admin(Order)
    monkeypatch.setattr(type(own), "durable_panel", False)
    assert get(page_of(order)).rows("run") == []
    request = rf.get("/")
    request.user = User(is_superuser=True, is_active=True)
    request.current_app = "admin"
    html = Template("{% load durable_jobs %}{% durable_runs order %}").render(
        Context({"request": request, "order": order})
    )
    assert page_of(run) in html


OWN_FORM = """{% extends "admin/change_form.html" %}
{% block form_top %}The shop's own words.{% endblock %}"""


@pytest.mark.parametrize("name", ["admin/shop/order/change_form.html", "own.html"])
def test_template_of_the_project_is_kept(get, monkeypatch, settings, tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(OWN_FORM)
    [known] = settings.TEMPLATES
    settings.TEMPLATES = [known | {"DIRS": [tmp_path, *known["DIRS"]]}]
    [order] = make_orders(1)
    about(order, make_runs(1))
    if name == "own.html":
        own = type(admin.site.get_model_admin(Order))
        monkeypatch.setattr(own, "change_form_template", name, raising=False)
    page = get(page_of(order))
    assert "The shop's own words." in page.text
    assert len(page.rows("run")) == 1


def test_string_of_an_object_is_escaped(get, monkeypatch):
    [order] = make_orders(1)
    about(order, make_live(1))
    name = "<script>alert(1)</script>"
    monkeypatch.setattr(Order, "__str__", lambda self: name)
    start = reverse("admin:shop_order_durable_start", args=["shop.refund_order"])
    for address in (page_of(order), delete_of(order), f"{start}?pk={order.pk}"):
        page = get(address)
        assert name not in page.source
        assert name in page.text


# The column


def test_column_counts_the_runs_of_each_object(get):
    busy, broken, quiet, none = make_orders(4)
    about(busy, make_live(2) + make_runs(1, status="failed"))
    about(broken, make_runs(3, status="failed") + make_runs(1))
    about(quiet, make_runs(5))
    page = get(ORDERS)
    for text in ("2 live 1 failed", "3 failed", "5 ended"):
        assert text in page.text
    assert len(page.links("?subject=shop.order")) == 3
    assert not page.links(f"?subject=shop.order%3A{none.pk}")


def test_column_costs_one_query_for_a_page_of_any_length(admin_client):
    def costs():
        with CaptureQueriesContext(connection) as captured:
            ask(admin_client, ORDERS)
        return [q["sql"] for q in captured]

    about(make_orders(1)[0], make_runs(1))
    few = costs()
    for order in make_orders(40):
        about(order, make_runs(2))
    many = costs()
    assert len(many) == len(few)
    assert sum("durable_jobs_subject" in sql for sql in many) == 1


def test_column_counts_no_further_than_it_shows(get):
    [order] = make_orders(1)
    about(order, make_runs(COUNTED + 5))
    assert f"{COUNTED}+ ended" in get(ORDERS).text


@pytest.mark.skipif(connection.vendor != "postgresql", reason="reads its plans")
def test_column_reads_only_the_newest_runs_by_an_index():
    from durable_jobs.queries import subjects

    [order] = make_orders(1)
    about(order, make_runs(3))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        living = ["queued", "running", "waiting", "paused", "failed"]
        cursor.execute(
            "EXPLAIN " + subjects._counting(1),
            [str(order.pk), *living, "shop.order", COUNTED],
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "durable_subject_unique" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


def test_editable_list_has_the_column_too(get, monkeypatch):
    [order] = make_orders(1)
    about(order, make_live(1))
    own = admin.site.get_model_admin(Order)
    monkeypatch.setattr(type(own), "list_editable", ("status",), raising=False)
    assert "1 live" in get(ORDERS).text


# Deleting


def test_confirmation_lists_the_live_runs_and_how_to_cancel_them(get):
    order, other = make_orders(2)
    [live] = about(order, make_live(1))
    about(order, make_runs(1, function="tests.over"))
    about(other, make_live(1, function="tests.other"))
    page = get(delete_of(order))
    assert "A live run is about the objects to delete." in page.text
    assert page.rows("run") == [page_of(live)]
    cancel = reverse("admin:durable_jobs_run_act", args=[live.pk, "cancel"])
    assert cancel in page.links()
    assert "tests.over" not in page.text
    assert "tests.other" not in page.text


def test_warning_is_absent_without_live_runs(get):
    [order] = make_orders(1)
    about(order, make_runs(1))
    assert "live run" not in get(delete_of(order)).text.lower()


def test_deleting_stays_allowed(admin_client):
    [order] = make_orders(1)
    [run] = about(order, make_live(1))
    admin_client.post(delete_of(order), {"post": "yes"})
    assert not Order.objects.exists()
    run.refresh_from_db()
    assert run.is_live


def test_action_that_deletes_many_warns_too(admin_client):
    orders = make_orders(3)
    about(orders[0], make_live(1, function="tests.first"))
    about(orders[1], make_live(1, function="tests.second"))
    data = {"action": "delete_selected", "_selected_action": [o.pk for o in orders]}
    response = admin_client.post(ORDERS, data)
    page = Page(response.content.decode())
    assert "Live runs are about the objects to delete." in page.text
    assert "tests.first" in page.text
    assert "tests.second" in page.text


def test_warning_lists_some_of_many_live_runs(get):
    [order] = make_orders(1)
    about(order, make_live(MAX_WARNED + 5))
    page = get(delete_of(order))
    assert len(page.rows("run")) == MAX_WARNED
    assert "and more" in page.text


def test_project_can_protect_objects_of_live_runs(admin_client, monkeypatch):
    own = admin.site.get_model_admin(Order)
    monkeypatch.setattr(type(own), "durable_protect", True)
    kept, free = make_orders(2)
    about(kept, make_live(1))
    about(free, make_runs(1))
    for order in (kept, free):
        admin_client.post(delete_of(order), {"post": "yes"})
    assert list(Order.objects.all()) == [kept]
    page = ask(admin_client, delete_of(kept))
    assert "protected" in page.text
    assert "Live run" in page.text or "A live run" in page.text


def test_viewer_without_permission_learns_only_that_there_are_live_runs(staff):
    [order] = make_orders(1)
    [run] = about(order, make_live(1))
    client = staff("shop.view_order", "shop.delete_order")
    page = ask(client, delete_of(order))
    assert "A live run is about the objects to delete." in page.text
    assert str(run.pk) not in page.source
    assert "tests.made" not in page.source


def test_user_who_may_not_cancel_sees_no_cancel(staff):
    [order] = make_orders(1)
    [run] = about(order, make_live(1))
    client = staff("shop.view_order", "shop.delete_order", "durable_jobs.view_run")
    page = ask(client, delete_of(order))
    assert page.rows("run") == [page_of(run)]
    assert "/cancel/" not in page.source


def test_run_that_waits_since_long_ago_is_warned_of_too(get):
    [order] = make_orders(1)
    old = make_live(1, queued_at=clock.now() - timedelta(days=90))
    about(order, old)
    about(order, make_runs(30))
    assert get(delete_of(order)).rows("run") == [page_of(old[0])]
    assert Run.objects.count() == 31


# Another site


def test_site_without_pages_of_runs_shows_them_without_links(admin_client, settings):
    settings.ROOT_URLCONF = "tests.admin.other_sites"
    [order] = make_orders(1)
    about(order, make_live(1))
    for address in ("/desk/shop/order/", f"/desk/shop/order/{order.pk}/change/"):
        page = ask(admin_client, address)
        assert "1 live" in page.text or "tests.made" in page.text
        assert page.links("/durable_jobs/") == []
        assert page.links("/admin/") == []
    deleting = ask(admin_client, f"/desk/shop/order/{order.pk}/delete/")
    assert "tests.made" in deleting.text
    assert "/cancel/" not in deleting.source


def test_action_is_limited_to_its_site(admin_client, settings):
    settings.ROOT_URLCONF = "tests.admin.other_sites"
    [order] = make_orders(1)
    page = ask(admin_client, f"/desk/shop/order/{order.pk}/change/")
    [tool] = page.links("/durable/start/")
    assert tool.startswith("/desk/")
    asked = ask(admin_client, tool)
    chosen = next(a["value"] for _, a in asked.tags if a.get("name") == "selection")
    values = {"input-amount": "1", "input-reason": "late", "selection": chosen}
    elsewhere = tool.partition("?")[0].replace("/desk/", "/admin/")
    admin_client.post(elsewhere, values)
    assert not Run.objects.exists()
    answer = admin_client.post(tool.partition("?")[0], values)
    assert answer["Location"] == f"/desk/shop/order/{order.pk}/change/"
    assert Run.objects.count() == 1
