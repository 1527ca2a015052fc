"""Actions on runs, functions, queues and schedules, with and without permissions."""

from __future__ import annotations
