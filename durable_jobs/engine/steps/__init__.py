"""One module a kind of step. Each gives a plan, and how its memo answers."""

from __future__ import annotations
