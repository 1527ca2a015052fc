"""The inbox of approvals, and the page where one is decided."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.admin import inbox
from durable_jobs.control import acting, approving
from durable_jobs.models import Run, Wait
from durable_jobs.queries import approvals
from project.shop.models import Order, Tenant
from tests.admin.conftest import Page, list_of, page_of
from tests.admin.test_escaping import EVIL, check
from tests.lab.threads import together

pytestmark = pytest.mark.django_db

INBOX = reverse("admin:durable_jobs_approvals")
FIELDS = ("input", "textarea", "select", "button")

Ask = Callable[..., Run]


class PayForm(forms.Form):
    """What is paid, and why."""

    amount = forms.DecimalField(max_value=100, help_text="in euros")
    reason = forms.CharField(required=False)


class EvilForm(forms.Form):
    """Markup wherever a form may bring it."""

    evil = forms.CharField(label=EVIL, help_text="plain", initial=EVIL)

    def clean(self) -> Any:
        """Refuse with markup."""
        raise forms.ValidationError(EVIL)

    def clean_evil(self) -> Any:
        """Refuse with markup at the field."""
        raise forms.ValidationError(EVIL)


class DatedForm(forms.Form):
    """A form with a script of its own."""

    on = forms.DateField()

    class Media:
        js = ("shop/calendar.js",)


@pytest.fixture
def ask(durable_kit) -> Ask:
    """Let a run ask; return it."""

    @durable.function(id="tests.ask")
    def asking(ctx):
        try:
            given = ctx.step.approve("may we", **how[ctx.event.data["n"]])
        except durable.Rejected as rejected:
            return f"{rejected.by}: {rejected.reason}"
        return None if given is None else {k: str(v) for k, v in given.items()}

    def begin(title="Pay 7", permission="shop.change_order", about=None, **more) -> Run:
        how.append({"title": title, "permission": permission, **more})
        run = asking.enqueue({"n": len(how) - 1, "about": about})
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "waiting", run.error
        return run

    how: list[dict[str, Any]] = []
    return begin


@pytest.fixture
def login(db) -> Callable[..., Client]:
    """Log in a member of the staff who has the permissions that are named."""

    def enter(*codenames: str, name: str = "ann", staff: bool = True) -> Client:
        user = User.objects.create_user(name, is_staff=staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return enter


def place_of(run: Run) -> str:
    """Return the address where a run's approval is decided."""
    return reverse("admin:durable_jobs_approval", args=[run.pk, run.steps.get().key])


def show(client: Client, address: str = INBOX) -> Page:
    response = client.get(address)
    assert response.status_code == 200, (address, response.status_code)
    return Page(response.content.decode())


def outcome(durable_kit, run: Run) -> Any:
    durable_kit.run_until_idle()
    run.refresh_from_db()
    return run.result()


# Who sees what


def test_the_inbox_lists_what_its_viewer_may_decide_the_oldest_first(ask, login):
    first, foreign = ask("Pay 1"), ask("Delete 2", "shop.delete_order")
    last = ask("Pay 3")
    page = show(login("change_order"))
    assert page.links("/approvals/")[-2:] == [place_of(first), place_of(last)]
    assert place_of(foreign) not in page.links()
    assert "Delete 2" not in page.text
    assert page.text.index("Pay 1") < page.text.index("Pay 3")


def test_a_superuser_sees_all_of_them(ask, get):
    runs = [ask("Pay 1"), ask("Delete 2", "shop.delete_order")]
    assert {place_of(run) for run in runs} <= set(get(INBOX).links())


def test_who_may_decide_nothing_sees_nothing(ask, login):
    ask("Pay 1")
    page = show(login("view_order", "view_run", "answer_run"))
    assert "Pay 1" not in page.text
    assert "Nothing waits for a decision of yours" in page.text


def test_who_is_no_staff_gets_in_nowhere(ask, login):
    run = ask()
    client = login("change_order", staff=False)
    for address in (INBOX, place_of(run)):
        assert client.get(address).status_code == 302
        assert client.post(address, {"_approve": "1"}).status_code == 302
    assert run.steps.get().status == "waiting"


