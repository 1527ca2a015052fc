"""Results of an ``async def`` function's steps, at first and in replay."""

from __future__ import annotations

from project.shop.models import Order, Tenant
from tests.engine.conftest import Later, Start


def test_model_instance_is_loaded_in_replay(start: Start, later: Later):
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)
    seen = []

    async def giving(ctx):
        found = await ctx.step.run("find", lambda: Order.objects.get(pk=order.pk))
        seen.append((type(found), found.pk))
        await ctx.step.sleep("nap", 1)
        return found.pk

    assert later(start(giving), 1).result() == order.pk
    assert len(seen) >= 2
    assert set(seen) == {(Order, order.pk)}
