"""Payloads as the database stores them: JSON that is decoded when it is read.

A stored payload may name a class or a row that this process cannot load. Without
decoding, the row can still be claimed, cancelled and shown.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ObjectDoesNotExist

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.codec import from_tree, loads


class EncodedJSON(str):
    """JSON text that the codec has encoded already."""


class StoredPayload:
    """A payload as the database returns it: JSON text, or parsed JSON."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        return f"StoredPayload({self._raw!r:.80})"

    def tree(self) -> Any:
        """Return the parsed JSON, with its tags."""
        return json.loads(self._raw) if isinstance(self._raw, str) else self._raw

    def text(self) -> str:
        """Return the JSON text."""
        return self._raw if isinstance(self._raw, str) else json.dumps(self._raw)

    def decoded(self) -> Any:
        """Return the value; raise the error that makes it unreadable."""
        if isinstance(self._raw, str):
            return loads(self._raw)
        return from_tree(self._raw)

    def shown(self) -> Any:
        """Return the value, or the parsed JSON if the value is unreadable."""
        try:
            return self.decoded()
        except Exception:  # noqa: BLE001  # of a class, model or database of the project
            return self.tree()


def decode_lenient(text: str) -> Any:
    """Return a stored value, or the parsed JSON if its class or instance is missing."""
    try:
        return loads(text)
    except (PayloadError, ObjectDoesNotExist):
        return json.loads(text)
