"""What steps do, told through the public API."""

from __future__ import annotations
