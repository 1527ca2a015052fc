"""Every way of starting a run validates its data against the function's schema."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from pydantic import BaseModel

from durable_jobs import durable, ids
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.testing import Kit
from tests.api.conftest import Caller, problem, program_of
from tests.webhooks.conftest import Post
from tests.webhooks.conftest import post as post  # the fixture

pytestmark = pytest.mark.django_db


class Placed(BaseModel):
    """The data of a placed order."""

    order_id: int
    note: str = ""


class Paid(BaseModel):
    """The data of a paid order."""

    amount: int


WRONG = {"order_id": "seven"}
RIGHT = {"order_id": 7}


@pytest.fixture
def place(durable_kit: Kit) -> durable.Function:
    """Declare a function whose trigger has a schema."""
    made: durable.Function = durable.function(
        id="shop.place", on=durable.Event("shop/placed", schema=Placed), retries=0
    )(lambda ctx: [type(ctx.event.data).__name__, ctx.event.data.order_id])
    return made


@pytest.fixture
def api(durable_kit: Kit) -> Caller:
    """Return an API client that may start and rerun."""
    root = User.objects.create_superuser("root")
    return program_of(root, "runs:start", "runs:write", "events:send")


def results(kit: Kit) -> list[Any]:
    """Return the results of all runs after all have ended."""
    kit.run_until_idle()
    return [run.result() for run in Run.objects.order_by("pk")]


def test_enqueue_validates_calls_by_the_schema_of_the_trigger(
    durable_kit: Kit, place: durable.Function
) -> None:
    for wrong in (WRONG, {}, None):
        with pytest.raises(durable.PayloadError, match="does not fit Placed"):
            place.enqueue(wrong)
        with pytest.raises(durable.PayloadError, match="does not fit Placed"):
            place.using(key="a").enqueue(wrong)
    assert not Run.objects.exists()
    place.enqueue(RIGHT)
    place.enqueue(Placed(order_id=7))
    durable_kit.send("shop/placed", RIGHT)
    assert results(durable_kit) == [["Placed", 7]] * 3


def test_invoke_and_start_validate_calls_by_the_schema_of_the_trigger(
    durable_kit: Kit, place: durable.Function
) -> None:
    @durable.function(id="shop.parent", retries=0)
    def parent(ctx: durable.Context) -> Any:
        step = ctx.step.invoke if ctx.event.data["by"] == "invoke" else ctx.step.start
        return step("child", place, ctx.event.data["data"])

    for by in ("invoke", "start"):
        run = parent.enqueue({"by": by, "data": WRONG})
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert "does not fit Placed" in run.error["message"]
    assert not Run.objects.filter(function="shop.place").exists()
    run = parent.enqueue({"by": "invoke", "data": RIGHT})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["Placed", 7]


def test_rerun_with_changes_is_validated_by_the_schema(
    durable_kit: Kit, place: durable.Function, api: Caller
) -> None:
    durable_kit.send("shop/placed", RIGHT)
    called = place.enqueue(RIGHT)
    durable_kit.run_until_idle()
    for run in (Run.objects.get(trigger="shop/placed"), called):
        with pytest.raises(durable.PayloadError, match="does not fit Placed"):
            run.rerun(data=WRONG)
        refused = api.post(f"runs/{run.pk}/rerun", {"data": WRONG})
        problem(refused, 422, "invalid-payload")
        run.rerun(data={"order_id": 8})
    assert sorted(results(durable_kit)) == [["Placed", n] for n in (7, 7, 8, 8)]


def test_api_validates_starts_and_events_by_the_schema(
    durable_kit: Kit, place: durable.Function, api: Caller
) -> None:
    for body in ({"data": WRONG}, {"data": {}}, None):
        refused = api.post("functions/shop.place/runs", body)
        problem(refused, 422, "invalid-payload")
    refused = api.post("events", {"name": "shop/placed", "data": WRONG})
    problem(refused, 422, "invalid-payload")
    # A codec tag is a plain object here: no tagged instance passes the schema.
    forged = {"$durable": "pydantic", "value": [f"{__name__}:Placed", WRONG, []]}
    refused = api.post("functions/shop.place/runs", {"data": forged})
    problem(refused, 422, "invalid-payload")
    assert not Run.objects.exists()
    started = api.post("functions/shop.place/runs", {"data": RIGHT})
    assert started.status_code == 201
    assert results(durable_kit) == [["Placed", 7]]


def test_admin_forms_validate_starts_by_the_schema(
    durable_kit: Kit, place: durable.Function, admin_client: Any
) -> None:
    address = reverse("admin:durable_jobs_function_start", args=["shop.place"])
    token = str(ids.new_id())
    fields = {"data-order_id": "seven", "token": token}
    assert admin_client.post(address, fields).status_code == 422
    for text in ('{"order_id": "seven"}', "{}", ""):
        form = {"input": text, "token": token}
        assert admin_client.post(f"{address}?as=json", form).status_code == 422
    assert not Run.objects.exists()
    form = {"input": '{"order_id": 7}', "token": token}
    assert admin_client.post(f"{address}?as=json", form).status_code == 302
    run = Run.objects.get()
    edit = reverse("admin:durable_jobs_run_act", args=[run.pk, "edit"])
    changed = {"input": '{"order_id": "seven"}', "new": str(ids.new_id())}
    assert admin_client.post(edit, changed).status_code == 422
    assert results(durable_kit) == [["Placed", 7]]


def test_webhooks_validate_their_events_by_the_schema(
    durable_kit: Kit, place: durable.Function, post: Post
) -> None:
    hook = durable.Webhook(
        "shop",
        verify=durable.verify.Unsigned(),
        transform={"name": "shop/placed", "data": "{body}"},
    )
    durable.function(id="shop.hooked", on=hook)(lambda ctx: None)
    assert post(WRONG, "shop").status_code == 422
    assert not Run.objects.exists()
    assert Event.objects.get().name == "durable/webhook.failed"
    assert post(RIGHT, "shop").status_code == 202
    assert ["Placed", 7] in results(durable_kit)


def test_schedules_validate_their_data_by_the_schema(
    durable_kit: Kit, place: durable.Function
) -> None:
    with pytest.raises(durable.PayloadError, match="does not fit Placed"):
        durable.schedules.create(place, "0 9 * * *", data=WRONG)
    schedule = durable.schedules.create(place, "0 9 * * *", data=RIGHT)
    with pytest.raises(durable.PayloadError, match="does not fit Placed"):
        schedule.change(data=WRONG)
    assert Schedule.objects.get().data == RIGHT


def test_call_needs_to_match_one_of_several_schemas(durable_kit: Kit) -> None:
    triggers = [
        durable.Event("shop/placed", schema=Placed),
        durable.Event("shop/paid", schema=Paid),
    ]
    either = durable.function(id="shop.either", on=triggers)(
        lambda ctx: type(ctx.event.data).__name__
    )
    with pytest.raises(durable.PayloadError, match=r"Placed.*does not fit Paid"):
        either.enqueue({"neither": 1})
    either.enqueue(RIGHT)
    either.enqueue({"amount": 1})
    assert results(durable_kit) == ["Placed", "Paid"]


def test_trigger_without_a_schema_leaves_calls_free(durable_kit: Kit) -> None:
    triggers = [durable.Event("shop/placed", schema=Placed), durable.Event("shop/any")]
    free = durable.function(id="shop.free", on=triggers)(
        lambda ctx: type(ctx.event.data).__name__
    )
    free.enqueue(WRONG)
    free.enqueue(RIGHT)
    assert results(durable_kit) == ["dict", "dict"]


def test_input_of_a_function_precedes_its_triggers(durable_kit: Kit) -> None:
    trigger = durable.Event("shop/placed", schema=Placed)
    pay = durable.function(id="shop.pay", on=trigger, input=Paid)(
        lambda ctx: type(ctx.event.data).__name__
    )
    with pytest.raises(durable.PayloadError, match="does not fit Paid"):
        pay.enqueue(RIGHT)
    pay.enqueue({"amount": 1})
    durable_kit.send("shop/placed", RIGHT)
    assert results(durable_kit) == ["Paid", "Placed"]
