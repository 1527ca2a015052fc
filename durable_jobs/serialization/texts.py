"""Texts that are not ours: made so that every database can store them."""

from __future__ import annotations

from durable_jobs.error_text import storable_text

__all__ = ["storable_text"]
