"""Which Celery app carries the wake-up messages and the tick.

A process may have several apps: the project's own, and clients for the brokers of other
systems. Celery's ``current_app`` is the app that the calling thread created last, which
need not be the project's. This package uses, in this order:

1. the setting ``CELERY_APP``;
2. the app that this worker was started with;
3. Celery's default app, which is the first app that was created for Django.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import celery._state
from celery import Celery
from celery.signals import celeryd_init, worker_process_init
from kombu.utils.imports import symbol_by_name

from durable_jobs.conf import settings
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.worker import celery_logs
from durable_jobs.worker.queues import broker_name

#: The names of the tasks.
WORK, TICK = "durable_jobs.work", "durable_jobs.tick"

#: Untyped, since Celery's type stubs lack most of this module.
_state: Any = celery._state

#: The app of this worker; None in other processes.
_worker_app: Celery | None = None
#: The default app at the time of ``connect()``.
_default_app: Celery | None = None


def project_app() -> Celery:
    """Return the app that sends the messages of this process.

    Raise ``ConfigurationError`` if ``CELERY_APP`` does not name an app.
    """
    if settings.CELERY_APP is not None:
        return _named(settings.CELERY_APP)
    app = _worker_app or _default_app or _default() or _state.get_current_app()
    # ``current_app`` may be a proxy.
    return getattr(app, "_get_current_object", lambda: app)()


@cache
def _named(path: str) -> Celery:
    setting = f"The setting DURABLE_JOBS['CELERY_APP'] is {path!r}"
    try:
        app = symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{setting}, which cannot be imported: {error}"
        ) from None
    if not isinstance(app, Celery):
        msg = f"{setting}: expected a Celery app, such as 'project.celery:app'."
        raise ConfigurationError(msg)
    return app


def _default() -> Celery | None:
    """Return Celery's default app, or None if no app was created.

    Celery's own accessor would create one, which then stays the default.
    """
    app: Celery | None = _state.default_app or _state._tls.current_app
    return app


def is_project_app(app: Celery) -> bool:
    """Return whether ``app`` runs the tick and consumes the queues of this package."""
    if settings.CELERY_APP is None:
        return True
    try:
        return project_app() is app
    except ConfigurationError:  # reported by the system check
        return False


def project_apps() -> list[Any]:
    """Return the apps of this process that could be the project's."""
    return [app for app in list(_state._get_active_apps()) if app.set_as_current]


def install_beat(app: Celery) -> None:
    """Add the tick to the beat schedule of an app."""
    app.add_periodic_task(
        settings.TICK_INTERVAL.total_seconds(),
        app.signature(
            TICK,
            options={"queue": broker_name(settings.TICK_QUEUE), "ignore_result": True},
            immutable=True,
        ),
        name=TICK,
    )


def _add_tick(app: Celery) -> None:
    """Add the tick to a finalized app, if its beat runs the tick."""
    if settings.EXECUTOR == "celery" and is_project_app(app):
        install_beat(app)


def connect() -> None:
    """Save the default app, and add the tick to the beat of the project's apps."""
    global _default_app
    celery_logs.install()
    _default_app = _default()
    # A beat finalizes its app after the app registry is ready.
    _state.connect_on_app_finalize(_add_tick)
    for app in project_apps():
        if app.finalized:
            _add_tick(app)


@celeryd_init.connect
def _start_worker(instance: object = None, **kwargs: object) -> None:
    global _worker_app
    _worker_app = getattr(instance, "app", None)


@worker_process_init.connect
def _start_process(**kwargs: object) -> None:
    global _worker_app
    if _worker_app is None:  # a process that was not forked
        _worker_app = _default()
