"""Settings of a project with django-absurd."""

from __future__ import annotations

from bench.hosts import database

SECRET_KEY = "for-the-benchmark"
INSTALLED_APPS = ["django_absurd"]
DATABASES = {"default": database()}
TASKS = {"default": {"BACKEND": "django_absurd.backends.AbsurdBackend"}}
USE_TZ = True
