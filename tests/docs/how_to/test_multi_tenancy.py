"""Examples of docs/how-to/multi-tenancy.md."""

from __future__ import annotations

from types import SimpleNamespace

from django.contrib.auth.models import Group, User

from durable_jobs import durable
from durable_jobs.models import Run
from project.shop.models import Tenant
from tests.docs.examples import section


def two_tenants() -> tuple[Tenant, Tenant]:
    """Save two tenants."""
    return Tenant.objects.create(name="Acme"), Tenant.objects.create(name="Globex")


@section("Give each run its tenant")
def test_runs_are_linked_to_their_tenant(run_example, shop, kit):
    run_example()
    acme, globex = two_tenants()
    shop.request_report(acme)
    kit.run_until_idle()
    assert durable.runs_for(acme).count() == 2
    assert not durable.runs_for(globex).exists()
    assert Run.objects.get(function="shop.report").result() == "report of Acme"


@section("Limit each tenant")
def test_limits_are_per_tenant(run_example, kit):
    run_example()
    acme, globex = two_tenants()
    for tenant in (acme, acme, globex):
        kit.send("shop/import.requested", {"tenant": tenant})
    kit.run_until_idle()
    statuses = [run.status for run in durable.runs_for(acme).order_by("pk")]
    assert statuses == ["waiting", "queued"]
    assert durable.runs_for(globex).get().status == "waiting"


@section("Pause a tenant")
def test_pause_holds_one_tenant(run_example, shop, kit):
    run_example()
    acme, globex = two_tenants()
    shop.suspend_account(acme)
    for tenant in (acme, globex):
        kit.send("shop/mail.requested", {"tenant": tenant})
    kit.run_until_idle()
    assert durable.runs_for(acme).get().status == "queued"
    assert durable.runs_for(globex).get().status == "completed"
    shop.restore_account(acme)
    kit.run_until_idle()
    assert durable.runs_for(acme).get().status == "completed"


@section("Show each user their tenant")
def test_rule_shows_the_runs_of_a_users_tenants(run_example, shop, kit):
    run_example()
    run_example()

    @durable.function(id="docs.tenant", on=durable.Event("docs/asked"))
    def asked(ctx: durable.Context) -> None: ...

    acme, globex = two_tenants()
    for tenant in (acme, globex):
        kit.send("docs/asked", {"tenant": tenant})
    kit.run_until_idle()
    user = User.objects.create_user("ann")
    user.groups.add(Group.objects.create(name="Acme"))
    seen = shop.visible(SimpleNamespace(user=user), Run.objects.all())
    assert list(seen) == list(durable.runs_for(acme))


@section("Let tenants make schedules")
def test_schedules_belong_to_a_tenant(run_example, shop, kit):
    run_example()
    acme, globex = two_tenants()
    key = shop.subscribe(acme)
    assert shop.schedules_of(acme) == [key]
    assert shop.schedules_of(globex) == []
    kit.advance("8d")
    assert durable.runs_for(acme).first().result() == acme.pk


@section("Set the tenant in a body")
def test_tenant_of_a_body_ends_with_it(run_example, shop, kit):
    run_example()
    run = shop.nightly.enqueue({"tenant_ids": [1, 2]}).wait()
    assert run.result() == [1, 2]
    assert shop.current_tenant.get() is None
