"""The tick: small sweepers, each bounded, each harmless when two run at once."""

from __future__ import annotations
