"""What data has to look like: pydantic models of events, and of calls."""

from __future__ import annotations

from typing import Any

from durable_jobs.definitions.events import CALLED
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.offers import INSTANCE
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Event
from durable_jobs.exceptions import PayloadError


def validate(schema: type[Any], data: Any, what: str) -> Any:
    """Return ``data`` as the pydantic model ``schema``; raise ``PayloadError``."""
    from pydantic import ValidationError

    if isinstance(data, schema):
        return data
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'data'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        )
        msg = f"{what} does not fit {schema.__name__}: {problems}."
        raise PayloadError(msg) from None


def schema_of(function: Function, event_name: str) -> type[Any] | None:
    """Return the pydantic model that types an event's data for a function."""
    for trigger in function.triggers:
        if isinstance(trigger, Event) and trigger.schema is not None:
            for listener, candidate in registry.listeners(event_name):
                if candidate is trigger and listener.id == function.id:
                    return trigger.schema
    return None


def called_with(function: Function, data: Any) -> Any:
    """Return what a function is called with as its ``input``; raise ``PayloadError``.

    The instance that an ``admin_action`` is about is no part of the input.
    """
    if function.input is None:
        return data
    if function.admin_action and isinstance(data, dict):
        data = {name: data[name] for name in data if name not in INSTANCE}
    what = f"the data of {function.id!r}"
    return validate(function.input, {} if data is None else data, what)


def typed(function: Function, event_name: str, data: Any) -> Any:
    """Return an event's data as the function sees it: by the trigger or the input."""
    if event_name == CALLED:
        return called_with(function, data)
    schema = schema_of(function, event_name)
    if schema is None:
        return data
    return validate(schema, data, f"the data of event {event_name!r}")
