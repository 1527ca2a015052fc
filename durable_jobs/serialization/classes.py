"""Class names, and lookup of classes by name, without importing anything."""

from __future__ import annotations

import sys
from functools import lru_cache

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.path_error import PathError


@lru_cache(maxsize=1024)
def class_name(cls: type) -> str:
    """Return ``module:qualname``.

    Raise ``PathError`` if that is not the class itself.
    """
    name = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = find_class(name)
    except PayloadError:
        found = None
    if found is not cls:
        raise PathError(
            f"object of the class {cls.__qualname__} cannot be stored, as {name!r} "
            "does not lead to that class; expected a class at the top of a module or "
            "of another class"
        )
    return name


def find_class(name: str) -> type:
    """Return the class with a name from ``class_name``.

    Raise ``PayloadError`` if the module is not imported, or has no class of this name.
    """
    module_name, _, path = name.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise PayloadError(
            f"A stored value is of the class {name!r}, but the module {module_name} is "
            "not imported: expected the code that reads it to import that module."
        )
    found: object = module
    for part in path.split("."):
        # vars(), not getattr(), so that no hook of a module or class runs.
        found = vars(found).get(part)
        if not isinstance(found, type):
            raise PayloadError(
                f"A stored value is of the class {name!r}, but the module "
                f"{module_name} has no such class."
            )
    assert isinstance(found, type)
    return found


def is_pydantic(cls: type) -> bool:
    """Return whether a class is a pydantic model, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)
    return isinstance(base, type) and issubclass(cls, base)
