"""One text for all values that are equal: what keys are compared by."""

from __future__ import annotations

import json
from typing import Any

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.path_error import Refusal
from durable_jobs.serialization.tags import TAG, VALUE

_write = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, check_circular=False, separators=(",", ":")
).encode


def canonical(value: Any, *, what: str = "key") -> str:
    """Give a stable text: the same for equal values, another one for others.

    Keys are sorted, a float that is a whole number is that integer, and True is not 1.
    A value that cannot be stored is a ``PayloadError`` that names ``what``.
    """
    try:
        return _write(_settled(encode(value)))
    except Refusal as refusal:
        raise PayloadError(refusal.sentence(what)) from refusal.__cause__
    except RecursionError:
        raise PayloadError(f"{what} is nested too deep.") from None


def _settled(tree: Any) -> Any:
    """Give a tree with one form for each number and one order for each mapping."""
    if isinstance(tree, float):
        return int(tree) if tree.is_integer() else tree
    if isinstance(tree, list):
        return [_settled(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind = tree.get(TAG)
    if kind == "int":
        return int(tree[VALUE])
    if kind == "float":
        number = float(tree[VALUE])
        return int(number) if number.is_integer() else tree
    if kind == "dict":
        return {TAG: kind, VALUE: sorted(_settled(tree[VALUE]), key=_write)}
    return {key: _settled(item) for key, item in tree.items()}
