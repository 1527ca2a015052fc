"""Keys of functions that start on changes of models: what they read has to be there.

A path that is missing is null, and null is one key for all: the runs of all tenants
would share one limit. Where the events of a ``ModelChange`` can be known not to have
what a key reads, the function is refused when it is declared.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Model

from durable_jobs.definitions.function import Function
from durable_jobs.definitions.triggers import ModelChange
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions import Path

CHANGED = "changed"
#: What the event of each change has.
ALWAYS = ("model", "pk", CHANGED)


def columns(model: type[Model]) -> dict[str, str]:
    """Return the fields by the names that ``include`` takes: a name or an attname."""
    fields = model._meta.concrete_fields
    return {field.attname: field.name for field in fields} | {
        field.name: field.name for field in fields
    }


def check_include(model: type[Model], trigger: ModelChange, where: str) -> None:
    """Raise ``ConfigurationError`` for a name in ``include`` that cannot be carried."""
    known = columns(model)
    for name in trigger.include:
        if name in ALWAYS:
            msg = f"{where}: include names {name!r}, which the event has for itself."
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
    """Raise ``ConfigurationError`` for a key that reads what the events do not have."""
    for key, path in _read(function):
        reason = _missing(path, model, trigger)
        if reason is not None:
            msg = f"{where}: {key} reads event.{'.'.join(map(str, path))}: {reason}."
            raise ConfigurationError(msg)


def _read(function: Function) -> Iterator[tuple[str, Path]]:
    """Give what each key reads of the event, as far as it can be known."""
    for expression in function.flow_control.expressions:
        for variable, *path in expression.reads():
            if variable == "event":
                yield f"{expression.where} {expression.source!r}", tuple(path)
    for cancel in function.cancel_on:
        if cancel.match is not None:
            yield f"cancel_on match {cancel.match!r}", tuple(cancel.match.split("."))


def _missing(path: Path, model: type[Model], trigger: ModelChange) -> str | None:
    """Return why the events of a trigger may lack what is at a path."""
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
