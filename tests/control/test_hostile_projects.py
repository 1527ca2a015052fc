"""Failing project code undoes no action, and fails no step of the engine."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.test import Client
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.control import approval_decisions, authorized_actions
from durable_jobs.control.actor import Actor
from durable_jobs.control.run_actions import ACTIONS, act
from durable_jobs.exceptions import PayloadError
from durable_jobs.models import (
    ApiKey,
    FailedAttempt,
    Run,
    SavedView,
    Schedule,
    Subject,
    Wait,
)
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.admin.conftest import list_of, page_of
from tests.control.hostile import (
    HOSTS,
    LOG,
    BreakingBackend,
    FailingBackend,
    ask_nonsense,
    fail,
    in_place,
    transaction_is_whole,
)

pytestmark = pytest.mark.django_db

BACKENDS = {
    "fails": f"{FailingBackend.__module__}.{FailingBackend.__qualname__}",
    "breaks": f"{BreakingBackend.__module__}.{BreakingBackend.__qualname__}",
}


@pytest.fixture
def root(db: None) -> Actor:
    """Return a superuser."""
    return Actor(User.objects.create_superuser("root"))


@pytest.fixture
def client(root: Actor) -> Client:
    """Log the same user in."""
    found = Client()
    found.force_login(root.user)
    return found


@pytest.fixture
def order(db: None) -> Order:
    """Create an instance of a project model."""
    return Order.objects.create(tenant=Tenant.objects.create(name="Ann"), total=1)


def run_for(action: str, kit: Kit, order: Order) -> tuple[Run, dict[str, Any]]:
    """Return a run about an order on which the action is possible, and its values."""

    @durable.function(id="tests.hostile", retries=0)
    def hostile(ctx):
        if action == "redrive":
            raise ValueError("on purpose")
        if action == "retry":
            ctx.step.run("again", fail, retries=3, backoff=durable.Backoff.fixed("1h"))
        if action == "answer":
            ctx.step.wait_for_signal("word", "tests.word", timeout="1d")
        ctx.step.sleep("nap", "30d")

    run = hostile.enqueue({"order": order})
    kit.run_until_idle()
    if action == "resume":
        run.pause()
    run.refresh_from_db()
    values: dict[str, Any] = {}
    if action == "answer":
        values = {"step": run.steps.get().key, "value": 1}
    return run, values


def subject_of(run: Run, order: Order) -> None:
    """Link a run to an order."""
    Subject.objects.get_or_create(run=run, model="shop.order", object_pk=str(order.pk))


def row_of(run: Run) -> list[Any]:
    """Return the stored columns of a run and of its waits."""
    waits = Wait.objects.filter(run=run).order_by("pk").values()
    return [Run.objects.filter(pk=run.pk).values().get(), *waits]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_action_is_done_whatever_the_project_does(
    action: str,
    host: str,
    root: Actor,
    order: Order,
    durable_kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, values = run_for(action, durable_kit, order)
    subject_of(run, order)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    before = row_of(run)
    with in_place(host, monkeypatch):
        done = act(root, action, run, reason="why", **values)
        assert done.run is not None or row_of(run) != before
        assert transaction_is_whole()
        durable_kit.run_until_idle()
    written = LogEntry.objects.filter(object_id__in=[str(run.pk), str(order.pk)])
    if host == LOG:
        assert not written.exists()
        assert "Could not write the admin's log" in caplog.text
    else:
        assert {row.object_id for row in written} == {str(run.pk), str(order.pk)}


def test_entry_of_an_instance_without_a_name_names_its_model_and_key(
    root: Actor, order: Order, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = run_for("cancel", durable_kit, order)
    subject_of(run, order)
    monkeypatch.setattr(Order, "__str__", fail)
    act(root, "cancel", run)
    entry = LogEntry.objects.get(object_id=str(order.pk))
    assert entry.object_repr == f"<shop.Order {order.pk}>"


@pytest.mark.parametrize("host", [host for host in HOSTS if host != LOG])
def test_pages_are_shown_whatever_the_project_does(
    host: str,
    client: Client,
    order: Order,
    durable_kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, _ = run_for("cancel", durable_kit, order)
    subject_of(run, order)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    pages = [
        list_of("run"),
        page_of(run),
        *(page_of(step) for step in run.steps.all()),
        list_of("step"),
        list_of("event"),
        list_of("schedule"),
        reverse("admin:durable_jobs_overview"),
        reverse("admin:durable_jobs_queues"),
        reverse("admin:durable_jobs_functions"),
        reverse("admin:durable_jobs_approvals"),
        reverse("admin:durable_jobs_apikey_changelist"),
        reverse("admin:durable_jobs_run_act", args=[run.pk, "cancel"]),
    ]
    with in_place(host, monkeypatch):
        found = {address: client.get(address).status_code for address in pages}
        assert transaction_is_whole()
    assert set(found.values()) == {200}, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_failing_permission_backend_allows_nothing(
    backend: str,
    client: Client,
    order: Order,
    durable_kit: Kit,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, _ = run_for("cancel", durable_kit, order)
    ann = User.objects.create_user("ann", is_staff=True)
    settings.AUTHENTICATION_BACKENDS = [BACKENDS[backend]]
    client.force_login(ann)
    for action in ACTIONS:
        with pytest.raises(PermissionDenied), transaction.atomic():
            act(Actor(User.objects.get(pk=ann.pk)), action, run, step="x")
    addresses = [
        page_of(run),
        list_of("run"),
        list_of("event"),
        reverse("admin:durable_jobs_overview"),
        reverse("admin:durable_jobs_queues"),
        reverse("admin:durable_jobs_export") + "?format=csv",
        reverse("durable_jobs:api:list_runs"),
    ]
    assert {one: client.get(one).status_code for one in addresses} == dict.fromkeys(
        addresses, 403
    )
    assert transaction_is_whole()
    assert "The permission is denied" in caplog.text
    run.refresh_from_db()
    assert run.status == "waiting"


def test_engine_continues_whatever_receivers_django_calls(
    root: Actor, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    @durable.function(
        id="tests.many",
        retries=2,
        on=durable.Cron("0 3 * * *"),
        timeouts=durable.Timeouts(start="1d", finish="1h"),
    )
    def many(ctx):
        def flaky():
            if not FailedAttempt.objects.exists():
                raise ValueError("once")
            return 1

        ctx.step.run("flaky", flaky, retries=2, backoff=durable.Backoff.fixed("1s"))
        ctx.step.sleep("long", "5d")

    with in_place("receivers of all that Django saves", monkeypatch):
        run = many.enqueue({})
        durable_kit.run_until_idle()
        durable_kit.advance(timedelta(hours=2))
        key = ApiKey.objects.count()
        authorized_actions.pause_function(root, many, reason="why")
    run.refresh_from_db()
    assert (run.status, FailedAttempt.objects.count(), key) == ("cancelled", 1, 0)
    assert Schedule.objects.filter(function="tests.many").exists()


def test_saved_view_is_stored_and_deleted_whatever_receivers_django_calls(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = reverse("admin:durable_jobs_saved_views")
    with in_place("receivers of all that Django saves", monkeypatch):
        client.post(address, {"name": "mine", "query": "status=failed"})
        client.post(address, {"name": "mine", "query": "status=paused"})
        (view,) = SavedView.objects.all()
        assert view.query == "status=paused"
        client.post(address, {"delete": str(view.pk)})
    assert not SavedView.objects.exists()


# Forms


class FailingForm(forms.Form):
    """A form whose own code fails where a class attribute says so."""

    amount = forms.IntegerField()
    where = "clean"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.where == "init":
            ask_nonsense()

    def clean(self) -> Any:
        """Break the transaction."""
        if self.where == "clean":
            ask_nonsense()
        return super().clean()

    def __getitem__(self, name: str) -> Any:
        if self.where == "show":
            ask_nonsense()
        return super().__getitem__(name)


def asking(kit: Kit, order: Order) -> Run:
    """Start a run that asks for an approval with the failing form."""

    @durable.function(id="tests.asks")
    def asks(ctx):
        return ctx.step.approve(
            "boss", title="Pay?", permission="shop.change_order", form=FailingForm
        )

    run = asks.enqueue({"order": order})
    kit.run_until_idle()
    return run


@pytest.mark.parametrize("where", ["init", "clean", "show"])
def test_failing_form_is_reported_and_its_approval_can_be_rejected(
    where: str,
    client: Client,
    order: Order,
    durable_kit: Kit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = asking(durable_kit, order)
    monkeypatch.setattr(FailingForm, "where", where)
    address = reverse("admin:durable_jobs_approval", args=[run.pk, run.steps.get().key])
    shown = client.get(address)
    posted = client.post(address, {"_approve": "1", "amount": "x"})
    assert shown.status_code == 200
    assert ("FailingForm failed" in shown.content.decode()) == (where != "clean")
    assert posted.status_code == 422
    assert "FailingForm failed: " in posted.content.decode()
    assert transaction_is_whole()
    assert client.post(address, {"_reject": "1", "reason": "no"}).status_code == 302
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "failed"


def test_failing_form_leaves_the_approval_open(
    root: Actor, order: Order, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asking(durable_kit, order)
    key = run.steps.get().key
    with pytest.raises(PayloadError, match="FailingForm failed"):
        approval_decisions.approve(root, run, key, {"amount": "1"})
    monkeypatch.setattr(FailingForm, "where", "")
    approval_decisions.approve(root, run, key, {"amount": "1"})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"amount": 1}


def test_decider_without_a_name_is_described(
    root: Actor, order: Order, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = asking(durable_kit, order)
    monkeypatch.setattr(User, "get_username", fail)
    monkeypatch.setattr(User, "__str__", fail)
    approval_decisions.reject(root, run, run.steps.get().key, "no")
    detail = run.steps.get().detail
    assert detail["name"] == f"<auth.User {root.user.pk}>"
