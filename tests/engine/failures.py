"""Errors and bodies that fail, for the tests beside this."""

from __future__ import annotations

from collections.abc import Callable


class Refused(Exception):
    """An error of the host's own, which a replay can make again."""


class Broken(Exception):
    """Another one."""


def failing(
    calls: list[int],
    *,
    until: int | None = None,
    error: type[Exception] = Broken,
) -> Callable[[], str]:
    """Return a body that notes each call, and fails until the given one."""

    def body() -> str:
        calls.append(1)
        if until is None or len(calls) < until:
            raise error(f"failure {len(calls)}")
        return f"success {len(calls)}"

    return body
