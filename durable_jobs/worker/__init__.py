"""Execution of runs: by Celery workers, or inline in the current process."""

from __future__ import annotations
