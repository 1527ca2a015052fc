"""A form that is posted twice at the same moment takes effect once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection

from durable_jobs import durable
from durable_jobs.control import send
from durable_jobs.control.actor import Actor
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from tests.lab.threads import together

pytestmark = pytest.mark.django_db(transaction=True)

TIMES = 6


@pytest.fixture
def ann(durable_kit: Kit) -> Iterator[Actor]:
    """Yield a user who may do everything."""
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has one writer")
    yield Actor(User.objects.create_superuser("ann"))
    LogEntry.objects.all().delete()
    Run.objects.all().delete()


def one_was_new(call: Callable[[], Any]) -> None:
    """Make the same call several times at once; check that one takes effect."""
    done = together(*[call] * TIMES)
    assert sorted(one.new for one in done) == [False] * (TIMES - 1) + [True]


def test_event_is_sent_once_and_logged_once(ann: Actor) -> None:
    for _ in range(4):
        event = durable.NewEvent("shop/order.placed", {"n": 1}, id=str(uuid.uuid4()))
        one_was_new(partial(send.send_once, ann, event))
    assert Event.objects.filter(name="shop/order.placed").count() == 4
    assert LogEntry.objects.count() == 4


def test_event_is_sent_again_once(ann: Actor) -> None:
    (first,) = durable.send_many([durable.NewEvent("shop/order.placed", {"n": 1})])
    event = Event.objects.get(pk=first)
    for _ in range(4):
        one_was_new(partial(send.resend, ann, event, str(uuid.uuid4())))
    assert Event.objects.filter(name="shop/order.placed").count() == 5
    assert LogEntry.objects.filter(object_id=event.pk).count() == 4


@pytest.mark.parametrize("keyed", [False, True], ids=["by the form", "by a key"])
def test_run_is_started_once(ann: Actor, keyed: bool) -> None:
    @durable.function(id="tests.started")
    def started(ctx):
        return None

    for number in range(4):
        # With its own key, each form may differ.
        key = f"key {number}" if keyed else ""
        call = partial(send.start, ann, started, {}, key=key)
        token = str(uuid.uuid4())
        one_was_new(lambda call=call, token=token: call(token=token))
    assert Run.objects.filter(function="tests.started").count() == 4
    assert LogEntry.objects.count() == 4
