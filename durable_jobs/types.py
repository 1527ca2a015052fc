"""Shared types. This module imports nothing from the package."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

#: A timedelta, a number of seconds, or a string such as "2h45m".
Duration = timedelta | int | float | str

#: A JSON value in Python.
Json = dict[str, Any] | list[Any] | str | int | float | bool | None

#: The payload of an event or a call.
Data = Mapping[str, Any] | None
