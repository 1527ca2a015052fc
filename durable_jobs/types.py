"""Shared type names. Nothing of the project is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

#: A length of time: a timedelta, seconds, or a text such as "2h45m".
Duration = timedelta | int | float | str

#: What a JSON document can hold, as Python values.
Json = dict[str, Any] | list[Any] | str | int | float | bool | None

#: The payload of an event or a call.
Data = Mapping[str, Any] | None
