"""The HTTP side of webhook triggers: deliveries become events."""

from __future__ import annotations
