"""The names of classes, and the classes of names, without importing anything."""

from __future__ import annotations

import sys
from functools import lru_cache

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.path_error import Refusal


@lru_cache(maxsize=1024)
def class_name(cls: type) -> str:
    """Give ``module:qualname``, or raise ``Refusal`` when that does not lead back."""
    name = f"{cls.__module__}:{cls.__qualname__}"
    try:
        found = find_class(name)
    except PayloadError:
        found = None
    if found is not cls:
        raise Refusal(
            f"object of the class {cls.__qualname__} cannot be stored, as {name!r} "
            "does not lead to that class; expected a class at the top of a module or "
            "of another class"
        )
    return name


def find_class(name: str) -> type:
    """Give the class with the name that ``class_name`` gave.

    Only modules that are imported already are looked into: a ``PayloadError`` says
    which one is not, or that it has no such class.
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
    """Tell whether a class is a pydantic model, without importing pydantic for it."""
    pydantic = sys.modules.get("pydantic")
    base = getattr(pydantic, "BaseModel", None)
    return isinstance(base, type) and issubclass(cls, base)
