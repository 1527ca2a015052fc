"""Which Celery app carries the wake-up messages and the tick.

A process may have several apps: the project's own, and clients for the brokers of other
systems. Celery's ``current_app`` is the last app that the asking thread has made, so
it says nothing about the project. The app here is, in this order: the setting
``CELERY_APP``; the app that this worker was started with; Celery's default app, which
is the first app that was made for Django.
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
from durable_jobs.worker.queues import on_broker

TICK = "durable_jobs.tick"

#: What the type stubs of Celery do not know of the module.
_state: Any = celery._state

#: The app of this worker; None in other processes.
_of_worker: Celery | None = None
#: The default app when Django's app registry got ready.
_when_ready: Celery | None = None


def project_app() -> Celery:
    """Return the app for what this process sends.

    Raises ``ConfigurationError`` if ``CELERY_APP`` names no app.
    """
    if settings.CELERY_APP is not None:
        return _named(settings.CELERY_APP)
    app = _of_worker or _when_ready or _default() or _state.get_current_app()
    # ``current_app`` may be a proxy.
    return getattr(app, "_get_current_object", lambda: app)()


@cache
def _named(path: str) -> Celery:
    place = f"The setting DURABLE_JOBS['CELERY_APP'] is {path!r}"
    try:
        app = symbol_by_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{place}, which cannot be imported: {error}"
        ) from None
    if not isinstance(app, Celery):
        msg = f"{place}: expected a Celery app, such as 'project.celery:app'."
        raise ConfigurationError(msg)
    return app


def _default() -> Celery | None:
    """Return Celery's default app, or None if no app was made.

    Asking Celery for it would make one, which then stays the default.
    """
    app: Celery | None = _state.default_app or _state._tls.current_app
    return app


def is_project_app(app: Celery) -> bool:
    """Return whether the tick and our queues belong to a beat or worker of ``app``."""
    if settings.CELERY_APP is None:
        return True
    try:
        return project_app() is app
    except ConfigurationError:  # the system check says so
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
            options={"queue": on_broker(settings.TICK_QUEUE), "ignore_result": True},
            immutable=True,
        ),
        name=TICK,
    )


def _adopt(app: Celery) -> None:
    """Add the tick to an app that is complete, if a beat of the app is to tick."""
    if settings.EXECUTOR == "celery" and is_project_app(app):
        install_beat(app)


def connect() -> None:
    """Note the default app, and let the beat of any app of the project tick."""
    global _when_ready
    celery_logs.install()
    _when_ready = _default()
    # A beat makes its app complete after the app registry is ready.
    _state.connect_on_app_finalize(_adopt)
    for app in project_apps():
        if app.finalized:
            _adopt(app)


@celeryd_init.connect
def _start_worker(instance: object = None, **kwargs: object) -> None:
    global _of_worker
    _of_worker = getattr(instance, "app", None)


@worker_process_init.connect
def _start_process(**kwargs: object) -> None:
    global _of_worker
    if _of_worker is None:  # a process that was not forked
        _of_worker = _default()
