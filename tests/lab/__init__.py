"""A test project whose functions record what they did and can be blocked."""

from __future__ import annotations
