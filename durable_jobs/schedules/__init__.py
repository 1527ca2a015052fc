"""Crons: the rows that the code declares, their occurrences, and what fires."""

from __future__ import annotations
