"""The benchmark's settings, with the functions that have limits."""

from __future__ import annotations

from bench import settings
from project.settings import *  # noqa: F403  # all settings of the benchmark

INSTALLED_APPS = [*settings.INSTALLED_APPS, "bench.limited"]
DEBUG = False
CELERY_TASK_DEFAULT_QUEUE = "default"
