"""Tests of the tick use the fixtures of the tests of schedules."""

from __future__ import annotations

from tests.schedules.conftest import every, kit, slots

__all__ = ["every", "kit", "slots"]