@pytest.mark.parametrize("codenames", [(), ("view_run", "answer_run", "change_tenant")])
def test_who_lacks_the_permission_is_refused(ask, login, codenames):
    run = ask()
    client = login(*codenames)
    assert client.get(place_of(run)).status_code == 403
    for button in ("_approve", "_reject"):
        posted = client.post(place_of(run), {button: "1", "reason": "no"})
        assert posted.status_code == 403
    assert run.steps.get().status == "waiting"


def test_a_permission_for_one_run_is_enough_for_that_one(ask, login, settings):
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
    """Everybody may change the orders of the runs that bear the own name."""

    def authenticate(self, request: Any) -> None:
        """Know nobody."""

    def get_user(self, pk: Any) -> Any:
        """Return a user."""
        return User.objects.filter(pk=pk).first()

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        """Tell whether a run bears the name of a user."""
        if permission != "shop.change_order" or not isinstance(obj, Run):
            return False
        return bool(Run.objects.get(pk=obj.pk).data["about"] == user.username)


def test_a_tab_leads_there_for_those_for_whom_something_waits(ask, login):
    clerk, other = login("change_order", name="a"), login("delete_order", name="b")
    reader = login("view_run", "view_event", name="c")
    assert INBOX not in show(clerk).links()
    ask()
    assert INBOX in show(clerk).links()
    assert INBOX not in show(other).links()
    assert INBOX in show(reader, list_of("event")).links()


def test_the_run_leads_there_for_those_who_may_decide(ask, login):
    run = ask()
    for client, leads in (
        (login("view_run", "view_step", name="a"), False),
        (login("view_run", "view_step", "change_order", name="b"), True),
    ):
        for address in (page_of(run), page_of(run.steps.get())):
            page = show(client, address)
            assert "waits for an approval that needs shop.change_order" in page.text
            assert (place_of(run) in page.links()) is leads


# What is shown


def test_it_tells_what_is_asked_about_what_and_for_how_long(ask, login):
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


def test_it_links_to_nothing_that_its_viewer_may_not_see(ask, login):
    order = Order.objects.create(tenant=Tenant.objects.create(name="a"), total=1)
    run = ask(about=order, permission="auth.change_user")
    for address in (INBOX, place_of(run)):
        page = show(login("change_user", name=address[-9:]), address)
        assert not page.links("/run/01")
        assert page_of(order) not in page.links()
        assert f"shop.order {order.pk}" in page.text


def test_the_data_of_the_run_is_for_those_who_may_see_payloads(ask, login):
    run = ask(about="a secret")
    clerk = login("change_order", "view_run", name="a")
    assert "a secret" not in show(clerk, place_of(run)).source
    reader = login("change_order", "view_run", "view_payload", name="b")
    assert "a secret" in show(reader, place_of(run)).source


def test_the_ids_of_the_two_forms_do_not_collide(ask, login):
    page = show(login("change_order"), place_of(ask(form=PayForm)))
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))


def test_a_form_brings_its_own_scripts(ask, login):
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
    # The message in the inbox, and what became of it on its pages.
    for address in (INBOX, page_of(run), page_of(run.steps.get())):
        check(show(admin_client, address))


# Deciding


def test_who_approves_gives_the_run_what_the_form_made_of_it(ask, login, durable_kit):
    run = ask(form=PayForm)
    client = login("change_order")
    response = client.post(
        place_of(run),
        {"_approve": "1", "amount": "7.50", "reason": "late"},
        follow=True,
    )
    assert response.redirect_chain == [(INBOX, 302)]
    page = Page(response.content.decode())
    assert "“Pay 7” was approved." in page.text
    assert place_of(run) not in page.links()
    assert outcome(durable_kit, run) == {"amount": "7.50", "reason": "late"}
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.user.username == "ann"
    assert entry.get_change_message() == "“Pay 7” approved."


def test_without_a_form_a_button_is_enough(ask, login, durable_kit):
    run = ask()
    login("change_order").post(place_of(run), {"_approve": "Approve"})
    assert outcome(durable_kit, run) == {}


