"""One module per kind of step: its plan, and how its record is read."""

from __future__ import annotations
