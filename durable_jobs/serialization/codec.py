"""Text and trees from values, and back."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.decoding import decode, decode_dict
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.path_error import Refusal
from durable_jobs.serialization.plain_json import is_plain
from durable_jobs.serialization.tags import OWN_LEVELS, TAG


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_write = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode
_read_plain = json.JSONDecoder(parse_constant=_refuse_constant).decode
_read_tagged = json.JSONDecoder(
    parse_constant=_refuse_constant, object_hook=decode_dict
).decode


def dumps(
    value: Any,
    *,
    what: str,
    limit: int | None = None,
    limit_setting: str = "",
    own: bool = False,
) -> str:
    """Write a value as compact JSON text, which ``loads`` reads back equal.

    ``what`` names the value in messages, ``limit`` is in bytes of UTF-8 and comes from
    the setting ``limit_setting``. A value that cannot be stored, is nested deeper than
    100 levels or is too large is a ``PayloadError`` that says where and why.

    ``own``: the engine has put an accepted value inside others. Its own levels do not
    count.
    """
    text = _plain_text(value, own=own)
    if text is None:
        tree = to_tree(value, what=what, own=own)
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
    """Give the value that ``dumps`` wrote as this text.

    Text that ``dumps`` did not write, or that names a class or a zone that is not here,
    is a ``PayloadError``; a reference to a row that is gone raises its model's
    ``DoesNotExist``.
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


def to_tree(value: Any, *, what: str, own: bool = False) -> Any:
    """Give the value as a tree of JSON's own types, which ``from_tree`` reads back.

    ``own`` and the errors are as in ``dumps``, which is the faster way to text.
    """
    try:
        return encode(value, _first_level(own))
    except Refusal as refusal:
        raise PayloadError(refusal.sentence(what)) from refusal.__cause__
    except RecursionError:
        raise PayloadError(
            f"{what} is nested too deep for the stack that is left here."
        ) from None


def from_tree(tree: Any) -> Any:
    """Give the value that ``to_tree`` made this tree from, with ``loads``'s errors."""
    try:
        return decode(tree)
    except RecursionError as error:
        raise PayloadError(f"The stored tree cannot be read: {error}") from error


def _first_level(own: bool) -> int:
    """Return the level at which a value begins: below 0 leaves room for ours."""
    return -OWN_LEVELS if own else 0


def _plain_text(value: Any, *, own: bool) -> str | None:
    """Write a value that JSON keeps as it is; give None when it takes the long way."""
    try:
        if not is_plain(value, _first_level(own)):
            return None
        text = _write(value)
    except RecursionError:
        return None
    # What is wrong inside texts shows in the whole text, where looking is fast. A false
    # alarm only costs the long way, which finds the place when there is one.
    if TAG in text or "\\u0000" in text:
        return None
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
    return text
