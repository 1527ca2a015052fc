"""Tests of steps through the public API."""

from __future__ import annotations
