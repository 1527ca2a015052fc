"""Handlers: functions that start when a run ends."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Tenant


def keep(ctx):
    """Return the handler's event data."""
    return ctx.event.data


@pytest.fixture
def pay(durable_kit: Kit) -> durable.Function:
    """Declare a function with all three handlers; its data says how it ends."""

    @durable.function(
        id="shop.pay",
        on=durable.Event("shop/pay"),
        on_failure=keep,
        on_cancel=keep,
        on_complete=keep,
        retries=0,
    )
    def pay(ctx):
        ctx.step.run("charge", lambda: None)
        if ctx.event.data["end"] == "fail":
            raise LookupError("no such card")
        if ctx.event.data["end"] == "sleep":
            ctx.step.sleep("long", "1d")
        return {"paid": ctx.event.data["n"]}

    return pay


def followed(run: Run) -> tuple[str, dict[str, Any]]:
    """Return which handler ran for a run, and its event data."""
    handler = Run.objects.get(parent=run)
    return handler.function, handler.result()


def test_on_complete_gets_the_output(durable_kit: Kit, pay: durable.Function) -> None:
    event_id = durable_kit.send("shop/pay", {"end": "well", "n": 5}, v="2")
    durable_kit.run_until_idle()
    run = Run.objects.get(function="shop.pay")
    name, data = followed(run)
    assert name == "shop.pay:on_complete"
    assert data == {
        "run_id": str(run.pk),
        "function": "shop.pay",
        "status": "completed",
        "output": {"paid": 5},
        "error": None,
        "reason": "",
        "event": {
            "id": event_id,
            "name": "shop/pay",
            "data": {"end": "well", "n": 5},
            "ts": durable_kit.now().isoformat(),
            "user": None,
            "v": "2",
        },
    }


def test_on_failure_gets_the_error(durable_kit: Kit, pay: durable.Function) -> None:
    run = pay.enqueue({"end": "fail"})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    name, data = followed(run)
    assert name == "shop.pay:on_failure"
    assert (data["status"], data["output"]) == ("failed", None)
    assert data["error"] == run.error
    assert data["error"]["type"] == "LookupError"
    assert data["error"]["message"] == "no such card"
    assert data["event"]["data"] == {"end": "fail"}


def test_on_cancel_gets_the_reason(durable_kit: Kit, pay: durable.Function) -> None:
    run = pay.enqueue({"end": "sleep"})
    durable_kit.run_until_idle()
    run.cancel("the customer left")
    durable_kit.run_until_idle()
    name, data = followed(run)
    assert name == "shop.pay:on_cancel"
    assert data["status"] == "cancelled"
    assert data["reason"] == "the customer left"
    assert (data["output"], data["error"]) == (None, None)


def test_run_that_never_started_has_its_on_cancel_too(
    durable_kit: Kit, pay: durable.Function
) -> None:
    run = pay.enqueue({"end": "well"})
    run.cancel()
    durable_kit.run_until_idle()
    assert followed(run)[0] == "shop.pay:on_cancel"


def test_handler_is_a_durable_function(durable_kit: Kit) -> None:
    calls: list[int] = []

    def flaky() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("try later")
        return len(calls)

    def mourn(ctx):
        assert ctx.event.name == "durable/run.ended"
        ctx.step.sleep("a while", "1h")
        return ctx.step.run("tell", flaky)

    @durable.function(
        id="fail",
        on_failure=mourn,
        retries=4,
        backoff=durable.Backoff.fixed("1s"),
        queue="sad",
        version="7",
    )
    def fail(ctx):
        raise durable.NonRetriableError("no")

    run = fail.enqueue()
    durable_kit.advance("2h")
    handler = Run.objects.get(parent=run)
    assert handler.result() == 3
    assert (handler.queue, handler.version) == ("sad", "7")
    assert handler.trigger == "durable/run.ended"


def test_handler_that_fails_is_a_failed_run_and_no_more(durable_kit: Kit) -> None:
    def fall(ctx):
        raise durable.NonRetriableError("also no")

    @durable.function(id="fail", on_failure=fall, on_complete=keep)
    def fail(ctx):
        raise durable.NonRetriableError("no")

    run = fail.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.error["message"] == "no"
    assert Run.objects.get(parent=run).status == "failed"
    assert Run.objects.count() == 2


def test_shared_function_can_be_a_handler(durable_kit: Kit) -> None:
    audit = durable.function(id="audit")(lambda ctx: ctx.event.data["function"])
    for name in ("one", "two"):
        durable.function(id=name, on_complete=audit)(lambda ctx: None).enqueue()
    durable_kit.run_until_idle()
    results = Run.objects.filter(function="audit")
    assert sorted(run.result() for run in results) == ["one", "two"]


def test_async_handler_works(durable_kit: Kit) -> None:
    async def tell(ctx):
        return await ctx.step.run("say", lambda: ctx.event.data["output"])

    look = durable.function(id="look", on_complete=tell)(lambda ctx: 5)
    run = look.enqueue()
    durable_kit.run_until_idle()
    assert Run.objects.get(parent=run).result() == 5


def test_handlers_start_after_retries_not_before(durable_kit: Kit) -> None:
    @durable.function(
        id="flaky", on_failure=keep, retries=2, backoff=durable.Backoff.fixed("1m")
    )
    def flaky(ctx):
        raise ValueError("no")

    flaky.enqueue()
    durable_kit.advance("1m")
    assert Run.objects.count() == 1
    durable_kit.advance("1m")
    assert Run.objects.count() == 2


def test_rich_output_keeps_its_types_in_the_handler(durable_kit: Kit) -> None:
    def look(ctx):
        assert ctx.event.data["output"] == ({1, 2}, durable_kit.now())
        assert ctx.event.data["event"]["data"]["tenant"].name == "Ada"
        return "seen"

    @durable.function(id="rich", on_complete=look)
    def rich(ctx):
        return ({1, 2}, durable_kit.now())

    run = rich.enqueue({"tenant": Tenant.objects.create(name="Ada")})
    durable_kit.run_until_idle()
    assert Run.objects.get(parent=run).result() == "seen"


def test_missing_instance_in_output_or_data_does_not_stop_the_handler(
    durable_kit: Kit,
) -> None:
    @durable.function(
        id="clean",
        on_complete=lambda ctx: ctx.event.data["status"],
        on_failure=lambda ctx: ctx.event.data["status"],
        retries=0,
    )
    def clean(ctx):
        tenant = ctx.event.data["tenant"]
        Tenant.objects.all().delete()
        if ctx.event.data["fail"]:
            raise ValueError("no")
        return tenant

    for number, fail in enumerate((False, True)):
        tenant = Tenant.objects.create(name=f"Ada {number}")
        run = clean.enqueue({"tenant": tenant, "fail": fail})
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == ("failed" if fail else "completed")
        assert Run.objects.get(parent=run).result() == run.status


def test_end_and_handler_are_one_transaction(
    durable_kit: Kit, pay: durable.Function
) -> None:
    run = pay.enqueue({"end": "sleep"})
    durable_kit.run_until_idle()
    assert run.cancel() is True
    # The handler's run exists before anything else has run.
    assert Run.objects.get(parent=run).status == "queued"
    assert run.cancel() is False
    durable_kit.run_until_idle()
    assert Run.objects.filter(parent=run).count() == 1
