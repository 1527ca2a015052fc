"""The queues of a Celery worker, without and with ``-Q``."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.signals import celeryd_init

from durable_jobs import durable


class Starting:
    """A worker before its setup."""

    def __init__(self, app: Celery) -> None:
        self.app = app


def consumed(app: Celery, *, only: str = "", without: str = "") -> list[str]:
    """Set up a worker's queues as Celery does, and return those that it consumes."""
    celeryd_init.send(
        sender="worker", instance=Starting(app), conf=app.conf, options={}
    )
    queues = app.amqp.queues
    if only:
        queues.select(only.split(","))
    if without:
        queues.deselect(without.split(","))
    return sorted(queues.consume_from)


@pytest.fixture
def app():
    """Yield a Celery app like a project's."""
    made = Celery("host", broker="memory://localhost/", set_as_current=False)
    yield made
    made.close()


@pytest.fixture
def functions(durable_kit):
    """Declare a function of the queue ``heavy``."""

    @durable.function(id="t.heavy", queue="heavy")
    def heavy(ctx):
        return None


@pytest.mark.django_db
def test_worker_without_options_consumes_our_queues_beside_its_own(app, functions):
    assert consumed(app) == ["celery", "default", "heavy"]


@pytest.mark.django_db
def test_worker_with_queues_consumes_only_these(app, functions):
    assert consumed(app, only="celery") == ["celery"]
    assert consumed(app, only="heavy") == ["heavy"]


@pytest.mark.django_db
def test_worker_excludes_queues_on_request(app, functions):
    assert consumed(app, without="heavy") == ["celery", "default"]


@pytest.mark.django_db
def test_project_that_declares_all_its_queues_gets_none_of_ours(app, functions):
    app.conf.task_create_missing_queues = False
    assert consumed(app) == ["celery"]
