"""Tests in a real browser: headless Chromium against a real server."""

from __future__ import annotations
