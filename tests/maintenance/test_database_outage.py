"""An outage of the database is logged when it begins and when it ends."""

from __future__ import annotations

import logging

import pytest
from celery import current_app
from django.db import OperationalError, connection

from durable_jobs.logs import Outage
from durable_jobs.maintenance import tick
from durable_jobs.store import db
from durable_jobs.worker import celery_logs, celery_tasks, connections

LOGGER = "durable_jobs"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    return caplog


def said(log: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(one.levelname, one.getMessage()) for one in log.records]


def test_outage_is_one_error_and_one_info_with_its_length(log) -> None:
    outage = Outage("The database", "Runs wait.")
    outage.end()
    for _ in range(3):
        outage.begin(OperationalError("no\nroute"))
        assert outage.lasts
    outage.end()
    outage.end()
    assert not outage.lasts
    (first, second) = said(log)
    text = "The database is unreachable: OperationalError: no route. Runs wait."
    assert first == ("ERROR", text)
    assert second[0] == "INFO"
    assert second[1].startswith("The database is reachable again after ")


@pytest.fixture
def away(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Refuse all connections to the database, until ``away.undo()``."""
    own = db.connection()

    def refuse(*args: object, **options: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(own, "connection", None)
    monkeypatch.setattr(own, "connect", refuse)
    return monkeypatch


def test_ticks_and_wake_ups_log_nothing_while_the_database_is_away(log, away) -> None:
    for _ in range(5):
        celery_tasks._ticked_at = -1e9
        assert celery_tasks.tick() == {}
        assert celery_tasks.work("default") == 0
    away.undo()
    celery_tasks._ticked_at = -1e9
    celery_tasks.tick()
    celery_tasks.work("default")
    levels = [level for level, _ in said(log) if level != "DEBUG"]
    assert levels == ["ERROR", "INFO"]
    assert not db.outage.lasts


def test_error_with_a_working_connection_is_no_outage(
    log, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep() -> int:
        raise OperationalError("deadlock detected")

    connection.ensure_connection()
    assert tick._guarded("timers", sweep) == 0
    with pytest.raises(OperationalError), connections.tolerating_outage():
        sweep()
    assert not db.outage.lasts
    assert [level for level, _ in said(log)] == ["ERROR"]
    assert "The sweeper of timers failed" in said(log)[0][1]


@pytest.mark.parametrize(
    ("name", "args", "own"),
    [
        ("celery.app.trace", {"name": "durable_jobs.tick", "id": "1"}, True),
        ("celery.worker.strategy", {"name": "durable_jobs.work", "id": "1"}, True),
        ("celery.beat", ("durable_jobs.tick", "durable_jobs.tick"), True),
        ("celery.app.trace", {"name": "shop.tasks.mail", "id": "1"}, False),
        ("celery.beat", ("nightly", "shop.tasks.nightly"), False),
    ],
)
def test_celery_logs_ticks_and_wake_ups_at_debug(
    caplog: pytest.LogCaptureFixture, name: str, args: object, own: bool
) -> None:
    assert current_app
    celery_logs.install()
    message = "%(name)s" if isinstance(args, dict) else "%s %s"
    logger = logging.getLogger(name)
    arguments = (args,) if isinstance(args, dict) else args
    for level in (logging.INFO, logging.DEBUG):
        caplog.set_level(level, logger=name)
        logger.info(message, *arguments)
    logger.error(message, *arguments)
    levels = [one.levelname for one in caplog.records]
    assert levels == (["DEBUG", "ERROR"] if own else ["INFO", "INFO", "ERROR"])
