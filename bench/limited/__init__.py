"""Functions with limits, beside some without: for ``python -m bench.flow``."""

from __future__ import annotations
