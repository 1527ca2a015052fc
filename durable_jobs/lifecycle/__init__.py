"""The life of a run: what triggers, starts, admits and finishes it."""

from __future__ import annotations
