"""The demo project of durable_jobs. The tests use the project too."""

from __future__ import annotations

from project.celery import app as celery_app

__all__ = ["celery_app"]
