"""JSON that strangers wrote: read strictly, before anybody trusts it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.codec import to_tree


def read_json(text: bytes, *, what: str) -> Any:
    """Return the value of a JSON text from outside; raise ``PayloadError``.

    Refused are NaN and infinities, a name twice in one object, what is nested deeper
    than 100 levels, and all that could not be stored.
    """
    try:
        value = _decode(text.decode())
    except RecursionError:
        msg = f"{what} is nested too deep."
        raise PayloadError(msg) from None
    except ValueError as error:
        msg = f"{what} is no JSON: {error}"
        raise PayloadError(msg) from None
    to_tree(value, what=what)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                msg = f"the name {name[:80]!r} is twice in one object"
                raise ValueError(msg)
            seen.add(name)
    return found


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is not allowed"
    raise ValueError(msg)


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode
