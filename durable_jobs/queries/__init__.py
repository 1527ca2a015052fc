"""Read models for screens and terminals. They never lock, and never write."""

from __future__ import annotations
