"""Errors and failing bodies for the tests of this package."""

from __future__ import annotations

from collections.abc import Callable


class Refused(Exception):
    """A custom error that a replay can construct again."""


class Broken(Exception):
    """A second custom error."""


def failing(
    calls: list[int],
    *,
    until: int | None = None,
    error: type[Exception] = Broken,
) -> Callable[[], str]:
    """Return a body that records each call and fails until call number ``until``."""

    def body() -> str:
        calls.append(1)
        if until is None or len(calls) < until:
            raise error(f"failure {len(calls)}")
        return f"success {len(calls)}"

    return body
