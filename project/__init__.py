"""The demo host of durable_jobs, which is also the tests' host and the playground."""

from __future__ import annotations

from project.celery import app as celery_app

__all__ = ["celery_app"]
