"""Objects with named fields, seen as the mappings that they are in JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def mapping_of(value: Any) -> Mapping[Any, Any] | None:
    """Return a mapping, or the fields of a dataclass or pydantic model, else None."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name, None) for name in names}
    # Asked of the class: nobody has to have pydantic for it.
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is None:
        return None
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return {name: getattr(value, name, None) for name in fields} | extra
