"""The filter of a bulk run, checked so that many values give one error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _check(given: Any) -> Any:
    """Raise ``ValueError`` for the first condition that is not a string or a list."""
    for name, values in given.items() if isinstance(given, dict) else ():
        several = values if isinstance(values, list) else [values]
        if not several:
            # An empty condition would match every run.
            msg = f"expected a value for {name!r:.80}, got an empty list"
            raise ValueError(msg)
        if not all(isinstance(one, str) for one in several):
            msg = f"expected {name!r:.80} to be a string or a list of strings"
            raise ValueError(msg)
    return given


Filter = Annotated[dict[str, str | list[str]], BeforeValidator(_check)]
