"""Examples of docs/how-to/approvals.md."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core import mail
from django.test import RequestFactory

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.docs.examples import an_order, section


@section("Ask with a form")
def test_ask_with_a_form(run_example, kit):
    run_example()

    def ask():
        durable.send("shop/refund.requested", {"order": an_order()})
        kit.run_until_idle()
        return Run.objects.order_by("-pk").first()

    def ended(run):
        kit.run_until_idle()
        run.refresh_from_db()
        return run.result()

    run = ask()
    with pytest.raises(durable.InvalidForm) as invalid:
        kit.approve("manager", {"amount": "-1"})
    assert set(invalid.value.errors) == {"amount"}
    kit.approve("manager", {"amount": "9.50"})
    assert ended(run) == "9.50 given back"
    run = ask()
    ann = User.objects.create_user("ann")
    ann.user_permissions.add(Permission.objects.get(codename="change_order"))
    kit.reject("manager", "it was a gift", by=ann)
    assert ended(run) == "refused: it was a gift"
    detail = run.steps.get(name="manager").detail
    assert (detail["decision"], detail["by"], detail["name"]) == (
        "rejected",
        str(ann.pk),
        "ann",
    )
    assert detail["at"] == kit.now().isoformat()
    run = ask()
    kit.advance("7d")
    assert ended(run) == "no decision"


@section("Decide on a page of your own")
def test_decide_on_a_page_of_your_own(run_example, shop):
    run_example()

    @durable.function
    def refund(ctx):
        title = "Refund order 7"
        return ctx.step.approve("owner", title=title, permission="shop.change_order")

    with Kit() as kit:
        bea = User.objects.create_user("bea")
        bea.user_permissions.add(Permission.objects.get(codename="change_order"))
        bea = User.objects.get(pk=bea.pk)
        run = refund.enqueue()
        kit.run_until_idle()
        request = RequestFactory().post("/", {"reject": "1"})
        request.user = bea
        assert shop.inbox(request).content == b"Refund order 7"
        refused = shop.decide(request, run.pk)
        assert (refused.status_code, refused.content[:8]) == (422, b"{'note':")
        request.user = User.objects.create_user("eve")
        assert shop.inbox(request).content == b""
        assert shop.decide(request, run.pk).status_code == 403
        request = RequestFactory().post("/", {})
        request.user = bea
        assert shop.decide(request, run.pk).content == b"done"
        assert shop.decide(request, run.pk).content == b"decided by another"
        kit.run_until_idle()
        run.refresh_from_db()
        assert run.result() == {}
    shop.request = request


@section("Where people decide")
def test_where_people_decide(run_example, shop, kit):
    run_example()
    run = shop.close_shop.enqueue()
    kit.run_until_idle()
    assert "/admin/" in mail.outbox[0].body
    kit.approve("managers")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "closed"


@section("More than one decision")
def test_more_than_one_decision(run_example, shop, kit):
    run_example()
    run = shop.publish.enqueue()
    kit.run_until_idle()
    kit.approve("lawyer")
    kit.approve("editor")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["editor", "lawyer"]
    run = shop.publish.enqueue()
    kit.run_until_idle()
    kit.reject("lawyer")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["dropped"]
