"""Schedules that users create at run time: ``durable.schedules``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async

from durable_jobs.definitions.runtime import runtime

if TYPE_CHECKING:
    from django.db.models import Model

    from durable_jobs.definitions.function import Function
    from durable_jobs.definitions.triggers import CatchUp, Overlap
    from durable_jobs.models import Schedule, ScheduleQuerySet
    from durable_jobs.types import Data, Duration


def create(
    function: Function | str,
    cron: str,
    *,
    tz: str = "UTC",
    data: Data = None,
    owner: Model | None = None,
    name: str = "",
    jitter: Duration | None = None,
    catch_up: CatchUp = "skip",
    overlap: Overlap = "allow",
) -> Schedule:
    """Start a function at the times of a cron, from now on, and return the schedule.

    It is a row, written inside the caller's transaction. ``function`` may be given by
    its id, ``owner`` is any saved instance. ``tz`` and the options mean what they mean
    in ``durable.Cron``. Raises ``ConfigurationError``, ``UnknownFunction`` or
    ``PayloadError`` before anything is stored.
    """
    return runtime().create_schedule(
        function,
        {
            "cron": cron,
            "tz": tz,
            "data": data,
            "owner": owner,
            "name": name,
            "jitter": jitter,
            "catch_up": catch_up,
            "overlap": overlap,
        },
    )


async def acreate(function: Function | str, cron: str, **options: Any) -> Schedule:
    """Create a schedule as ``create`` does, from async code."""
    return await sync_to_async(create)(function, cron, **options)


def get(id: int) -> Schedule:
    """Return a schedule by its id; raise ``Schedule.DoesNotExist``."""
    return runtime().schedules().get(pk=id)


def filter(**conditions: Any) -> ScheduleQuerySet:
    """Return schedules, the earliest made first.

    ``function`` (or its id), ``owner`` (None: without one) and ``paused`` (True or
    False) narrow them, as does any lookup of the model.
    """
    return runtime().schedules(**conditions)
