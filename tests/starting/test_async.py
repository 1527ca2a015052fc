"""The async variants of the public API."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


def test_asend_sends(durable_kit: Kit) -> None:
    durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: ctx.event.data)

    async def host() -> str:
        moment = durable_kit.now()
        return await durable.asend("a/b", {"n": 1}, id="o-7", ts=moment, v="2")

    assert async_to_sync(host)() == "o-7"
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == {"n": 1}
    assert Event.objects.get().v == "2"


def test_asend_many_sends_all_or_none(durable_kit: Kit) -> None:
    async def host(data: object) -> list[str]:
        events = [durable.NewEvent("a/b", {"n": 1}), durable.NewEvent("a/b", data)]
        return await durable.asend_many(events)

    with pytest.raises(durable.PayloadError):
        async_to_sync(host)({"n": float("nan")})
    assert not Event.objects.exists()
    assert len(async_to_sync(host)({"n": 2})) == 2
    assert Event.objects.count() == 2


def test_aenqueue_returns_the_run(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: ctx.event.data["n"])

    async def host(n: object) -> Run:
        return await look.using(key="o-7").aenqueue({"n": n})

    run = async_to_sync(host)(1)
    assert async_to_sync(host)(1) == run
    with pytest.raises(durable.DuplicateKeyError):
        async_to_sync(host)(2)
    with pytest.raises(durable.PayloadError):
        async_to_sync(host)(object())
    assert run.wait(timeout=10).result() == 1


@pytest.mark.django_db(transaction=True)
def test_async_variant_refuses_what_the_sync_one_refuses(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: None)

    async def sends() -> None:
        await durable.asend("durable/mine")

    async def enqueues() -> None:
        await look.aenqueue([1])

    with pytest.raises(durable.ConfigurationError):
        async_to_sync(sends)()
    with pytest.raises(durable.PayloadError):
        async_to_sync(enqueues)()
