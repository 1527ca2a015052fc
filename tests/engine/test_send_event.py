"""``ctx.step.send_event``: events that are sent exactly once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


def listening() -> None:
    """Declare a function that is triggered by the events sent here."""

    @durable.function(id="tests.listening", on=durable.Event("shop/*"))
    def listening(ctx):
        return [ctx.event.id, ctx.event.name, ctx.event.data]


def heard() -> list[object]:
    """Return the data of its triggering events."""
    runs = Run.objects.filter(function="tests.listening").order_by("pk")
    return [run.result() for run in runs]


def test_event_is_sent_once_and_its_ids_returned(start: Start, later: Later):
    listening()
    seen = []

    def sending(ctx):
        event = durable.NewEvent("shop/paid", {"order_id": 7})
        seen.append(ctx.step.send_event("tell", event))
        ctx.step.sleep("nap", "1h")

    later(start(sending), "1h")

    stored = Event.objects.get()
    assert seen == [[stored.pk]] * len(seen)
    assert len(seen) >= 2
    assert stored.source == "step"
    assert heard() == [[stored.pk, "shop/paid", {"order_id": 7}]]


def test_several_events_keep_their_order(start: Start):
    listening()

    def sending(ctx):
        events = [durable.NewEvent("shop/paid", {"n": n}) for n in range(3)]
        return ctx.step.send_event("tell", events)

    ids = start(sending).result()

    assert [Event.objects.get(pk=id).data["n"] for id in ids] == [0, 1, 2]
    assert Run.objects.filter(function="tests.listening").count() == 3


def test_empty_list_sends_no_events(start: Start):
    def sending(ctx):
        return ctx.step.send_event("tell", [])

    assert start(sending).result() == []
    assert not Event.objects.exists()


@pytest.mark.exact("a look back that failed is made again after five seconds")
@pytest.mark.parametrize(("when", "sent"), [("before", 0), ("body", 0), ("after", 1)])
def test_worker_that_dies_at_the_step_sends_once(
    start: Start, later: Later, durable_kit: Kit, when, sent
):
    listening()

    def sending(ctx):
        return ctx.step.send_event("tell", durable.NewEvent("shop/paid"))

    durable_kit.crash_at("tell", when=when, times=2)
    run = start(sending)
    assert run.status == "running"
    assert Event.objects.count() == sent

    run = later(run, "3m")
    assert run.result() == [Event.objects.get().pk]
    assert len(heard()) == 1


def test_sent_event_resumes_waiting_runs(start: Start, later: Later, durable_kit: Kit):
    def waiting(ctx):
        return ctx.step.wait_for_event("wait", "shop/paid", match="data.n").data

    def sending(ctx):
        ctx.step.send_event("tell", durable.NewEvent("shop/paid", {"n": 2}))

    first, second = start(waiting, {"n": 1}), None
    second = durable.function(id="tests.second")(waiting).enqueue({"n": 2})
    durable_kit.run_until_idle()
    start(sending)

    assert later(first).status == "waiting"
    assert later(second).result() == {"n": 2}


@pytest.mark.exact("a look back that failed is made again after five seconds")
def test_run_may_resume_itself(start: Start, later: Later):
    def alone(ctx):
        ctx.step.send_event("tell", durable.NewEvent("shop/paid", {"n": 1}))
        return ctx.step.wait_for_event("wait", "shop/paid", since="run").data

    assert start(alone).result() == {"n": 1}


def test_event_with_an_id_starts_a_function_once_for_any_sender(start: Start):
    listening()

    def sending(ctx):
        for n in range(3):
            event = durable.NewEvent("shop/paid", {"n": n}, id="payment-7")
            assert ctx.step.send_event("tell", event) == ["payment-7"]

    assert start(sending).status == "completed"
    assert heard() == [["payment-7", "shop/paid", {"n": 0}]]


def test_delayed_event(start: Start, later: Later, durable_kit: Kit):
    listening()
    moment = durable_kit.now() + timedelta(hours=1)

    def sending(ctx):
        ctx.step.send_event("tell", durable.NewEvent("shop/paid", ts=moment))

    run = start(sending)
    assert run.status == "completed"
    assert Run.objects.get(function="tests.listening").status == "queued"

    later(run, "1h")
    assert len(heard()) == 1


@pytest.mark.parametrize(
    ("event", "error", "expected"),
    [
        ("shop/paid", "ConfigurationError", "NewEvent"),
        (["shop/paid"], "ConfigurationError", "NewEvent"),
        (durable.NewEvent("durable/own"), "ConfigurationError", "reserved"),
        (durable.NewEvent(""), "ConfigurationError", "event name"),
        (durable.NewEvent("shop/paid", ["no dict"]), "PayloadError", "a dict"),
        (durable.NewEvent("shop/paid", {"x": object()}), "PayloadError", "shop/paid"),
        (
            durable.NewEvent("shop/paid", {"x": "y" * 600_000}),
            "PayloadError",
            "MAX_EVENT_BYTES",
        ),
        (durable.NewEvent("shop/paid", id=""), "ConfigurationError", "event id"),
    ],
    ids=[
        "a name",
        "names",
        "a reserved name",
        "no name",
        "no dict",
        "an object",
        "too large",
        "no id",
    ],
)
def test_invalid_event_is_refused_and_nothing_is_sent(
    start: Start, event, error, expected
):
    entries = []

    def sending(ctx):
        entries.append(1)
        ctx.step.send_event("tell", event)

    run = start(sending)

    assert run.error["type"] == error
    assert expected in run.error["message"]
    assert not Event.objects.exists()
    assert len(entries) == 1


def test_invalid_event_among_several_stops_all(start: Start):
    def sending(ctx):
        good = durable.NewEvent("shop/paid", {"n": 1})
        ctx.step.send_event("tell", [good, durable.NewEvent("shop/x", {"x": set})])

    assert start(sending).error["type"] == "PayloadError"
    assert not Event.objects.exists()


def test_send_event_inside_an_open_transaction_is_refused(start: Start):
    def sending(ctx):
        with transaction.atomic():
            ctx.step.send_event("tell", durable.NewEvent("shop/paid"))

    run = start(sending)
    assert run.error["type"] == "ConfigurationError"
    assert "transaction.atomic()" in run.error["message"]
    assert not Event.objects.exists()
