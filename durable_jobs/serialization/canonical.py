"""Canonical text of a value, by which keys are compared."""

from __future__ import annotations

import json
from typing import Any

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.path_error import PathError
from durable_jobs.serialization.tag_format import TAG, VALUE

_write = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, check_circular=False, separators=(",", ":")
).encode


def canonical(value: Any, *, what: str = "key") -> str:
    """Return a text that is the same for equal values and differs for others.

    Keys are sorted. A float that is a whole number equals that integer. True is not 1.
    Raise ``PayloadError``, naming ``what``, if the value cannot be stored.
    """
    try:
        return _write(_normalized(encode(value)))
    except PathError as refusal:
        raise PayloadError(refusal.sentence(what)) from refusal.__cause__
    except RecursionError:
        raise PayloadError(f"{what} is nested too deep.") from None


def _normalized(tree: Any) -> Any:
    """Return the tree with one form for each number and sorted mappings."""
    if isinstance(tree, float):
        return int(tree) if tree.is_integer() else tree
    if isinstance(tree, list):
        return [_normalized(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get(TAG)
    if kind == "int":
        return int(tree[VALUE])
    if kind == "float":
        number = float(tree[VALUE])
        return int(number) if number.is_integer() else tree
    if kind == "dict":
        return {TAG: kind, VALUE: sorted(_normalized(tree[VALUE]), key=_write)}
    return {key: _normalized(item) for key, item in tree.items()}
