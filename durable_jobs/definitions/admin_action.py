"""Checks of ``input`` and ``admin_action``, which let the admin start a function."""

from __future__ import annotations

import inspect
from typing import Any

from durable_jobs.exceptions import ConfigurationError

#: The names in a run's data that identify its model instance.
INSTANCE = ("model", "pk")


def admin_model_label(admin_action: Any) -> str:
    """Return the label of the model in whose admin a function can be started, or ""."""
    return "" if admin_action is None else model_label(admin_action, "admin_action")


def model_label(model: Any, what: str) -> str:
    """Return the label of a model given as a class or as its label."""
    meta = getattr(model, "_meta", None)
    label = meta.label if meta is not None else model
    parts = label.split(".") if isinstance(label, str) else []
    if len(parts) != 2 or not all(part.isidentifier() for part in parts):
        msg = f"Expected a model or 'app_label.ModelName' in {what}, got {model!r:.80}."
        raise ConfigurationError(msg)
    return str(label)


def check_schema(schema: Any, what: str) -> Any:
    """Return a pydantic model or None.

    Raise ``ConfigurationError`` for other values.
    """
    if schema is None or (
        inspect.isclass(schema) and hasattr(schema, "model_validate")
    ):
        return schema
    msg = f"Expected {what} to be a pydantic model, got {schema!r:.80}."
    raise ConfigurationError(msg)


def check_admin_action(admin_action: str, input: Any, *, buffering: bool) -> None:
    """Raise ``ConfigurationError`` if a function cannot be an admin action."""
    if not admin_action:
        return
    if buffering:
        msg = (
            "Expected no debounce or batch with admin_action: runs that a user starts "
            "are not buffered."
        )
        raise ConfigurationError(msg)
    reserved = [name for name in INSTANCE if name in getattr(input, "model_fields", ())]
    if reserved:
        msg = (
            f"Expected an input without a field {reserved[0]!r}: with admin_action, "
            f"this name in the run's data identifies the model instance."
        )
        raise ConfigurationError(msg)
