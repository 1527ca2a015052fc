"""Functions with and without limits, for ``python -m bench.flow``."""

from __future__ import annotations
