"""The life of a run: what starts it, admits it and finishes it."""

from __future__ import annotations
