"""Events: taken in, routed to functions, and offered to waits."""

from __future__ import annotations
