"""The test kit: the engine in this process, with a virtual clock and no broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from durable_jobs.testing.kit import Kit

__all__ = ["Kit"]


def __getattr__(name: str) -> Any:
    # pytest loads the plugin before Django is set up, and the kit needs models.
    if name == "Kit":
        from durable_jobs.testing.kit import Kit

        return Kit
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