def test_what_does_not_validate_is_said_at_the_fields_and_kept(ask, login):
    run = ask(form=PayForm)
    client = login("change_order")
    data = {"_approve": "1", "amount": "101", "reason": "kept"}
    response = client.post(place_of(run), data)
    page = Page(response.content.decode())
    assert response.status_code == 422
    assert "Please correct the errors below." in page.text
    assert "less than or equal to 100" in page.text
    values = {attrs.get("id"): attrs.get("value") for _, attrs in page.tags}
    assert (values["id_amount"], values["id_reason"]) == ("101", "kept")
    assert run.steps.get().status == "waiting"
    assert not LogEntry.objects.exists()


def test_who_rejects_gives_a_reason(ask, login, durable_kit):
    run = ask(form=PayForm)
    client = login("change_order")
    response = client.post(place_of(run), {"_reject": "1", "reason": " "})
    assert "This field is required." in Page(response.content.decode()).text
    assert run.steps.get().status == "waiting"
    client.post(place_of(run), {"_reject": "1", "reason": "too much"})
    ann = User.objects.get(username="ann")
    assert outcome(durable_kit, run) == f"{ann.pk}: too much"
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.get_change_message() == "“Pay 7” rejected: too much"


@pytest.mark.parametrize("data", [{}, {"reason": "no"}, {"amount": "1"}])
def test_without_a_button_nothing_is_decided(ask, login, data):
    run = ask(form=PayForm)
    assert login("change_order").post(place_of(run), data).status_code == 422
    assert run.steps.get().status == "waiting"


def test_looking_decides_nothing(ask, login):
    run = ask()
    client = login("change_order")
    for button in ("_approve", "_reject"):
        client.get(place_of(run), {button: "1", "reason": "no"})
    assert run.steps.get().status == "waiting"


def test_a_decision_needs_the_token_of_the_page(ask, login):
    run = ask()
    client = login("change_order")
    client.handler.enforce_csrf_checks = True
    assert client.post(place_of(run), {"_approve": "1"}).status_code == 403
    token = show(client, place_of(run))
    values = [
        a["value"] for _, a in token.tags if a.get("name") == "csrfmiddlewaretoken"
    ]
    data = {"_approve": "1", "csrfmiddlewaretoken": values[0]}
    assert client.post(place_of(run), data).status_code == 302
    assert run.steps.get().status == "completed"


def test_pages_tell_who_decided(ask, login, durable_kit):
    client = login("change_order", "view_run", "view_step")
    for button, said in (
        ("_approve", "approved by ann"),
        ("_reject", "rejected by ann"),
    ):
        run = ask()
        client.post(place_of(run), {button: "1", "reason": "no"})
        durable_kit.run_until_idle()
        for address in (page_of(run), page_of(run.steps.get())):
            assert said in show(client, address).text, address


def test_who_may_answer_for_anything_may_not_decide(ask, login):
    run = ask()
    key = run.steps.get().key
    login("view_run", "view_payload", "answer_run")
    actor = acting.Actor(User.objects.get(username="ann"))
    with pytest.raises(durable.Refused):
        acting.act(actor, "answer", run, step=key, value={})
    assert run.steps.get().status == "waiting"


# Too late


def too_late(client: Client, run: Run, text: str) -> None:
    """See to it that neither looking nor deciding is more than a message."""
    address = place_of(run)
    for respond in (
        lambda: client.get(address, follow=True),
        lambda: client.post(address, {"_approve": "1"}, follow=True),
        lambda: client.post(address, {"_reject": "1", "reason": "no"}, follow=True),
    ):
        response = respond()
        assert response.redirect_chain == [(INBOX, 302)]
        assert text in Page(response.content.decode()).text


