"""The demo project in a room of its own: ``DEMO_ROOM`` is an empty directory.

There are its database, its broker (files), what is uploaded, and the trail that every
chunk of the import leaves when it is worked on.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from project.addresses import database
from project.settings import *  # noqa: F403  # it is the same project
from project.settings import LOGGING as PROJECT_LOGGING

ROOM = Path(os.environ["DEMO_ROOM"])

DATABASES = {"default": database(f"sqlite:///{quote(str(ROOM))}/demo.sqlite3")}
CELERY_BROKER_URL = ""
CELERY_BROKER_TRANSPORT = "project.demo.broker:Transport"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "folder": str(ROOM / "broker"),
    "polling_interval": 0.05,
}
MEDIA_ROOT = ROOM / "media"
TRAIL = ROOM / "trail.txt"

# Short, so that nobody waits long for a dead worker's lease to run out.
DURABLE_JOBS = {"LEASE_DURATION": "4s"}

LOGGING = PROJECT_LOGGING | {
    "formatters": {
        **PROJECT_LOGGING["formatters"],  # type: ignore[dict-item]  # a dict of dicts
        "trail": {"format": "{process} {message}", "style": "{"},
    },
    "handlers": {
        **PROJECT_LOGGING["handlers"],  # type: ignore[dict-item]  # a dict of dicts
        "trail": {
            "class": "logging.FileHandler",
            "filename": str(TRAIL),
            "formatter": "trail",
        },
    },
    "loggers": {
        "durable_jobs": {"handlers": ["console"], "level": "WARNING"},
        "django.server": {"handlers": [], "level": "WARNING", "propagate": False},
        "project.shop": {
            "handlers": ["trail", "steps"],
            "level": "INFO",
            "propagate": False,
        },
    },
}
