"""Valid and invalid names of events."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


@pytest.mark.parametrize(
    "name", ["x", "shop/order.placed", "x" * 255, "mit Umlaut: größer", "durable", "🦊"]
)
def test_names_are_free(durable_kit: Kit, name: str) -> None:
    durable.function(id="look", on=durable.Event(name))(lambda ctx: ctx.event.name)
    durable_kit.send(name)
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "1 to 255 characters"),
        ("x" * 256, "1 to 255 characters"),
        (None, "1 to 255 characters"),
        (7, "1 to 255 characters"),
        (" shop", "without surrounding spaces"),
        ("shop\n", "printable"),
        ("shop\x00", "printable"),
        ("shop\ud800", "printable"),
        ("shop/*", "without a wildcard"),
        ("durable/mine", "'durable/'"),
        ("durable/function.called", "reserved"),
        ("inngest/function.finished", "'inngest/'"),
    ],
    ids=repr,
)
def test_invalid_names_are_refused(durable_kit: Kit, name: Any, expected: str) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        durable_kit.send(name)
    assert expected in str(caught.value)
    with pytest.raises(durable.ConfigurationError):
        durable_kit.send_many([durable.NewEvent("fine"), durable.NewEvent(name)])
    assert not Event.objects.exists()


def test_step_may_not_send_reserved_events(durable_kit: Kit) -> None:
    @durable.function(id="sneaky")
    def sneaky(ctx):
        ctx.step.send_event("tell", durable.NewEvent("durable/run.ended"))

    run = sneaky.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert "reserved" in run.error["message"]
    assert not Event.objects.exists()


def test_send_accepts_only_events(durable_kit: Kit) -> None:
    for wrong in ("a/b", {"name": "a/b"}, None):
        with pytest.raises(durable.ConfigurationError, match=r"durable\.NewEvent"):
            durable_kit.send_many([wrong])  # type: ignore[list-item]  # wrong on purpose


def test_empty_list_of_events_does_nothing(durable_kit: Kit) -> None:
    assert durable_kit.send_many([]) == []
    assert durable.send_many(iter(())) == []


@pytest.mark.parametrize("wrong", ["", 7, "x" * 256])
def test_version_is_a_name(durable_kit: Kit, wrong: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="an event version"):
        durable_kit.send("a/b", v=wrong)
