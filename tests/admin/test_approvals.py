"""The inbox of approvals, and the page of an approval."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from durable_jobs.control import inbox
from durable_jobs.models import Run, Wait
from durable_jobs.queries import approvals
from project.shop.models import Order, Tenant
from tests.admin.approving import (
    FIELDS,
    INBOX,
    DatedForm,
    EvilForm,
    PayForm,
    place_of,
    show,
)
from tests.admin.conftest import Page, list_of, page_of
from tests.admin.test_escaping import EVIL, check

pytestmark = pytest.mark.django_db


# Visibility


def test_inbox_lists_what_its_viewer_may_decide_the_oldest_first(ask, login):
    first, foreign = ask("Pay 1"), ask("Delete 2", "shop.delete_order")
    last = ask("Pay 3")
    page = show(login("change_order"))
    assert page.links("/approvals/")[-2:] == [place_of(first), place_of(last)]
    assert place_of(foreign) not in page.links()
    assert "Delete 2" not in page.text
    assert page.text.index("Pay 1") < page.text.index("Pay 3")


def test_superuser_sees_all_approvals(ask, get):
    runs = [ask("Pay 1"), ask("Delete 2", "shop.delete_order")]
    assert {place_of(run) for run in runs} <= set(get(INBOX).links())


def test_viewer_without_approvals_sees_none(ask, login):
    ask("Pay 1")
    page = show(login("view_order", "view_run", "answer_run"))
    assert "Pay 1" not in page.text
    assert "No approvals for you" in page.text


def test_non_staff_users_are_refused_everywhere(ask, login):
    run = ask()
    client = login("change_order", staff=False)
    for address in (INBOX, place_of(run)):
        assert client.get(address).status_code == 302
        assert client.post(address, {"_approve": "1"}).status_code == 302
    assert run.steps.get().status == "waiting"


@pytest.mark.parametrize("codenames", [(), ("view_run", "answer_run", "change_tenant")])
def test_user_without_the_permission_is_refused(ask, login, codenames):
    run = ask()
    client = login(*codenames)
    assert client.get(place_of(run)).status_code == 403
    for button in ("_approve", "_reject"):
        posted = client.post(place_of(run), {button: "1", "reason": "no"})
        assert posted.status_code == 403
    assert run.steps.get().status == "waiting"


def test_permission_for_one_run_is_enough_for_that_run(ask, login, settings):
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        "tests.admin.test_approvals.OwnRuns",
    ]
    mine, foreign = ask("Pay 1", about="ann"), ask("Pay 2", about="bob")
    client = login()
    links = show(client).links()
    assert place_of(mine) in links
    assert place_of(foreign) not in links
    assert client.get(place_of(mine)).status_code == 200
    assert client.post(place_of(foreign), {"_approve": "1"}).status_code == 403
    client.post(place_of(mine), {"_approve": "1"})
    assert mine.steps.get().status == "completed"


class OwnRuns:
    """Every user may change the orders of runs with their own name."""

    def authenticate(self, request: Any) -> None:
        """Authenticate no user."""

    def get_user(self, pk: Any) -> Any:
        """Return a user."""
        return User.objects.filter(pk=pk).first()

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        """Return whether a run bears the name of a user."""
        if permission != "shop.change_order" or not isinstance(obj, Run):
            return False
        return bool(Run.objects.get(pk=obj.pk).data["about"] == user.username)


def test_tab_of_the_inbox_is_shown_if_approvals_are_pending(ask, login):
    clerk, other = login("change_order", name="a"), login("delete_order", name="b")
    reader = login("view_run", "view_event", name="c")
    assert INBOX not in show(clerk).links()
    ask()
    assert INBOX in show(clerk).links()
    assert INBOX not in show(other).links()
    assert INBOX in show(reader, list_of("event")).links()


def test_run_links_to_its_approval_for_users_who_may_decide(ask, login):
    run = ask()
    for client, leads in (
        (login("view_run", "view_step", name="a"), False),
        (login("view_run", "view_step", "change_order", name="b"), True),
    ):
        for address in (page_of(run), page_of(run.steps.get())):
            page = show(client, address)
            assert "waits for approval by shop.change_order" in page.text
            assert (place_of(run) in page.links()) is leads


# Content


def test_approval_shows_request_subject_and_timeout(ask, login):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)
    run = ask("Pay order 7", about=order, form=PayForm, timeout="2h")
    client = login("change_order", "view_run")
    for address in (INBOX, place_of(run)):
        page = show(client, address)
        for text in ("Pay order 7", "tests.ask", f"shop.order {order.pk}", "in 2 h"):
            assert text in page.text, text
        assert page_of(order) in page.links()
        assert page_of(run) in page.links()
    assert "in euros" in page.text
    names = [attrs.get("name") for tag, attrs in page.tags if tag in FIELDS]
    assert {"amount", "reason", "_approve", "_reject"} <= set(names)


def test_approval_links_only_to_pages_its_viewer_may_see(ask, login):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)
    run = ask(about=order, permission="auth.change_user")
    for address in (INBOX, place_of(run)):
        page = show(login("change_user", name=address[-9:]), address)
        assert not page.links("/run/01")
        assert page_of(order) not in page.links()
        assert f"shop.order {order.pk}" in page.text


def test_data_of_the_run_needs_the_permission_for_payloads(ask, login):
    run = ask(about="a secret")
    clerk = login("change_order", "view_run", name="a")
    assert "a secret" not in show(clerk, place_of(run)).source
    reader = login("change_order", "view_run", "view_payload", name="b")
    assert "a secret" in show(reader, place_of(run)).source


def test_ids_of_the_two_forms_do_not_collide(ask, login):
    page = show(login("change_order"), place_of(ask(form=PayForm)))
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_form_brings_its_own_scripts(ask, login):
    page = show(login("change_order"), place_of(ask(form=DatedForm)))
    scripts = [attrs.get("src") or "" for tag, attrs in page.tags if tag == "script"]
    assert any(one.endswith("shop/calendar.js") for one in scripts)


def test_markup_in_titles_forms_and_errors_is_text(ask, admin_client):
    run = ask(EVIL, form=EvilForm)
    check(show(admin_client))
    check(show(admin_client, place_of(run)))
    for data in ({"_approve": "1", "evil": EVIL}, {"_reject": "1", "reason": ""}):
        response = admin_client.post(place_of(run), data)
        assert response.status_code == 422
        check(Page(response.content.decode()))
    admin_client.post(place_of(run), {"_reject": "1", "reason": EVIL})
    # The message in the inbox, and the run on its pages.
    for address in (INBOX, page_of(run), page_of(run.steps.get())):
        check(show(admin_client, address))


# Queries


def queries(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        show(client, address)
    return [query["sql"] for query in captured]


def test_inbox_asks_as_often_for_many_as_for_few(ask, login):
    def several(count):
        for number in range(count):
            order = Order.objects.create(tenant=tenant, total=1)
            permission = ("shop.change_order", "shop.delete_order")[number % 2]
            ask(permission=permission, about=order, timeout="1h")

    tenant = Tenant.objects.create(name="a")
    client = login("change_order", "delete_order", "view_run")
    several(1)
    few = queries(client, INBOX)
    several(5)
    many = queries(client, INBOX)
    assert len(many) == len(few)
    # The session, the viewer and the permissions; which approvals, the waiting ones,
    # their runs, subjects and timeouts.
    assert len(few) == 9, few
    for sql in many:
        columns = sql.partition(" FROM ")[0]
        assert '"data"' not in columns
        assert "COUNT(" not in sql


def test_inbox_is_paginated(ask, login, monkeypatch):
    monkeypatch.setattr(inbox, "PAGE", 2)
    runs = [ask(f"Pay {number}") for number in range(5)]
    client = login("change_order")
    seen, address = [], INBOX
    for _ in range(3):
        page = show(client, address)
        seen += [href for href in page.links("/approvals/") if href != INBOX]
        older = page.links("?after=")
        address = f"{INBOX}{older[0]}" if older else ""
    assert seen == [place_of(run) for run in runs]
    assert not address


def test_inbox_with_permissions_per_run_is_paginated(ask, login, monkeypatch, settings):
    settings.AUTHENTICATION_BACKENDS = ["tests.admin.test_approvals.OwnRuns"]
    monkeypatch.setattr(inbox, "PAGE", 2)
    monkeypatch.setattr(inbox, "MAX_CHECKED", 3)
    runs = [ask(about="ann" if number % 3 else "bob") for number in range(9)]
    client = Client()
    user = User.objects.create_user("ann", is_staff=True)
    client.force_login(user, "tests.admin.test_approvals.OwnRuns")
    seen, address, pages = [], INBOX, 0
    while address and pages < 20:
        pages += 1
        page = show(client, address)
        seen += [href for href in page.links("/approvals/") if href != INBOX]
        older = page.links("?after=")
        address = f"{INBOX}{older[0]}" if older else ""
    assert seen == [place_of(run) for n, run in enumerate(runs) if n % 3]


@pytest.mark.parametrize("after", ["x", "-1", "9" * 30, "9" * 19, "%00", "²", ""])
def test_invalid_page_of_the_inbox_is_harmless(ask, login, after):
    ask()
    assert login("change_order").get(f"{INBOX}?after={after}").status_code == 200


def test_each_permission_that_is_waited_for_is_named_once(ask):
    for permission in ("shop.delete_order", "shop.change_order", "shop.delete_order"):
        ask(permission=permission)
    assert approvals.permissions() == ["shop.change_order", "shop.delete_order"]
    Wait.objects.all().delete()
    assert approvals.permissions() == []
