"""The set-up of a Celery worker: its queues, watchdog and shutdown.

All functions here are receivers of Celery's worker signals, or connect such receivers.
"""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from functools import partial
from typing import Any

from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    task_postrun,
    task_prerun,
    task_received,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)
from celery.worker import state

from durable_jobs import clock
from durable_jobs.worker import (
    pools,  # noqa: F401  # connects its receiver
    prefork,
    queues,
    shutdown,
    unacknowledged,  # noqa: F401  # connects its receiver
    worker_checks,  # noqa: F401  # connects its receiver
)
from durable_jobs.worker import watchdog as watchdog_module
from durable_jobs.worker.active_tasks import ActiveTasks
from durable_jobs.worker.celery_app import is_project_app

#: The ``dispatch_uid`` of the receivers that this module connects in a worker.
BUSY = "durable_jobs.busy"


@celeryd_init.connect
def _consume(instance: Any = None, **kwargs: Any) -> None:
    """Add the queues of this package to those that a worker consumes by default.

    Celery applies ``-Q`` and ``-X`` afterwards, so they take precedence.
    """
    if not is_project_app(instance.app):
        return
    known = instance.app.amqp.queues
    for name in queues.project_queues():
        # With task_create_missing_queues=False, only declared queues are consumed.
        with suppress(KeyError):
            known.select_add(known[name])


@celeryd_after_setup.connect
def _save_consumed(instance: Any = None, **kwargs: Any) -> None:
    """Save the queues that this worker consumes, before the pool forks.

    Sending a message adds its queue to Celery's queues, so a later reading is wrong.
    """
    names = instance.app.amqp.queues.consume_from
    queues.consumed[:] = queues.consumed_queues(names)


@worker_init.connect
@worker_process_init.connect
def _reset_clock(**kwargs: Any) -> None:
    clock.reset()


@worker_init.connect
def _start(**kwargs: Any) -> None:
    shutdown.clear()
    # Before the pool forks, since its processes share the file.
    tasks = ActiveTasks(tempfile.TemporaryFile())  # noqa: SIM115  # open until exit
    task_prerun.connect(tasks.begin, weak=False, dispatch_uid=BUSY)
    task_postrun.connect(tasks.end, weak=False, dispatch_uid=BUSY)
    prepare = partial(_prepare, tasks)
    celeryd_after_setup.connect(prepare, weak=False, dispatch_uid=BUSY)


def _prepare(tasks: ActiveTasks, instance: Any = None, **kwargs: Any) -> None:
    """Choose, before the pool starts, which process runs the watchdog."""
    if not prefork.is_prefork(instance.pool_cls):
        worker_ready.connect(
            partial(_start_watchdog, tasks), weak=False, dispatch_uid=BUSY
        )
        return
    watchdog = prefork.PreforkWatchdog(tasks, queues.consumed)
    signal.signal(prefork.SHUTDOWN_SIGNAL, _shut_down)
    worker_process_init.connect(watchdog.start, weak=False, dispatch_uid=BUSY)

    def attach(sender: Any, **kwargs: Any) -> None:
        watchdog.attach(sender, _has_reserved)

    worker_ready.connect(attach, weak=False, dispatch_uid=BUSY)


@worker_shutting_down.connect
def _stop(**kwargs: Any) -> None:
    shutdown.request()


def _start_watchdog(tasks: ActiveTasks, sender: Any, **kwargs: Any) -> None:
    """Start the watchdog in the worker's main process."""
    probe = watchdog_module.IdleProbe(tasks.any, _has_reserved)
    if sender.hub is None:
        probe.has_loop = False
    else:
        sender.hub.call_repeatedly(watchdog_module.LOOP_INTERVAL, probe.loop_seen)
    watchdog = watchdog_module.Watchdog(queues.consumed, probe.idle, _shut_down)
    task_received.connect(watchdog.message_received, weak=False)
    worker_shutting_down.connect(watchdog.stop, weak=False)
    watchdog.start()


def _has_reserved() -> bool:
    """Return whether a received message has not started in any process."""
    try:
        return any(request.time_start is None for request in state.reserved_requests)
    except RuntimeError:  # another thread has changed the set during the iteration
        return True


def _shut_down(*signal: object) -> None:
    """Shut the worker down with exit code ``EX_UNAVAILABLE``.

    A second call exits at once, since a main process that is blocked on a broker
    connection does not see the request.
    """
    if state.should_stop is not None:
        os._exit(os.EX_UNAVAILABLE)
    state.should_stop = os.EX_UNAVAILABLE  # type: ignore[assignment]  # the stubs type it by its first value
