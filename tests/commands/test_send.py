"""``durable_send``."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError

from durable_jobs import durable
from durable_jobs.models import Event, Run

pytestmark = pytest.mark.django_db


@pytest.fixture
def listener(durable_kit):
    """Declare a function that returns its event data."""

    @durable.function(id="t.listener", on=durable.Event("shop/rung"))
    def listener(ctx):
        return ctx.event.data

    return listener


def test_send_sends_an_event_and_lists_the_started_runs(durable_kit, listener, call):
    said = call("durable_send", "shop/rung", "--data", '{"order_id": 7}')
    run, event = Run.objects.get(), Event.objects.get()
    assert said.splitlines() == [
        f"Sent shop/rung {event.pk}",
        f"queued t.listener {run.pk}",
    ]
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"order_id": 7}


def test_send_reads_the_data_from_stdin(durable_kit, listener, call, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"order_id": 8}'))
    call("durable_send", "shop/rung", "--data", "-")
    assert Event.objects.get().data == {"order_id": 8}


def test_send_reports_an_event_without_functions(durable_kit, call):
    assert "No function has a trigger for this event." in call(
        "durable_send", "shop/silence"
    )


def test_id_makes_sending_again_harmless(durable_kit, listener, call):
    call("durable_send", "shop/rung", "--id", "once")
    call("durable_send", "shop/rung", "--id", "once")
    assert Run.objects.count() == 1


def test_time_in_the_future_delays_the_run(durable_kit, listener, call):
    moment = durable_kit.now() + timedelta(hours=1)
    call("durable_send", "shop/rung", "--ts", moment.isoformat())
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "queued"
    durable_kit.advance("1h")
    assert Run.objects.get().status == "completed"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["shop/x", "--data", "{"], "--data to be JSON"),
        (["shop/x", "--data", "[1]"], "a JSON object"),
        (["shop/x", "--ts", "tomorrow"], "--ts such as"),
        (["shop/x", "--ts", "2030-01-01T00:00:00"], "aware"),
        (["durable/x"], "durable/"),
        ([""], "name"),
    ],
)
def test_invalid_event_is_refused(durable_kit, call, arguments, expected):
    with pytest.raises(CommandError, match=expected):
        call("durable_send", *arguments)
    assert not Event.objects.exists()
