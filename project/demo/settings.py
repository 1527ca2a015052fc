"""Settings of the demo, which writes only to the directory in ``DEMO_DIRECTORY``.

The directory is empty at the start. It gets the database, the broker's files, the
uploaded file, and a log with one line for each execution of a chunk of the import.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from project.addresses import database
from project.settings import *  # noqa: F403  # the same project
from project.settings import LOGGING as PROJECT_LOGGING

DIRECTORY = Path(os.environ["DEMO_DIRECTORY"])

DATABASES = {"default": database(f"sqlite:///{quote(str(DIRECTORY))}/demo.sqlite3")}
CELERY_BROKER_URL = ""
CELERY_BROKER_TRANSPORT = "project.demo.broker:Transport"
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "folder": str(DIRECTORY / "broker"),
    "polling_interval": 0.05,
}
MEDIA_ROOT = DIRECTORY / "media"
CHUNK_LOG = DIRECTORY / "chunks.log"

# Short, so that the lease of the killed worker expires soon.
DURABLE_JOBS = {"LEASE_DURATION": "4s"}

LOGGING = PROJECT_LOGGING | {
    "formatters": {
        **PROJECT_LOGGING["formatters"],  # type: ignore[dict-item]  # a dict of dicts
        "chunks": {"format": "{process} {message}", "style": "{"},
    },
    "handlers": {
        **PROJECT_LOGGING["handlers"],  # type: ignore[dict-item]  # a dict of dicts
        "chunks": {
            "class": "logging.FileHandler",
            "filename": str(CHUNK_LOG),
            "formatter": "chunks",
        },
    },
    "loggers": {
        "durable_jobs": {"handlers": ["console"], "level": "WARNING"},
        "django.server": {"handlers": [], "level": "WARNING", "propagate": False},
        "project.shop": {
            "handlers": ["chunks", "steps"],
            "level": "INFO",
            "propagate": False,
        },
    },
}
