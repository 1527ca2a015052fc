"""Start a function for selected instances, with an entry in the admin's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import Model

from durable_jobs.control import audit
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.function import Function
from durable_jobs.events.model_changes import concrete
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.flow_control.keys import digest
from durable_jobs.lifecycle import start as start_runs
from durable_jobs.lifecycle import trigger
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.lifecycle.trigger import TriggeredStart
from durable_jobs.models import Run
from durable_jobs.store import db

PERMISSION = "durable_jobs.start_run"
#: Maximum of instances per call.
MOST = 1000


def start(
    actor: Actor,
    function: Function,
    instances: Sequence[Model],
    payload: Mapping[str, Any],
    *,
    token: str,
    reason: str = "",
) -> list[Run]:
    """Start one run per instance, all or none; return the runs that this call started.

    A second call with the same ``token`` starts no runs. The data of a run is the
    payload with ``model`` and ``pk``. Raise ``PermissionDenied``, ``LimitExceeded`` for
    more than ``MOST`` instances, and ``PayloadError`` if the input is invalid.
    """
    if not actor.may(PERMISSION):
        raise PermissionDenied
    if len(instances) > MOST:
        msg = f"Expected at most {MOST:,} objects at once, got {len(instances):,}."
        raise LimitExceeded(msg)
    chosen = {
        made.id: (made, instance)
        for instance in instances
        for made in [_start(function, instance, payload)]
    }
    with db.atomic():
        trigger.start_triggered(
            [
                TriggeredStart(made, (f"form:{token}:{digest(instance.pk)}",))
                for made, instance in chosen.values()
            ]
        )
        known = db.rows(Run).filter(pk__in=list(chosen))
        runs = list(known.defer("data", "event_meta").order_by("pk"))
        what = f"Started by hand: {reason}" if reason else "Started by hand."
        entries: list[tuple[Model, str]] = []
        for run in runs:
            instance = chosen[run.pk][1]
            entries.append((run, what))
            entries.append((instance, f"{run.function} {run.pk}: {what}"))
        audit.write_all(actor, entries)
    return runs


def _start(function: Function, instance: Model, payload: Mapping[str, Any]) -> NewRun:
    meta = concrete(type(instance))._meta
    data = {"model": meta.label, "pk": instance.pk, **payload}
    subject = (meta.label_lower, str(instance.pk))
    return replace(start_runs.call(function, data), subjects=(subject,))
