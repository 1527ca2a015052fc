"""The kit inside Django's own kinds of test case, and as a pytest fixture."""

from __future__ import annotations

import asyncio

import pytest
from django.db import connection, transaction
from django.db.models import Q
from django.test import TestCase, TransactionTestCase

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant


def declared() -> durable.Function:
    """Declare a function with a step of most kinds."""
    child = durable.function(id="child")(lambda ctx: ctx.event.data["n"] * 2)

    @durable.function(id="story", on=durable.ModelChange("shop.Order", created=True))
    def story(ctx):
        order = ctx.instance
        ctx.step.atomic("note", lambda: Order.objects.update(note="seen"))
        ctx.step.sleep("night", "8h")
        event = ctx.step.wait_for_event("go", "a/go", timeout="1d")
        paid = ctx.step.wait_for_model("paid", order, when=Q(status="paid"))
        doubled = ctx.step.invoke("double", child, {"n": event.data["n"]})
        slow = ctx.step.run("slow", lambda: Order.objects.count(), timeout="1m")
        return [paid.note, doubled, slow]

    return story


def told(kit: Kit) -> object:
    """Run the function and return its result."""
    declared()
    tenant = Tenant.objects.create(name="Ada")
    order = Order.objects.create(tenant=tenant, total=1)
    kit.advance("9h")
    kit.send("a/go", {"n": 21})
    kit.run_until_idle()
    order.refresh_from_db()
    order.status = Order.Status.PAID
    order.save()
    kit.run_until_idle()
    return Run.objects.get(function="story").result()


EXPECTED = ["seen", 42, 1]


class InTestCase(TestCase):
    """A ``TestCase``, whose transaction never commits."""

    def setUp(self) -> None:
        """Open a kit for each test."""
        self.kit = self.enterContext(Kit())

    def test_a_story(self) -> None:
        """Run the function."""
        assert connection.in_atomic_block
        assert told(self.kit) == EXPECTED

    def test_same_story_again(self) -> None:
        """Run it again: nothing is left of the first time."""
        assert told(self.kit) == EXPECTED

    def test_kit_works_as_a_context_manager(self) -> None:
        """Open a kit inside the test."""
        with Kit() as kit:
            assert told(kit) == EXPECTED

    def test_on_commit_callbacks_are_left_to_the_project(self) -> None:
        """The kit does not run the project's ``on_commit`` callbacks."""
        called: list[int] = []
        with self.captureOnCommitCallbacks(execute=False) as callbacks:
            transaction.on_commit(lambda: called.append(1))
            assert told(self.kit) == EXPECTED
        assert called == []
        assert callbacks


class InTransactionTestCase(TransactionTestCase):
    """A ``TransactionTestCase``, in which transactions commit."""

    def test_a_story(self) -> None:
        """Run the function."""
        assert not connection.in_atomic_block
        with Kit() as kit:
            assert told(kit) == EXPECTED

    def test_async_function(self) -> None:
        """Run an async function with concurrent steps."""
        with Kit() as kit:

            @durable.function(id="async")
            async def fn(ctx):
                async def body(number: int) -> int:
                    return number * 2

                found = await asyncio.gather(
                    *(ctx.step.run(f"part {n}", body, n) for n in range(3))
                )
                await ctx.step.sleep("nap", "1h")
                return sum(found)

            run = fn.enqueue()
            kit.advance("1h")
            run.refresh_from_db()
            assert run.result() == 6


def test_the_fixture(durable_kit: Kit) -> None:
    assert isinstance(durable_kit, Kit)
    assert connection.in_atomic_block
    assert told(durable_kit) == EXPECTED


@pytest.mark.django_db(transaction=True)
def test_fixture_with_real_transactions(durable_kit: Kit) -> None:
    assert not connection.in_atomic_block
    assert told(durable_kit) == EXPECTED


def test_kit_uses_no_broker(durable_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")  # unreachable
    assert told(durable_kit) == EXPECTED
