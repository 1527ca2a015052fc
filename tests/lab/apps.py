"""The lab's configuration."""

from __future__ import annotations

import os

from django.apps import AppConfig


class LabConfig(AppConfig):
    """The app ``lab``."""

    name = "tests.lab"
    label = "lab"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Shorten waiting times of the package, as environment variables say.

        ``LAB_PATROL=0.5,2,3``: check each half second, tick if the last tick is two
        seconds old, be unreachable after three. ``LAB_RESYNC=0.2``: how often to read
        the database's time.
        """
        from durable_jobs import clock
        from durable_jobs.worker import watchdog

        if times := os.environ.get("LAB_PATROL"):
            (
                watchdog.CHECK_INTERVAL,
                watchdog.TICK_OVERDUE,
                watchdog.UNREACHABLE_AFTER,
            ) = map(float, times.split(","))
        if seconds := os.environ.get("LAB_RESYNC"):
            clock.RESYNC_SECONDS = float(seconds)
