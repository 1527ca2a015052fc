"""Settings of a project with django-tasks-db."""

from __future__ import annotations

from bench.hosts import database

SECRET_KEY = "for-the-benchmark"
INSTALLED_APPS = ["django_tasks_db"]
DATABASES = {"default": database()}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
USE_TZ = True
