"""Conversion of values to JSON text and trees, and back."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.decoding import decode, decode_dict
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.path_error import PathError
from durable_jobs.serialization.plain_json import is_plain
from durable_jobs.serialization.tag_format import TAG, WRAPPER_LEVELS


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_write = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_read_plain = json.JSONDecoder(parse_constant=_reject_constant).decode
_read_tagged = json.JSONDecoder(
    parse_constant=_reject_constant, object_hook=decode_dict
).decode


def dumps(
    value: Any,
    *,
    what: str,
    limit: int | None = None,
    limit_setting: str = "",
    wrapped: bool = False,
) -> str:
    """Return a value as compact JSON text, which ``loads`` reads back equal.

    ``what`` names the value in messages. ``limit`` is in bytes of UTF-8, from the
    setting ``limit_setting``. Raise ``PayloadError`` with the place and the reason if
    the value cannot be stored, has more than 100 levels, or is too large.

    ``wrapped``: the engine has wrapped an accepted value, so the levels of the
    wrapper do not count.
    """
    text = _plain_text(value, wrapped=wrapped)
    if text is None:
        tree = to_tree(value, what=what, wrapped=wrapped)
        text = _write(tree)
    if limit is not None:
        size = len(text) if text.isascii() else len(text.encode())
        if size > limit:
            setting = f", the setting {limit_setting}" if limit_setting else ""
            raise PayloadError(
                f"{what} is {size} bytes as stored: expected at most {limit}{setting}."
            )
    return text


def loads(text: str | bytes) -> Any:
    """Return the value that ``dumps`` wrote as this text.

    Raise ``PayloadError`` if ``dumps`` did not write the text, or if a class or time
    zone is unknown. Raise the model's ``DoesNotExist`` if a referenced row was deleted.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        if TAG not in text:
            return _read_plain(text)
        if '"model"' in text:
            return from_tree(_read_plain(text))
        return _read_tagged(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"The stored text cannot be read: {error}") from error


def to_tree(value: Any, *, what: str, wrapped: bool = False) -> Any:
    """Return the value as a tree of JSON types, which ``from_tree`` reads back.

    ``wrapped`` and the errors are as in ``dumps``. For text, ``dumps`` is faster.
    """
    try:
        return encode(value, _first_level(wrapped))
    except PathError as refusal:
        raise PayloadError(refusal.sentence(what)) from refusal.__cause__
    except RecursionError:
        raise PayloadError(
            f"{what} is nested too deep for the remaining stack."
        ) from None


def from_tree(tree: Any) -> Any:
    """Return the value that ``to_tree`` made into this tree. Raise as ``loads``."""
    try:
        return decode(tree)
    except RecursionError as error:
        raise PayloadError(f"The stored tree cannot be read: {error}") from error


def _first_level(wrapped: bool) -> int:
    """Return the first level: below 0, so that the levels of a wrapper do not count."""
    return -WRAPPER_LEVELS if wrapped else 0


def _plain_text(value: Any, *, wrapped: bool) -> str | None:
    """Return the text of a value that JSON preserves, or None for the slow path."""
    try:
        if not is_plain(value, _first_level(wrapped)):
            return None
        text = _write(value)
    except RecursionError:
        return None
    # One search in the whole text finds invalid strings fast. A false alarm only costs
    # the slow path, which finds the exact place.
    if TAG in text or "\\u0000" in text:
        return None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
    return text
