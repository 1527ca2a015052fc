"""The demo project's settings, with the benchmark's functions and tasks in it."""

from __future__ import annotations

from project.settings import *  # noqa: F403  # all that the host has
from project.settings import INSTALLED_APPS as HOST_APPS

INSTALLED_APPS = [*HOST_APPS, "bench"]
# In debug mode Django keeps the text of every query.
DEBUG = False
# A worker started without -Q hears this queue, as the functions' own.
CELERY_TASK_DEFAULT_QUEUE = "default"
