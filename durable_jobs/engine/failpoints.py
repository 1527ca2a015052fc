"""Named places at which a test can let the worker die."""

from __future__ import annotations

from collections.abc import Callable

Hook = Callable[[str, str], None]

_hook: Hook | None = None


def hit(place: str, step: str) -> None:
    """Pass a place (``before``, ``body``, ``after``) of a step; free when unwatched."""
    if _hook is not None:
        _hook(place, step)


def watch(hook: Hook | None) -> Hook | None:
    """Call ``hook(place, step)`` at each place from now on; return the previous one."""
    global _hook
    previous, _hook = _hook, hook
    return previous
