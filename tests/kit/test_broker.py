"""Without a kit, a test sends messages to a broker only on request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from pytest_django import Settings

from durable_jobs import clock, durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.worker import celery_notifier
from durable_jobs.worker.celery_app import project_app
from durable_jobs.worker.celery_notifier import CeleryNotifier, _disabled

Muted = Callable[[], bool]
#: As outside of this suite, which has a fixture that sends all messages.
muted: Muted = _disabled


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the queues of the messages that were sent to a broker."""
    queues: list[str] = []

    def send_task(name: str, *, queue: str, **options: Any) -> None:
        queues.append(queue)

    monkeypatch.setattr(celery_notifier, "_disabled", muted)
    monkeypatch.setattr(project_app(), "send_task", send_task)
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://broker.invalid/0")
    return queues


def enqueue_and_ring() -> None:
    with registry.temporary(), notifier.using(CeleryNotifier()):
        durable.function(id="look")(lambda ctx: 1).enqueue()
        notifier.notify_at(clock.now() - timedelta(seconds=1), "default")


@pytest.mark.django_db(transaction=True)
def test_test_without_a_kit_sends_nothing_to_a_broker(sent: list[str]) -> None:
    enqueue_and_ring()
    assert Run.objects.get().status == "queued"
    assert sent == []


@pytest.mark.django_db(transaction=True)
def test_test_that_opts_in_sends_to_its_broker(
    sent: list[str], settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"NOTIFY_IN_TESTS": True, "NOTIFY_TIMEOUT": "30s"}
    enqueue_and_ring()
    assert "default" in sent


@pytest.mark.django_db(transaction=True)
def test_broker_in_memory_gets_the_messages_of_a_test(
    sent: list[str], monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"NOTIFY_TIMEOUT": "30s"}
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")
    enqueue_and_ring()
    assert "default" in sent


def test_process_outside_of_tests_sends_to_its_broker(
    sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert muted()
    monkeypatch.delattr(mail, "outbox")
    assert not muted()
