"""What a function asks of whoever starts it: an input, and what it is about."""

from __future__ import annotations

import inspect
from typing import Any

from durable_jobs.exceptions import ConfigurationError

#: The names in a run's data that tell which instance it is about.
INSTANCE = ("model", "pk")


def offered_for(admin_action: Any) -> str:
    """Return the label of the model in whose admin a function is offered, or ""."""
    if admin_action is None:
        return ""
    meta = getattr(admin_action, "_meta", None)
    label = meta.label if meta is not None else admin_action
    parts = label.split(".") if isinstance(label, str) else []
    if len(parts) != 2 or not all(part.isidentifier() for part in parts):
        msg = (
            f"Expected a model or 'app_label.ModelName' in admin_action, got "
            f"{admin_action!r:.80}."
        )
        raise ConfigurationError(msg)
    return str(label)


def check_schema(schema: Any, what: str) -> Any:
    """Return a pydantic model, or None; raise for anything else."""
    if schema is None or (
        inspect.isclass(schema) and hasattr(schema, "model_validate")
    ):
        return schema
    msg = f"Expected {what} to be a pydantic model, got {schema!r:.80}."
    raise ConfigurationError(msg)


def check_offer(admin_action: str, input: Any, *, gathers: bool) -> None:
    """Raise for a function that cannot be offered as it is declared."""
    if not admin_action:
        return
    if gathers:
        msg = (
            "Expected no debounce or batch with admin_action: what a person starts is "
            "not gathered."
        )
        raise ConfigurationError(msg)
    taken = [name for name in INSTANCE if name in getattr(input, "model_fields", ())]
    if taken:
        msg = (
            f"Expected an input without a field {taken[0]!r}: with admin_action the "
            f"run's data says by it which instance the run is about."
        )
        raise ConfigurationError(msg)
