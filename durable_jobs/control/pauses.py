"""Pause and resume functions, keys of functions, and queues."""

from __future__ import annotations

from typing import Any

from durable_jobs import notifier
from durable_jobs.definitions.function import EVERY, Function
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.flow_control import keys, pauses
from durable_jobs.lifecycle import admission
from durable_jobs.models import Pause
from durable_jobs.store import db


def pause_function(function: Function, *, key: Any, skip: bool, reason: str) -> bool:
    """Pause a function, or one key of it; return whether this call did it.

    After the commit no run starts. The tick moves queued runs to backlogs in batches,
    so that claims do not read them.
    """
    if key is not EVERY:
        text = _key_of(function, key)
        return pauses.pause(Pause.KEY, function.id, text, skip=skip, reason=reason)
    return pauses.pause(Pause.FUNCTION, function.id, skip=skip, reason=reason)


def resume_function(function: Function, *, key: Any) -> bool:
    """Resume a function, or one key of it; return whether this call did it."""
    if key is EVERY:
        return _resume(Pause.FUNCTION, function.id)
    return _resume(Pause.KEY, function.id, _key_of(function, key))


def resume_paused(pause: Pause) -> bool:
    """End a pause, even of an undeclared function; return whether this call did it."""
    if pause.kind == Pause.QUEUE:
        return resume_queue(pause.name)
    return _resume(pause.kind, pause.name, pause.key)


def _resume(kind: str, name: str, key: str = "") -> bool:
    done = pauses.resume(kind, name, key)
    if done:
        db.after_commit(lambda: admission.restart_function(name))
        function = registry.find(name)
        if function is not None:
            notifier.notify(function.queue)
    return done


def _key_of(function: Function, key: Any) -> str:
    controls = function.flow_control
    keyed = [*controls.concurrency, controls.throttle, controls.singleton]
    if controls.ordering is None and not any(one and one.key for one in keyed):
        msg = (
            f"Durable function {function.id!r} has no flow control with a key: pause "
            f"the whole function, or declare concurrency, a throttle, a singleton or "
            f"an ordering with that key."
        )
        raise ConfigurationError(msg)
    return keys.key_text(keys.normalized(key))


def pause_queue(queue: str, reason: str) -> bool:
    """Pause a queue; return whether this call did it.

    Current attempts continue until their runs suspend or end.
    """
    check_name(queue, "a queue name")
    return pauses.pause(Pause.QUEUE, queue, skip=False, reason=reason)


def resume_queue(queue: str) -> bool:
    """Resume a queue; return whether this call did it."""
    done = pauses.resume(Pause.QUEUE, check_name(queue, "a queue name"))
    if done:
        db.after_commit(lambda: admission.restart_queue(queue))
        notifier.notify(queue)
    return done
