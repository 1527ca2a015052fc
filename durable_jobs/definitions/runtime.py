"""Late binding of the public API to the engine, which imports this package.

``apps.ready()`` installs the runtime. Until then, a declaration imports no models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from durable_jobs.control.runtime import EngineRuntime

_installed: EngineRuntime | None = None


def install(runtime: EngineRuntime) -> None:
    """Make ``runtime`` the one that the public API calls."""
    global _installed
    _installed = runtime


def runtime() -> EngineRuntime:
    """Return the runtime.

    Raise ``ConfigurationError`` if the app is not installed or not ready.
    """
    if _installed is None:
        msg = (
            "durable_jobs is not ready: add 'durable_jobs' to INSTALLED_APPS, and "
            "start work only after django.setup()."
        )
        raise ConfigurationError(msg)
    return _installed
