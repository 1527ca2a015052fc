"""Settings of the tests: the demo project, the lab, and environment variables."""

from __future__ import annotations

import os

from project.settings import *  # noqa: F403  # the tests use the demo project
from project.settings import INSTALLED_APPS as PROJECT_APPS

INSTALLED_APPS = [*PROJECT_APPS, "tests.lab"]

# Mail is kept in memory, as Django's own test runner does.
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}

DURABLE_JOBS: dict[str, object] = {
    name: os.environ[f"LAB_{name}"]
    for name in (
        "LEASE_DURATION",
        "TICK_INTERVAL",
        "DRAIN_TIME",
        "CELERY_APP",
        "QUEUE_PREFIX",
    )
    if f"LAB_{name}" in os.environ
}
USE_TZ = os.environ.get("LAB_USE_TZ", "1") == "1"
if "LAB_WRONG_SETTING" in os.environ:
    DURABLE_JOBS["MAX_STEPZ"] = 1
if "LAB_MAX_CRASHES" in os.environ:
    DURABLE_JOBS["MAX_CRASHES"] = int(os.environ["LAB_MAX_CRASHES"])
