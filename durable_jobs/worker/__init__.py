"""What executes runs: Celery's workers, or this very process."""

from __future__ import annotations
