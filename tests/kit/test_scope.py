"""A kit restores everything it has changed when it closes."""

from __future__ import annotations

import pytest

from durable_jobs import clock, durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


def test_functions_declared_in_a_kit_are_forgotten() -> None:
    before = {function.id for function in registry}
    for _ in range(2):
        # The same id again: the first is gone.
        with Kit() as kit:
            durable.function(
                id="temporary", on=durable.Event("a/b"), on_failure=lambda ctx: None
            )(lambda ctx: 1)
            kit.send("a/b")
    assert {function.id for function in registry} == before
    with Kit() as kit:
        kit.send("a/b")
    assert Run.objects.count() == 2


def test_functions_declared_before_the_kit_are_known_in_it() -> None:
    with registry.temporary():
        look = durable.function(id="before", on=durable.Event("a/b"))(lambda ctx: 1)
        with Kit() as kit:
            kit.send("a/b")
            assert kit.run_until_idle() == 1
        assert registry.find("before") is look


def test_kit_restores_everything() -> None:
    outside, before = notifier.installed(), clock.now()
    with Kit() as kit:
        kit.advance("365d")
        assert notifier.installed() is not outside
    assert notifier.installed() is outside
    assert (clock.now() - before).days == 0


def test_kit_restores_everything_after_an_error() -> None:
    outside = notifier.installed()

    class Broken(Exception):
        pass

    with pytest.raises(Broken), Kit():  # noqa: PT012  # the kit's end is the point
        durable.function(id="temporary")(lambda ctx: 1)
        raise Broken
    assert notifier.installed() is outside
    assert registry.find("temporary") is None


def test_kit_inside_a_kit_has_its_own_time_and_functions() -> None:
    with Kit() as outer:
        look = durable.function(id="look")(lambda ctx: 1)
        with Kit(now=outer.now()) as inner:
            durable.function(id="inner")(lambda ctx: 1)
            inner.advance("1d")
            assert look.enqueue().wait(timeout=10).result() == 1
        assert registry.find("inner") is None
        assert (inner.now() - outer.now()).days == 1
        assert clock.now() == outer.now()


def test_send_of_the_kit_and_of_the_public_api_are_the_same(durable_kit: Kit) -> None:
    durable.function(id="look", on=durable.Event("a/b"))(
        lambda ctx: ctx.event.data["n"]
    )
    event_id = durable_kit.send("a/b", {"n": 1}, id="one", v="2")
    assert event_id == "one"
    durable.send("a/b", {"n": 2})
    ids = durable_kit.send_many([durable.NewEvent("a/b", {"n": n}) for n in (3, 4)])
    assert len(ids) == 2
    durable_kit.run_until_idle()
    assert sorted(run.result() for run in Run.objects.all()) == [1, 2, 3, 4]
