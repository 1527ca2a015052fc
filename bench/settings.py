"""The settings and Celery app of the demo project, with the benchmark's functions."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")

from project.celery import app
from project.settings import *  # noqa: F403  # all settings of the project
from project.settings import INSTALLED_APPS as PROJECT_APPS

__all__ = ["app"]

INSTALLED_APPS = [*PROJECT_APPS, "bench"]
# In debug mode, Django stores the text of every query.
DEBUG = False
# A run of W7 has 1,002 steps. The branches of W6 block, so each needs a thread.
DURABLE_JOBS = {"MAX_STEPS": 2000, "BRANCH_THREADS": 100}
