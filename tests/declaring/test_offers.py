"""Functions with an input, and those that are admin actions of a model."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

pytestmark = pytest.mark.django_db


class Refund(BaseModel):
    """The input of a refund."""

    model_config = ConfigDict(extra="forbid")

    amount: int
    note: str = "none"


@pytest.fixture
def order():
    tenant = Tenant.objects.create(name="Acme")
    return Order.objects.create(tenant=tenant, total=40)


def refused(**parameters):
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay", **parameters)(lambda ctx: None)
    assert "'shop.pay'" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("given", [Order, "shop.Order"])
def test_model_is_given_as_a_class_or_by_its_label(durable_kit: Kit, given):
    pay = durable.function(id="shop.pay", admin_action=given)(lambda ctx: None)
    assert pay.admin_action == "shop.Order"


@pytest.mark.parametrize("wrong", [7, "Order", "shop.", ["shop.Order"], "a.b.c", True])
def test_non_model_is_refused(durable_kit: Kit, wrong):
    assert "'app_label.ModelName' in admin_action" in refused(admin_action=wrong)


def test_missing_model_is_refused(durable_kit: Kit):
    assert "there is no such model" in refused(admin_action="shop.Odrer")


@pytest.mark.parametrize("wrong", [7, dict, "Refund", Refund(amount=1)])
def test_input_is_a_pydantic_model(durable_kit: Kit, wrong):
    assert "Expected input to be a pydantic model" in refused(input=wrong)


def test_input_of_an_admin_action_must_not_name_the_instance(durable_kit: Kit):
    class Keyed(BaseModel):
        pk: int

    assert "without a field 'pk'" in refused(input=Keyed, admin_action=Order)
    durable.function(id="shop.keyed", input=Keyed)(lambda ctx: None)


@pytest.mark.parametrize(
    "gathering",
    [
        {"debounce": durable.Debounce("5s")},
        {"batch": durable.Batch(max_size=5, timeout="5s")},
    ],
)
def test_buffered_function_cannot_be_an_admin_action(durable_kit: Kit, gathering):
    trigger = durable.Event("shop/paid")
    assert "not buffered" in refused(admin_action=Order, on=trigger, **gathering)


def test_call_that_does_not_fit_the_input_is_refused(durable_kit: Kit):
    pay = durable.function(id="shop.pay", input=Refund)(lambda ctx: None)
    for wrong in ({"amount": "much"}, {}, None, {"amount": 1, "more": 2}):
        with pytest.raises(durable.PayloadError, match=r"'shop\.pay' does not fit"):
            pay.enqueue(wrong)
    assert not Run.objects.exists()


def test_function_sees_its_input(durable_kit: Kit):
    pay = durable.function(id="shop.pay", input=Refund)(lambda ctx: ctx.event.data)
    runs = [pay.enqueue({"amount": "5"}), pay.enqueue(Refund(amount=5))]
    durable_kit.run_until_idle()
    for run in runs:
        run.refresh_from_db()
        assert run.result() == Refund(amount=5)


def test_events_are_not_checked_by_the_input_of_calls(durable_kit: Kit):
    @durable.function(id="shop.pay", input=Refund, on=durable.Event("shop/owed"))
    def pay(ctx):
        return type(ctx.event.data).__name__

    durable_kit.send("shop/owed", {"anything": 1})
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == "dict"


def test_rerun_with_other_data_is_checked_too(durable_kit: Kit):
    pay = durable.function(id="shop.pay", input=Refund)(
        lambda ctx: ctx.event.data.amount
    )
    run = pay.enqueue({"amount": 1})
    durable_kit.run_until_idle()
    with pytest.raises(durable.PayloadError, match="does not fit Refund"):
        run.rerun(data={"amount": "much"})
    again = run.rerun(data={"amount": 2})
    durable_kit.run_until_idle()
    again.refresh_from_db()
    assert again.result() == 2


def test_invoked_function_checks_its_input(durable_kit: Kit):
    pay = durable.function(id="shop.pay", input=Refund)(lambda ctx: None)

    @durable.function(id="shop.parent", retries=0)
    def parent(ctx):
        return ctx.step.invoke("pay", pay, {"amount": "much"})

    run = parent.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "failed"
    assert "does not fit Refund" in run.error["message"]


def test_offered_function_is_about_the_instance_that_its_call_names(
    durable_kit: Kit, order
):
    @durable.function(id="shop.pay", input=Refund, admin_action=Order)
    def pay(ctx):
        return [ctx.instance.pk, ctx.event.data.amount]

    run = pay.enqueue({"model": "shop.Order", "pk": order.pk, "amount": 3})
    other = pay.enqueue({"amount": 3})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    other.refresh_from_db()
    assert run.result() == [order.pk, 3]
    assert list(durable.runs_for(order)) == [run]
    assert other.status != "completed"
