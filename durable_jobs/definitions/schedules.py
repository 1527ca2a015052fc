"""Schedules that are created at run time: ``durable.schedules``."""

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
    """Create a schedule that starts a function at the times of a cron expression.

    The row is written inside the caller's transaction. ``function`` is a function or
    its id. ``owner`` is any saved model instance. The other options are those of
    ``durable.Cron``. Raise ``ConfigurationError``, ``UnknownFunction`` or
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
    """Create a schedule from async code. See ``create``."""
    return await sync_to_async(create)(function, cron, **options)


def get(id: int) -> Schedule:
    """Return a schedule by its id. Raise ``Schedule.DoesNotExist`` if it is unknown."""
    return runtime().schedules().get(pk=id)


def filter(**conditions: Any) -> ScheduleQuerySet:
    """Return schedules in the order of creation.

    Filter by ``function`` (or its id), ``owner`` (None: without owner), ``paused``
    (True or False), or any lookup of the model.
    """
    return runtime().schedules(**conditions)
