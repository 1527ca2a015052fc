"""Every function of a collection, with a crash at each of its failpoint hits."""

from __future__ import annotations
