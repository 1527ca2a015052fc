"""The demo project's settings and Celery app, with the benchmark's functions in it."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")

from project.celery import app
from project.settings import *  # noqa: F403  # all that the host has
from project.settings import INSTALLED_APPS as HOST_APPS

__all__ = ["app"]

INSTALLED_APPS = [*HOST_APPS, "bench"]
# In debug mode Django keeps the text of every query.
DEBUG = False
# A run of W7 has a thousand steps, a sleep and one step more; the branches of W6 wait.
DURABLE_JOBS = {"MAX_STEPS": 2000, "BRANCH_THREADS": 100}
