"""Events: store them, start the functions they trigger, and end waits."""

from __future__ import annotations
