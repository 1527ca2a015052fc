"""The tick and its sweepers. Each is bounded, and safe to run twice at once."""

from __future__ import annotations
