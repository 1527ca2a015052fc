"""Conditions on values in JSON columns, by paths such as ``data.order.id=7``."""

from __future__ import annotations

import json
import re
from typing import Any

from django.db.models.fields.json import KeyTransform

from durable_jobs import serialization
from durable_jobs.exceptions import FilterError, LimitExceeded, PayloadError
from durable_jobs.http_input import parse_json

_WRITTEN = re.compile(r"(data|output|error)((?:\.[\w-]{1,64}){1,10})=(.*)", re.S)
#: Maximum bytes of a value.
MOST_BYTES = 2**16
_POSITION = re.compile(r"[0-9]{1,9}")
_NEGATIVE = re.compile(r"-[0-9]+")


class Key(KeyTransform):
    """The value of a key in an object, or of a position in a list.

    Django would treat every text that ``int()`` accepts as a position, for example
    ``2024_01``.
    """

    def as_postgresql(self, compiler: Any, connection: Any) -> Any:
        """Return the SQL. The operator accepts a number for a key or a position."""
        column, params, keys = self.preprocess_lhs(compiler, connection)
        return f"({column} {self.postgres_nested_operator} %s)", (*params, keys)

    def as_sqlite(self, compiler: Any, connection: Any, **more: Any) -> Any:
        """Return the SQL, which distinguishes true, false and null from strings."""
        column, params, keys = self.preprocess_lhs(compiler, connection)
        path = "$" + "".join(
            f"[{key}]" if _POSITION.fullmatch(key) else f".{json.dumps(key)}"
            for key in keys
        )
        kind, value = f"JSON_TYPE({column}, %s)", f"JSON_EXTRACT({column}, %s)"
        named = f"{kind} IN ('false', 'true', 'null')"
        sql = f"(CASE WHEN {named} THEN {kind} ELSE {value} END)"
        return sql, (*params, path) * 3


def path(text: str) -> tuple[str, list[str], Any]:
    """Return the column, the keys and the value of ``data.path.to.key=value``.

    The value is JSON, or otherwise the text itself. Raise ``FilterError``.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        msg = (
            f"Expected data.path.to.key=value as 'where', or the same with output or "
            f"error, got {text!r:.80}."
        )
        raise FilterError(msg)
    column, keys, value = found[1], found[2].split(".")[1:], found[3]
    for key in keys:
        if _NEGATIVE.fullmatch(key) or (
            key.isdecimal() and not _POSITION.fullmatch(key)
        ):
            msg = f"Expected a key, or a position from 0 on, in 'where', got {key!r}."
            raise FilterError(msg)
    return column, keys, _value(value)


def expression(column: str, keys: list[str]) -> Any:
    """Return the expression of the value at a path."""
    found: Any = column
    for key in keys:
        found = Key(key, found)
    return found


def _value(text: str) -> Any:
    try:
        raw = text.encode(errors="surrogatepass")
        wanted = parse_json(raw, what="the value", most=MOST_BYTES)
    except PayloadError:
        wanted = text  # NaN, for example
    except LimitExceeded as error:
        raise FilterError(f"'where': {error.message}") from None
    try:
        serialization.to_tree(wanted, what="the value")
    except PayloadError as error:
        msg = f"Expected a value that JSON can hold in 'where': {error.message}"
        raise FilterError(msg) from None
    return wanted
