"""The filter of a bulk run, checked before its many values could be many errors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator


def _check(given: Any) -> Any:
    """Raise ``ValueError`` for the first condition that is not made of texts."""
    for name, values in given.items() if isinstance(given, dict) else ():
        several = values if isinstance(values, list) else [values]
        if not several:
            # It would be no condition: every run would fulfil it.
            msg = f"expected a value for {name!r:.80}, got an empty list"
            raise ValueError(msg)
        if not all(isinstance(one, str) for one in several):
            msg = f"expected {name!r:.80} to be a text or a list of texts"
            raise ValueError(msg)
    return given


Filter = Annotated[dict[str, str | list[str]], BeforeValidator(_check)]
