"""The HTTP side of webhook triggers: what others post becomes events."""

from __future__ import annotations
