"""A durable function as an action of the project's admin."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.admin import signed_selection
from durable_jobs.control import admin_actions, audit
from durable_jobs.models import Run
from project.shop.models import Order, Tenant
from tests.admin.conftest import Page, make_orders, page_of
from tests.lab.threads import together

pytestmark = pytest.mark.django_db

ORDERS = "/admin/shop/order/"
REFUND = "durable:shop.refund_order"
START = "/admin/shop/order/durable/start/shop.refund_order/"
MAY = ("shop.view_order", "durable_jobs.start_run")
GOOD = {"input-amount": "19.90", "input-reason": "late", "input-tell": "on"}


def choose(client, orders, address=ORDERS, **more):
    """Choose the action for some orders, and return the confirmation page."""
    data = {"action": REFUND, "_selected_action": [o.pk for o in orders], **more}
    return client.post(address, data)


def chosen_of(response):
    found = re.search(r'name="selection" value="([^"]+)"', response.content.decode())
    assert found is not None
    return found[1]


def send(client, response, **values):
    return client.post(START, {**GOOD, "selection": chosen_of(response), **values})


def texts(client):
    return [str(m) for m in client.get(ORDERS).context["messages"]]


def test_menu_has_the_function_for_users_who_may_start_runs(staff):
    make_orders(1)
    page = Page(staff(*MAY).get(ORDERS).content.decode())
    assert "Refund order" in page.text


@pytest.mark.parametrize("lacking", ["shop.view_order", "durable_jobs.start_run"])
def test_action_needs_the_permission(staff, lacking):
    [order] = make_orders(1)
    client = staff(*(name for name in MAY if name != lacking), "durable_jobs.view_run")
    listed = client.get(ORDERS)
    assert "Refund order" not in listed.content.decode()
    choose(client, [order])
    for answer in (
        client.get(f"{START}?pk={order.pk}"),
        client.post(START, {**GOOD, "selection": "x"}),
    ):
        assert answer.status_code in (302, 403, 404)
    assert not Run.objects.exists()


def test_permission_removed_meanwhile_counts(staff):
    client = staff(*MAY)
    asked = choose(client, make_orders(1))
    User.objects.get(username="ann").user_permissions.clear()
    assert send(client, asked).status_code == 403
    assert not Run.objects.exists()


def test_anonymous_user_is_sent_to_the_login(client):
    assert "/login/" in client.get(f"{START}?pk=1")["Location"]
    assert "/login/" in client.post(START, {})["Location"]


def test_page_asks_for_the_input_before_anything_starts(staff):
    orders = make_orders(2)
    response = choose(staff(*MAY), orders)
    page = Page(response.content.decode())
    assert response.status_code == 200
    assert "Refund an order that a staff user selected" in page.text
    assert "Starts one run for each of 2 objects" in page.text
    assert page.rows("order") == [page_of(one) for one in reversed(orders)]
    names = [attrs.get("name") for tag, attrs in page.tags if tag != "meta"]
    assert {"input-amount", "input-reason", "input-tell", "reason"} <= set(names)
    assert "Start 2 runs" in page.text
    assert not Run.objects.exists()


def test_action_starts_one_run_for_each_object(staff, durable_kit):
    orders = make_orders(2)
    client = staff(*MAY)
    answer = send(client, choose(client, orders), reason="the gateway was down")
    assert answer["Location"] == ORDERS
    assert texts(client) == ["Started 2 runs of Refund order."]
    durable_kit.run_until_idle()
    for order in orders:
        [run] = durable.runs_for(order)
        assert run.result() == {"refunded": Decimal("19.90")}
        assert run.data == {
            "model": "shop.Order",
            "pk": order.pk,
            "amount": "19.90",
            "reason": "late",
            "tell": True,
        }
        order.refresh_from_db()
        assert order.note == "19.90 back: late"


def test_action_is_in_the_history_of_each_object_and_run(staff):
    orders = make_orders(2)
    client = staff(*MAY)
    send(client, choose(client, orders), reason="gateway <b>down</b>")
    ann = User.objects.get(username="ann")
    for order in orders:
        [run] = durable.runs_for(order)
        for thing in (order, run):
            entry = LogEntry.objects.get(
                object_id=str(thing.pk), content_type__model=thing._meta.model_name
            )
            assert entry.user == ann
            assert "gateway <b>down</b>" in entry.change_message
    history = client.get(reverse("admin:shop_order_history", args=[orders[0].pk]))
    assert "shop.refund_order" in history.content.decode()
    assert "<b>down</b>" not in history.content.decode()


def test_form_posted_twice_starts_nothing_twice(staff):
    client = staff(*MAY)
    orders = make_orders(2)
    asked = choose(client, orders)
    send(client, asked)
    send(client, asked)
    send(client, asked, **{"input-amount": "1"})
    assert Run.objects.count() == 2
    assert LogEntry.objects.count() == 4
    assert "2 objects already have runs from this form" in texts(client)[-1]
    send(client, choose(client, orders))
    assert Run.objects.count() == 4


def test_invalid_input_is_reported_at_its_field_and_starts_nothing(staff):
    client = staff(*MAY)
    orders = make_orders(1)
    asked = choose(client, orders)
    answer = send(client, asked, **{"input-amount": "0", "input-reason": "<script>"})
    assert answer.status_code == 422
    page = Page(answer.content.decode())
    assert "greater than 0" in page.text
    assert "Select a valid choice" in page.text
    assert "<script>." not in page.source
    assert not Run.objects.exists()
    assert send(client, answer).status_code == 302
    assert Run.objects.count() == 1


def test_reason_has_an_end(staff):
    client = staff(*MAY)
    answer = send(client, choose(client, make_orders(1)), reason="x" * 501)
    assert answer.status_code == 422
    assert not Run.objects.exists()


@pytest.mark.parametrize("forged", ["", "x", "a:b:c", "\x00", "é" * 50])
def test_forged_selection_starts_nothing(staff, forged):
    client = staff(*MAY)
    answer = client.post(START, {**GOOD, "selection": forged})
    assert answer["Location"] == ORDERS
    assert texts(client) == ["This form has expired. Select again."]
    assert not Run.objects.exists()


def test_selection_belongs_to_its_user_and_function(staff, admin_client):
    @durable.function(id="shop.other", admin_action=Order)
    def other(ctx):
        return None

    client = staff(*MAY)
    asked = choose(admin_client, make_orders(1))
    send(client, asked)
    mine = choose(client, Order.objects.all())
    client.post(START.replace("refund_order", "other"), {"selection": chosen_of(mine)})
    assert not Run.objects.exists()


@pytest.fixture(autouse=True)
def _only_here(durable_kit):
    """Forget the functions of a test when it ends."""


def test_form_gets_too_old(staff, monkeypatch):
    client = staff(*MAY)
    asked = choose(client, make_orders(1))
    monkeypatch.setattr(signed_selection, "MAX_AGE", -1)
    send(client, asked)
    assert not Run.objects.exists()


def test_filters_of_the_list_are_kept_on_return(staff):
    client = staff(*MAY)
    address = f"{ORDERS}?status__exact=new"
    answer = send(client, choose(client, make_orders(1), address))
    assert answer["Location"] == address


def test_objects_deleted_meanwhile_are_left_out(staff):
    client = staff(*MAY)
    gone, kept = make_orders(2)
    asked = choose(client, [gone, kept])
    gone.delete()
    send(client, asked)
    assert [run.data["pk"] for run in Run.objects.all()] == [kept.pk]
    assert "1 object no longer exists." in texts(client)


def test_empty_selection_is_a_message(staff):
    client = staff(*MAY)
    asked = choose(client, make_orders(1))
    Order.objects.all().delete()
    assert send(client, asked)["Location"] == ORDERS
    assert texts(client) == ["The selected objects no longer exist."]


def test_whole_list_can_be_chosen_up_to_a_number(staff, monkeypatch):
    monkeypatch.setattr(admin_actions, "MOST", 3)
    client = staff(*MAY)
    orders = make_orders(3)
    asked = choose(client, orders[:1], select_across="1")
    send(client, asked)
    assert Run.objects.count() == 3
    make_orders(1)
    answer = choose(client, orders[:1], select_across="1")
    assert answer.status_code == 302
    assert "at most 3 objects" in texts(client)[-1]
    assert Run.objects.count() == 3


def test_thousand_start_in_as_many_statements_as_a_few(staff):
    client = staff(*MAY)

    def costs(count):
        orders = make_orders(count)
        asked = choose(client, orders)
        with CaptureQueriesContext(connection) as captured:
            assert send(client, asked).status_code == 302
        return len(captured)

    costs(1)
    # SQLite inserts this number of values in two statements.
    pieces = 1 if connection.vendor == "sqlite" else 0
    assert costs(40) <= costs(2) + pieces
    make_orders(admin_actions.MOST - Order.objects.count())
    asked = choose(client, Order.objects.all()[:1], select_across="1")
    assert send(client, asked).status_code == 302
    assert Run.objects.filter(function="shop.refund_order").count() == 43 + 1000


def test_page_of_an_object_has_the_action_and_returns_to_it(staff):
    [order] = make_orders(1)
    client = staff(*MAY, "durable_jobs.view_run")
    page = Page(client.get(page_of(order)).content.decode())
    [tool] = page.links("/durable/start/")
    asked = client.get(tool)
    assert "Starts a run for 1 object" in Page(asked.content.decode()).text
    assert not Run.objects.exists()
    assert send(client, asked)["Location"] == page_of(order)
    [run] = durable.runs_for(order)
    assert page_of(run) in Page(client.get(page_of(order)).content.decode()).links()


@pytest.mark.parametrize("pk", ["", "0", "nonsense", "\x00", "9" * 40])
def test_missing_object_is_not_found(staff, pk):
    client = staff(*MAY)
    assert client.get(START, {"pk": pk}).status_code == 404


def test_object_hidden_from_the_list_cannot_be_selected(staff, monkeypatch):
    mine, other = make_orders(2)
    Order.objects.filter(pk=other.pk).update(tenant=Tenant.objects.create(name="Other"))
    own = type(admin.site.get_model_admin(Order))
    monkeypatch.setattr(
        own, "get_queryset", lambda self, request: Order.objects.filter(pk=mine.pk)
    )
    client = staff(*MAY)
    assert client.get(START, {"pk": other.pk}).status_code == 404
    send(client, choose(client, [mine, other]))
    assert [run.data["pk"] for run in Run.objects.all()] == [mine.pk]


def test_function_without_an_admin_action_is_not_found(staff):
    client = staff(*MAY)
    for name in ("shop.fulfil_order", "nothing", "a/b", "%00"):
        answer = client.get(f"/admin/shop/order/durable/start/{name}/?pk=1")
        assert answer.status_code == 404


def test_function_without_an_input_asks_only_for_a_reason(staff, durable_kit):
    @durable.function(id="shop.touch", name="100% touched", admin_action="shop.order")
    def touch(ctx):
        return [ctx.instance.pk, ctx.event.data["pk"]]

    [order] = make_orders(1)
    client = staff(*MAY)
    assert "100% touched" in client.get(ORDERS).content.decode()
    data = {"action": "durable:shop.touch", "_selected_action": [order.pk]}
    asked = client.post(ORDERS, data)
    address = START.replace("refund_order", "touch")
    client.post(address, {"selection": chosen_of(asked)})
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == [order.pk, order.pk]


def test_functions_own_idempotency_counts(staff):
    @durable.function(id="shop.once", admin_action=Order, idempotency="event.data.pk")
    def once(ctx):
        return None

    client = staff(*MAY)
    [order] = make_orders(1)
    data = {"action": "durable:shop.once", "_selected_action": [order.pk]}
    address = START.replace("refund_order", "once")
    for _ in range(2):
        client.post(address, {"selection": chosen_of(client.post(ORDERS, data))})
    assert Run.objects.count() == 1
    assert LogEntry.objects.count() == 2
    assert "already has a run from this form" in texts(client)[-1]


def test_start_of_several_is_all_or_none(staff, monkeypatch):
    client = staff(*MAY)
    asked = choose(client, make_orders(2))

    def fail(*args):
        raise RuntimeError("the log is broken")

    monkeypatch.setattr(audit, "write_all", fail)
    with pytest.raises(RuntimeError):
        send(client, asked)
    assert not Run.objects.exists()
    monkeypatch.undo()
    send(client, asked)
    assert Run.objects.count() == 2


def test_too_large_data_is_reported_above_the_form(staff, settings):
    settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": 20}
    client = staff(*MAY)
    answer = send(client, choose(client, make_orders(1)))
    assert answer.status_code == 422
    assert "MAX_EVENT_BYTES" in answer.content.decode()
    assert not Run.objects.exists()


def test_get_changes_nothing_and_other_methods_start_nothing(staff):
    client = staff(*MAY)
    asked = choose(client, make_orders(1))
    values = {**GOOD, "selection": chosen_of(asked)}
    client.get(START, values)
    client.put(START, values)
    client.delete(START)
    assert not Run.objects.exists()


def test_form_of_another_place_is_refused(staff):
    asked = choose(staff(*MAY), make_orders(1))
    stranger = Client(enforce_csrf_checks=True)
    stranger.force_login(User.objects.get(username="ann"))
    assert send(stranger, asked).status_code == 403
    assert not Run.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="has one connection")
def test_form_sent_twice_at_the_same_moment_starts_once(staff):
    client = staff(*MAY)
    asked = choose(client, make_orders(3))
    other = Client()
    other.force_login(User.objects.get(username="ann"))
    answers = together(lambda: send(client, asked), lambda: send(other, asked))
    assert [answer.status_code for answer in answers] == [302, 302]
    assert Run.objects.count() == 3
    assert LogEntry.objects.count() == 6


def test_names_that_need_another_row_cost_no_query_each(staff, monkeypatch):
    monkeypatch.setattr(Order, "__str__", lambda self: f"order of {self.tenant}")
    client = staff(*MAY)
    asked = choose(client, make_orders(10))
    with CaptureQueriesContext(connection) as captured:
        send(client, asked)
    tenants = [q for q in captured if 'FROM "shop_tenant"' in q["sql"]]
    assert tenants == []
    assert LogEntry.objects.filter(object_repr="order of Acme").count() == 10


ROLES = {
    "a stranger": None,
    "a customer": (),
    "staff": (),
    "staff who may see orders": ("shop.view_order",),
    "staff who may start runs": ("durable_jobs.start_run",),
    "staff who may change orders": ("shop.change_order", "durable_jobs.view_run"),
    "staff who may do both": MAY,
}
#: For each role: the page of an object, a start, the list's action.
ANSWERS = {
    "a stranger": ("login", "login", "login"),
    "a customer": ("login", "login", "login"),
    "staff": (403, 403, 403),
    "staff who may see orders": (403, 403, "nothing"),
    "staff who may start runs": ("nothing", "nothing", 403),
    "staff who may change orders": (403, 403, "nothing"),
    "staff who may do both": (200, "started", 200),
}


def answered(response):
    if response.status_code == 302:
        return "login" if "/login/" in response["Location"] else "nothing"
    asks = response.status_code != 200 or b'name="selection"' in response.content
    return response.status_code if asks else "nothing"


@pytest.mark.parametrize("role", ROLES)
def test_roles_get_what_they_may(role):
    [order] = make_orders(1)
    user = User.objects.create_user("ann", is_staff=role.startswith("staff"))
    for name in ROLES[role] or ():
        app, _, codename = name.partition(".")
        user.user_permissions.add(
            Permission.objects.get(codename=codename, content_type__app_label=app)
        )
    client = Client()
    if role != "a stranger":
        client.force_login(user)
    place = "admin:shop.order:shop.refund_order"
    request = RequestFactory().get("/")
    request.user = user
    chosen = signed_selection.SignedSelection.new([order.pk], ORDERS).signed(
        request, place
    )
    page, start, action = ANSWERS[role]
    assert answered(client.get(START, {"pk": order.pk})) == page
    assert answered(choose(client, [order])) == action
    sent = answered(client.post(START, {**GOOD, "selection": chosen}))
    assert sent == ("nothing" if start == "started" else start)
    assert Run.objects.exists() == (start == "started")