def test_who_comes_second_is_told_who_was_first(ask, login):
    run = ask()
    login("change_order", name="first").post(place_of(run), {"_approve": "1"})
    too_late(login("change_order"), run, "approved by first already")
    assert LogEntry.objects.filter(object_id=str(run.pk)).count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_at_the_same_moment_one_wins_and_the_other_is_told(
    ask, login, monkeypatch
):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer: races are tested on the database of record")
    run, both, settle = ask(), threading.Barrier(2), approving.settle

    def settling(*args):
        both.wait(30)  # neither has seen the other
        settle(*args)

    monkeypatch.setattr(approving, "settle", settling)
    ann, bob = (login("change_order", name=name) for name in ("ann", "bob"))
    address = place_of(run)
    came = together(
        lambda: ann.post(address, {"_approve": "1"}, follow=True),
        lambda: bob.post(address, {"_reject": "1", "reason": "no"}, follow=True),
    )
    texts = [Page(response.content.decode()).text for response in came]
    step = run.steps.get()
    decision, winner = step.detail["decision"], step.detail["name"]
    assert sorted(f"This was {decision} by {winner} already." in t for t in texts) == [
        False,
        True,
    ]
    assert sum(f"“Pay 7” was {decision}." in text for text in texts) == 1
    assert LogEntry.objects.get(object_id=str(run.pk)).user.username == winner


def test_a_run_that_was_cancelled_is_told_of(ask, login):
    run = ask()
    run.cancel()
    too_late(login("change_order"), run, "it was cancelled")


def test_a_time_that_is_over_is_told_of(ask, login, durable_kit):
    run = ask(timeout="1h")
    durable_kit.advance("1h")
    too_late(login("change_order"), run, "Nobody decided this in time")


def test_what_is_not_there_is_not_found(ask, login, admin_client):
    run = ask()
    address = place_of(run)
    other = ask("Other")
    places = [
        address.replace(str(run.pk), "00000000-0000-7000-8000-000000000000"),
        address.replace(run.steps.get().key, "0" * 40),
        f"{INBOX}nonsense/{run.steps.get().key}/",
        f"{INBOX}{run.pk}/",
    ]
    for place in places:
        assert admin_client.get(place, follow=True).status_code == 404, place
    for place in places[:2]:
        assert admin_client.post(place, {"_approve": "1"}).status_code == 404
    Run.objects.filter(pk=other.pk)._raw_delete("default")
    assert "Other" not in show(admin_client).text
    assert admin_client.get(place_of(run)).status_code == 200


def test_a_form_that_is_gone_from_the_code_can_only_be_rejected(
    ask, login, durable_kit, monkeypatch
):
    run = ask(form=PayForm)
    monkeypatch.delattr("tests.admin.test_approvals.PayForm")
    client = login("change_order")
    for respond, status in (
        (lambda: client.get(place_of(run)), 200),
        (lambda: client.post(place_of(run), {"_approve": "1", "amount": "1"}), 422),
    ):
        response = respond()
        page = Page(response.content.decode())
        assert response.status_code == status
        assert "cannot be approved now" in page.text
        assert "tests.admin.test_approvals has no such class" in page.text
        assert not [a for _, a in page.tags if a.get("name") == "_approve"]
    client.post(place_of(run), {"_reject": "1", "reason": "gone"})
    assert str(outcome(durable_kit, run)).endswith(": gone")


# How much it costs


def queries(client: Client, address: str) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        show(client, address)
    return [query["sql"] for query in captured]


def test_the_inbox_asks_as_often_for_many_as_for_few(ask, login):
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
    # The session, the viewer and the permissions; which are waited for, what waits,
    # its runs, what they are about, and until when.
    assert len(few) == 9, few
    for sql in many:
        columns = sql.partition(" FROM ")[0]
        assert '"data"' not in columns
        assert "COUNT(" not in sql


def test_the_inbox_goes_on_page_by_page(ask, login, monkeypatch):
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


def test_the_inbox_goes_on_where_each_run_is_asked_for(
    ask, login, monkeypatch, settings
):
    settings.AUTHENTICATION_BACKENDS = ["tests.admin.test_approvals.OwnRuns"]
    monkeypatch.setattr(inbox, "PAGE", 2)
    monkeypatch.setattr(inbox, "LOOKED_AT", 3)
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
def test_a_place_in_the_inbox_that_means_nothing_is_harmless(ask, login, after):
    ask()
    assert login("change_order").get(f"{INBOX}?after={after}").status_code == 200


def test_each_permission_that_is_waited_for_is_named_once(ask):
    for permission in ("shop.delete_order", "shop.change_order", "shop.delete_order"):
        ask(permission=permission)
    assert approvals.permissions() == ["shop.change_order", "shop.delete_order"]
    Wait.objects.all().delete()
    assert approvals.permissions() == []
