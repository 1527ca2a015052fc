"""Messages carry the id of their installation; others' messages are passed on."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery.signals import before_task_publish
from django.core.management import call_command
from django.db import Error, transaction
from pytest_django import DjangoAssertNumQueries, Settings

from durable_jobs import clock, durable
from durable_jobs.models import Installation, Run
from durable_jobs.store import installation
from durable_jobs.worker import foreign_messages, queues
from durable_jobs.worker.celery_app import TICK
from durable_jobs.worker.celery_notifier import CeleryNotifier
from durable_jobs.worker.celery_tasks import tick, work
from durable_jobs.worker.foreign_messages import HOPS, INSTALLATION, MAX_HOPS

pytestmark = pytest.mark.django_db


class Sent:
    """Records what is published again."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def publish(self, send: Callable[[Any], object]) -> None:
        """Publish."""
        send(None)

    def send_task(self, name: str, **options: Any) -> None:
        """Record what the app sends."""
        self.messages.append({"name": name, **options})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Return the list of published messages."""
    sent = Sent()
    monkeypatch.setattr(foreign_messages, "_publisher", sent)
    monkeypatch.setattr(foreign_messages, "project_app", lambda: sent)
    monkeypatch.setattr(foreign_messages, "DELAY", 0.0)
    monkeypatch.setattr(foreign_messages, "_next_report_at", float("-inf"))
    return sent


def receive(task: Any, *args: object, **headers: object) -> Any:
    """Let a worker receive a message."""
    task.push_request(
        args=args,
        **headers,
        delivery_info={"routing_key": "default"},
        called_directly=0,
    )
    try:
        return task.run(*args)
    finally:
        task.pop_request()


def enqueue() -> Run:
    return durable.function(id="t.one")(lambda ctx: "done").enqueue()


def status(run: Run) -> str:
    run.refresh_from_db()
    return run.status


OTHER = str(uuid.UUID(int=7))


def test_message_of_another_installation_is_published_again(
    sent: Sent, durable_kit: object, caplog: pytest.LogCaptureFixture
) -> None:
    run = enqueue()
    assert receive(work, "default", 1.5, **{INSTALLATION: OTHER}) == 0
    assert receive(tick, **{INSTALLATION: OTHER, HOPS: 2}) == {}
    first, second = sent.messages
    assert (first["name"], first["args"], first["queue"]) == (
        "durable_jobs.work",
        ("default", 1.5),
        "default",
    )
    assert first["headers"] == {INSTALLATION: OTHER, HOPS: 1}
    assert (second["name"], second["headers"][HOPS]) == (TICK, 3)
    assert status(run) == "queued"
    (line,) = [one for one in caplog.records if one.levelname == "ERROR"]
    own = Installation.objects.get()
    assert OTHER in line.getMessage()
    assert str(own.key) in line.getMessage()
    assert (str(own.other_key), own.other_queue) == (OTHER, "default")


def test_message_with_too_many_hops_is_dropped(sent: Sent) -> None:
    receive(work, "default", 1.5, **{INSTALLATION: OTHER, HOPS: MAX_HOPS})
    assert sent.messages == []


@pytest.mark.parametrize("written", [None, "", "nonsense", 7, ["x"]])
def test_message_without_an_id_is_served(
    sent: Sent, durable_kit: object, written: object
) -> None:
    run = enqueue()
    receive(work, "default", clock.now().timestamp(), **{INSTALLATION: written})
    assert status(run) == "completed"
    assert sent.messages == []


def test_message_of_this_installation_is_served(
    sent: Sent, durable_kit: object
) -> None:
    run = enqueue()
    receive(work, "default", clock.now().timestamp(), **foreign_messages.headers())
    assert status(run) == "completed"


def test_sent_messages_and_ticks_carry_the_id(
    monkeypatch: pytest.MonkeyPatch, sent: Sent
) -> None:
    own = {INSTALLATION: str(Installation.objects.get().key)}
    sender = CeleryNotifier()
    monkeypatch.setattr(sender, "_publisher", sent)
    module = "durable_jobs.worker.celery_notifier.project_app"
    monkeypatch.setattr(module, lambda: sent)
    sender._send("default", 1, clock.now())
    assert sent.messages[0]["headers"] == own
    headers: dict[str, Any] = {"task": TICK}
    before_task_publish.send(sender=TICK, headers=headers, body=())
    assert headers == {"task": TICK, **own}
    other: dict[str, Any] = {}
    before_task_publish.send(sender="shop.charge", headers=other, body=())
    assert other == {}


def test_id_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    monkeypatch.setattr(installation, "_known", {})
    with django_assert_num_queries(1):
        keys = {installation.key() for _ in range(5)}
    assert keys == {Installation.objects.get().key}


def test_failed_query_of_the_id_is_not_repeated_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def fail() -> None:
        asked.append(1)
        raise Error("no such table")

    monkeypatch.setattr(installation, "_known", {})
    monkeypatch.setattr(installation, "_retry_at", float("-inf"))
    monkeypatch.setattr(installation, "_read", fail)
    assert [installation.key() for _ in range(5)] == [None] * 5
    assert foreign_messages.headers() == {}
    assert asked == [1]


def test_id_is_made_in_no_transaction_of_a_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installation, "_known", {})
    Installation.objects.all().delete()
    with transaction.atomic():
        assert installation.key() is None
    assert not Installation.objects.exists()
    monkeypatch.setattr(installation, "_retry_at", float("-inf"))


@pytest.mark.django_db(transaction=True)
def test_id_stays_when_the_database_is_flushed() -> None:
    before = installation.key()
    assert before is not None
    call_command("flush", "--no-input", verbosity=0)
    assert Installation.objects.get().key == before


def test_queues_have_the_prefix_only_on_the_broker(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, sent: Sent
) -> None:
    settings.DURABLE_JOBS = {"QUEUE_PREFIX": "pr7-", "TICK_QUEUE": "tick"}
    assert {"pr7-default", "pr7-tick"} <= queues.project_queues()
    assert queues.consumed_queues(["pr7-default", "celery"]) == ["default"]
    sender = CeleryNotifier()
    monkeypatch.setattr(sender, "_publisher", sent)
    module = "durable_jobs.worker.celery_notifier.project_app"
    monkeypatch.setattr(module, lambda: sent)
    sender._send("default", 1, clock.now())
    (message,) = sent.messages
    assert (message["queue"], message["args"][0]) == ("pr7-default", "default")
