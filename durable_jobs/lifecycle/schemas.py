"""Validate the data of events and calls by the declared pydantic models."""

from __future__ import annotations

from typing import Any

from durable_jobs.definitions.admin_action import INSTANCE
from durable_jobs.definitions.events import CALLED
from durable_jobs.definitions.function import Function
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
    """Return the pydantic model of an event's data for a function."""
    for trigger in function.triggers:
        if isinstance(trigger, Event) and trigger.schema is not None:
            for listener, candidate in registry.listeners(event_name):
                if candidate is trigger and listener.id == function.id:
                    return trigger.schema
    return None


def schemas_of_calls(function: Function) -> tuple[type[Any], ...]:
    """Return the models of which the data of a call must match one.

    That is the function's ``input``, or else the schemas of its event triggers. A
    trigger without a schema allows any data in calls, as it does in events.
    """
    if function.input is not None:
        return (function.input,)
    triggers = [one for one in function.triggers if isinstance(one, Event)]
    schemas = [one.schema for one in triggers if one.schema is not None]
    return tuple(schemas) if len(schemas) == len(triggers) else ()


def validate_start(function: Function, event_name: str, data: Any) -> Any:
    """Return the data of a start as its schema types it; raise ``PayloadError``.

    Every start is validated here. A call has to match the schemas of calls, an event
    the schema of the trigger that listens to it.
    """
    if event_name == CALLED:
        return _validate_call(function, data)
    schema = schema_of(function, event_name)
    if schema is None:
        return data
    return validate(schema, data, f"the data of event {event_name!r}")


def _validate_call(function: Function, data: Any) -> Any:
    schemas = schemas_of_calls(function)
    if not schemas:
        return data
    # The instance that an ``admin_action`` is about is no part of the input.
    if function.admin_action and isinstance(data, dict):
        data = {name: data[name] for name in data if name not in INSTANCE}
    given, refused = {} if data is None else data, []
    for schema in schemas:
        try:
            return validate(schema, given, f"the data of {function.id!r}")
        except PayloadError as error:
            refused.append(error.message)
    raise PayloadError(" ".join(refused))


def typed(function: Function, event_name: str, data: Any) -> Any:
    """Return the data of a run's event as its function sees it."""
    if event_name != CALLED or function.input is not None:
        return validate_start(function, event_name, data)
    try:
        return validate_start(function, event_name, data)
    except PayloadError:
        return data  # started by a version that did not validate calls
