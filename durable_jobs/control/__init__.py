"""What people do to runs: cancel, pause, resume, rerun, redrive, replay, wait."""

from __future__ import annotations
