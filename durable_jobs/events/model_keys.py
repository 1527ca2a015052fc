"""Check the keys of functions that model changes start.

A missing path is null, and null is one key: the runs of all tenants would share one
limit. If the events of a ``ModelChange`` may lack a field that a key reads, the
declaration is an error.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Model

from durable_jobs.definitions.function import Function
from durable_jobs.definitions.triggers import ModelChange
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions import Path

CHANGED = "changed"
#: The data that every change event has.
ALWAYS = ("model", "pk", CHANGED)


def columns(model: type[Model]) -> dict[str, str]:
    """Return the field name for each name that ``include`` accepts."""
    fields = model._meta.concrete_fields
    return {field.attname: field.name for field in fields} | {
        field.name: field.name for field in fields
    }


def check_include(model: type[Model], trigger: ModelChange, where: str) -> None:
    """Raise ``ConfigurationError`` for an invalid name in ``include``."""
    known = columns(model)
    for name in trigger.include:
        if name in ALWAYS:
            msg = f"{where}: include names {name!r}, which every event has already."
            raise ConfigurationError(msg)
        if name not in known:
            msg = (
                f"{where}: expected fields in include among {', '.join(known)}, got "
                f"{name!r}."
            )
            raise ConfigurationError(msg)


def check_keys(
    function: Function, model: type[Model], trigger: ModelChange, where: str
) -> None:
    """Raise ``ConfigurationError`` for a key that reads a field the events lack."""
    for key, path in _read(function):
        reason = _missing(path, model, trigger)
        if reason is not None:
            msg = f"{where}: {key} reads event.{'.'.join(map(str, path))}: {reason}."
            raise ConfigurationError(msg)


def _read(function: Function) -> Iterator[tuple[str, Path]]:
    """Yield the paths of the event that each key reads, as far as known."""
    for expression in function.flow_control.expressions:
        for variable, *path in expression.reads():
            if variable == "event":
                yield f"{expression.where} {expression.source!r}", tuple(path)
    for cancel in function.cancel_on:
        if cancel.match is not None:
            yield f"cancel_on match {cancel.match!r}", tuple(cancel.match.split("."))


def _missing(path: Path, model: type[Model], trigger: ModelChange) -> str | None:
    """Return why the events of a trigger may lack a path, or None."""
    if len(path) < 2 or path[0] != "data":
        return None
    known, name = columns(model), path[1]
    has = ", ".join([*ALWAYS, *trigger.include])
    if name != CHANGED:
        if name in (*ALWAYS, *trigger.include):
            return None
        add = f"; add include=[{name!r}]" if name in known else ""
        return f"expected one of {has}, which the events have{add}"
    if len(path) < 3:
        return None
    field = path[2]
    if field not in known or known[str(field)] != field:
        names = dict.fromkeys(known.values())
        return f"expected one of the fields {', '.join(names)} in changed"
    if trigger.updated and tuple(trigger.fields or ()) != (field,):
        return (
            f"an update has it only if it changed; add include=[{field!r}] and read "
            f"event.data.{field}"
        )
    return None
